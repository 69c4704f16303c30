"""What a worker does with one peer, as a pure function of what arrived.

    message -> (session, actions)        outcome of an execution -> (session, actions)

It promises that no order is carried out on private data unless the owner's rules would let the result leave to this
very peer, and that operations on values that stay here are passed on only for whom some rule names; that every order is
put before the owner, with what it would release; that every value it hands on carries the label of what it derives
from; that a request is answered once; and that a failure is a code. An operation that fails on private values bars its
data set for the rest of the session, because failing or not failing is itself an answer. It performs nothing: `worker`
executes, and the door (`release`) decides again before anything leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TypeAlias

from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName, PeerName, PlanDigest, WorkerName
from fedpriv.labels import private
from fedpriv.plans.plan import OutputRole, Plan
from fedpriv.policy.decision import NOTHING_STANDS, Deny, Permit, Recipient, Standing, decide, may_compute, may_receive
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.policy.rules import Rule, cite
from fedpriv.privacy.budget import Budget
from fedpriv.privacy.modes import ExampleDP
from fedpriv.secagg.messages import Agreement, Delivery, Roll, Survivors
from fedpriv.secagg.thresholds import DEFAULT_COLLUDING
from fedpriv.updates import TensorSpec
from fedpriv.wire.messages import (
    Announcement,
    AskBudget,
    AskCheckpoint,
    AskMock,
    AskStatistics,
    CloseRound,
    Cosigned,
    DatasetDescription,
    ErrorCode,
    Evaluate,
    Evaluation,
    Failure,
    Goodbye,
    Message,
    Mock,
    OfferPlan,
    PlanAccepted,
    Request,
    Statistics,
    Train,
    Update,
)
from fedpriv.wire.values import (
    AskObjects,
    AskRelease,
    Calls,
    Collect,
    Fetch,
    OpenDataset,
    OpenSession,
    Put,
)
from fedpriv_worker.actions import (
    Acknowledge,
    Action,
    Answered,
    Broken,
    Close,
    Contribute,
    Evaluated,
    Execute,
    Hear,
    KeepCosignature,
    Loaded,
    Note,
    Outcome,
    Point,
    Publish,
    Release,
    ShowBudget,
    ShowCheckpoint,
    StoodIn,
    Summand,
    Summed,
    Tell,
    Trained,
    Validate,
)
from fedpriv_worker.forecast import Forecast, changed_specs, forecast
from fedpriv_worker.methods import may_send
from fedpriv_worker.orders import NO_JOB, NO_ROUND, Answer, Order, asks_of, request_of
from fedpriv_worker.pricing import Price, price_of

MAXIMUM_PLANS = 32
MAXIMUM_SEEN = 64
MAXIMUM_RUNNING = 8
MAXIMUM_ROUND = 1 << 31


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays the same while a worker runs: descriptions of its data sets and their rules, never their rows.

    `legal_basis` is what the owner wrote about a data set for the ledger, `stand_ins` what the mock of one holds,
    `budgets` what may be spent of each, and `colluding` the share of workers that the owner takes for colluding.
    """

    worker: WorkerName
    torch_version: str
    datasets: Mapping[DatasetName, DatasetDescription]
    rules: Mapping[DatasetName, tuple[Rule, ...]]
    legal_basis: Mapping[DatasetName, str] = field(default_factory=dict)
    stand_ins: Mapping[DatasetName, tuple[TensorSpec, ...]] = field(default_factory=dict)
    budgets: Mapping[DatasetName, Budget] = field(default_factory=dict)
    colluding: Fraction = DEFAULT_COLLUDING


@dataclass(frozen=True, slots=True)
class Session:
    """One authenticated peer, the plans it offered, what is running for it, and what it lost the right to.

    `seen` has the forecast of every request that was put before the owner.
    """

    facts: Facts
    peer: Recipient
    plans: Mapping[PlanDigest, Plan] = field(default_factory=dict)
    running: Mapping[int, Validate | Execute] = field(default_factory=dict)
    barred: frozenset[DatasetName] = frozenset()
    seen: Mapping[ReleaseRequest, Forecast] = field(default_factory=dict)


Step: TypeAlias = tuple[Session, tuple[Action, ...]]


def open_session(facts: Facts, peer: Recipient) -> Step:
    """Return a session with `peer`, whose identity the handshake proved, and the announcement."""
    return Session(facts, peer), (Tell(announcement(facts)),)


def announcement(facts: Facts) -> Announcement:
    """Return what every peer is told first."""
    return Announcement(facts.torch_version, tuple(facts.datasets.values()))


def handle(  # noqa: PLR0911 - one for each kind of message
    session: Session, message: Message, standing: Standing = NOTHING_STANDS
) -> Step:
    """Return the session after `message` and what to do. A message that a peer may not send closes the link.

    `standing` is what the owner's rules are judged by at this moment.
    """
    if not may_send(session.peer.role, message):
        return session, (Close(),)
    match message:
        case OfferPlan():
            return _offered(session, message)
        case Train() | Evaluate() | AskStatistics() | AskMock():
            return _ordered(session, message, standing)
        case Calls() | Put() | OpenDataset() | Fetch() | AskObjects() | AskRelease() | Collect():
            return session, (Point(message, session.plans),)
        case OpenSession():
            return _asked_for_values(session, message)
        case Roll() | Delivery() | Survivors() | Agreement():
            return session, (Hear(message),)
        case AskCheckpoint():
            return _asked_for_the_checkpoint(session, message)
        case AskBudget():
            return _asked_for_the_budget(session, message)
        case CloseRound() | Cosigned() | Goodbye():
            return session, _heard(session, message)
        case _:
            return session, (Close(),)  # only a worker sends the rest


def executed(session: Session, number: int, outcome: Outcome) -> Step:
    """Return the session after the execution of request `number`, and the reply."""
    action = session.running[number]
    session = replace(session, running={other: each for other, each in session.running.items() if other != number})
    if isinstance(outcome, Broken):
        return _broke(session, action, outcome)
    if isinstance(outcome, Answered):
        return session, ()
    if isinstance(action, Execute) and action.order.dataset in session.barred:
        return _refuse(session, action.order, ErrorCode.RELEASE_DENIED)  # barred while it was running
    return _succeeded(session, action, outcome)


def unlisted(session: Session, action: Action) -> Step:
    """Return the session where an order could not be put before the owner, and a refusal instead of `action`."""
    match action:
        case Execute(order):
            others = {number: each for number, each in session.running.items() if number != order.request}
            return _refuse(replace(session, running=others), order, ErrorCode.OVER_QUOTA)
        case Tell(Failure(request)):
            return session, (Tell(Failure(request, ErrorCode.OVER_QUOTA)),)
        case _:
            raise AssertionError(f"an order came to a {type(action).__name__}")


def _heard(session: Session, message: CloseRound | Cosigned | Goodbye) -> tuple[Action, ...]:
    """Return what to do about a message that wants no answer: little, and nothing again and again, for a stranger."""
    named = may_receive(session.peer, session.facts.rules)
    match message:
        case CloseRound(job, round_number):
            return (Acknowledge(job, round_number), Publish()) if named else ()
        case Cosigned():
            return (KeepCosignature(message),) if named else ()  # it was shown no checkpoint
        case Goodbye():
            return (Acknowledge(NO_JOB, NO_ROUND), *((Publish(),) if named else ()), Close())


def _asked_for_the_checkpoint(session: Session, ask: AskCheckpoint) -> Step:
    if not may_receive(session.peer, session.facts.rules):
        return _refuse(session, ask, ErrorCode.RELEASE_DENIED)  # it counts what others were sent, too
    return session, (ShowCheckpoint(ask),)


def _asked_for_the_budget(session: Session, ask: AskBudget) -> Step:
    """Return what shows the budget: what is left of it follows from what was released, and from no row."""
    facts = session.facts
    if not may_receive(session.peer, {ask.dataset: facts.rules.get(ask.dataset, ())}):
        return _refuse(session, ask, ErrorCode.RELEASE_DENIED)
    return session, (ShowBudget(ask, facts.budgets.get(ask.dataset)),)


def _asked_for_values(session: Session, opened: OpenSession) -> Step:
    if not may_compute(session.peer, session.facts.rules):
        return _refuse(session, opened, ErrorCode.RELEASE_DENIED)
    return session, (Point(opened, session.plans),)


def _offered(session: Session, offer: OfferPlan) -> Step:
    if not may_compute(session.peer, session.facts.rules):
        return _refuse(session, offer, ErrorCode.RELEASE_DENIED)  # whom no rule names has no use for a plan
    if offer.plan.digest in session.plans:
        return session, (Tell(PlanAccepted(offer.request, offer.plan.digest)),)
    if len(session.plans) >= MAXIMUM_PLANS:
        return _refuse(session, offer, ErrorCode.OVER_QUOTA)
    return _start(session, offer, Validate(offer))


def _ordered(session: Session, order: Order, standing: Standing) -> Step:
    if code := _why_impossible(session, order):
        return _refuse(session, order, code)
    facts, peer = session.facts, session.peer
    plan = session.plans[order.plan] if isinstance(order, Train | Evaluate) else None
    try:
        price = priced(facts, order, plan)
    except UsageError:  # its numbers are the peer's own, and nothing was looked at
        return _refuse(session, order, ErrorCode.BAD_REQUEST)
    request = request_of(order, peer, price)
    foreseen = session.seen.get(request) or _foreseen(facts, request, plan)
    decisions = [decide(ask, facts.rules, standing) for ask in asks_of(order, foreseen.label, peer, price)]
    denials = [decision for decision in decisions if isinstance(decision, Deny)]
    if any(denial.by_owner for denial in denials):
        return _refuse(session, order, ErrorCode.APPROVAL_DENIED)
    if denials and not all(denial.pending for denial in denials):
        too_small = all(denial.too_small or denial.pending for denial in denials)
        return _refuse(session, order, ErrorCode.SUM_TOO_SMALL if too_small else ErrorCode.RELEASE_DENIED)
    session, noted = _noted(session, request, plan, foreseen, decisions)
    if denials:
        session, actions = _refuse(session, order, ErrorCode.APPROVAL_PENDING)
    else:
        session, actions = _start(session, order, Execute(order, plan, foreseen, price))
    return session, (*noted, *actions)


def _why_impossible(session: Session, order: Order) -> ErrorCode | None:
    """Return why `order` cannot be carried out whatever the rules say, or None."""
    if order.dataset not in session.facts.datasets:
        return ErrorCode.UNKNOWN_DATASET
    if isinstance(order, AskMock) and order.dataset not in session.facts.stand_ins:
        return ErrorCode.RELEASE_DENIED  # the same code whether there is no stand-in or no rule for it
    if isinstance(order, Train | Evaluate):
        if order.plan not in session.plans:
            return ErrorCode.UNKNOWN_PLAN
        if not 0 <= order.round < MAXIMUM_ROUND:
            return ErrorCode.BAD_REQUEST
    if isinstance(order, Train) and order.invite is not None and (order.drop_last or order.seed):
        return ErrorCode.BAD_REQUEST  # in a sum a worker orders its rows itself, and leaves none out
    return ErrorCode.RELEASE_DENIED if order.dataset in session.barred else None


def priced(facts: Facts, order: Order, plan: Plan | None) -> Price | None:
    """Return what a private order makes this worker do, and what that costs, None for another; raise `UsageError`."""
    if not isinstance(order, Train) or order.privacy is None:
        return None
    assert plan is not None  # an order to train names one
    if bool(plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)) == isinstance(order.privacy.mode, ExampleDP):
        raise UsageError("a plan that is a loss alone is for private steps on single rows, and no other plan is")
    description, budget = facts.datasets[order.dataset], facts.budgets.get(order.dataset)
    return price_of(order, order.privacy, description, budget, changed_specs(plan), facts.colluding)


def _foreseen(facts: Facts, request: ReleaseRequest, plan: Plan | None) -> Forecast:
    """Return what a request would release, with the label of it.

    Even an output that touches no row depends on how many rows there are: the number of local steps, the weight. So
    an answer carries the data set's own label, and with it whatever the plan mixes in.
    """
    description = facts.datasets[request.dataset]
    origin = private(request.dataset, PeerName(facts.worker))
    stand_in = facts.stand_ins.get(request.dataset, ())
    return forecast(plan, request, origin, features=len(description.features), stand_in=stand_in)


def _noted(
    session: Session,
    request: ReleaseRequest,
    plan: Plan | None,
    foreseen: Forecast,
    decisions: Sequence[Permit | Deny],
) -> Step:
    """Return the session knowing the request of an order, and the note for the owner: an earlier one may be gone."""
    again = request in session.seen
    kept = dict(list(session.seen.items())[-MAXIMUM_SEEN + 1 :])
    permits = [decision.rule for decision in decisions if isinstance(decision, Permit)]
    cited = " ".join(cite(rule) for rule in permits if rule is not None) if len(permits) == len(decisions) else ""
    session = session if again else replace(session, seen={**kept, request: foreseen})
    return session, (Note(request, plan, cited, again),)


def _start(session: Session, request: Request, action: Validate | Execute) -> Step:
    if request.request in session.running:
        return _refuse(session, request, ErrorCode.BAD_REQUEST)
    if len(session.running) >= MAXIMUM_RUNNING:
        return _refuse(session, request, ErrorCode.OVER_QUOTA)
    return replace(session, running={**session.running, request.request: action}), (action,)


def _succeeded(session: Session, action: Validate | Execute, outcome: Loaded | Summand | StoodIn) -> Step:
    if isinstance(action, Validate):
        assert isinstance(outcome, Loaded), outcome
        plan = action.request.plan
        session = replace(session, plans={**session.plans, plan.digest: plan})
        return session, (Tell(PlanAccepted(action.request.request, plan.digest)),)
    order = action.order
    if action.invited:
        assert isinstance(outcome, Summand), outcome
        assert isinstance(order, Train | Evaluate | AskStatistics), order
        return session, (Contribute(outcome, order, action.forecast),)
    return session, (Release(_answer(order, outcome), order, action.forecast),)


def _answer(order: Order, outcome: Loaded | Summand | StoodIn) -> Answer:
    match order, outcome:
        case Train(), Trained(rows, metrics, delta, memory):
            return Update(order.request, order.round, float(rows), metrics, delta, memory)
        case Evaluate(), Evaluated(rows, metrics):
            return Evaluation(order.request, order.round, float(rows), metrics)
        case AskStatistics(), Summed(values):
            return Statistics(order.request, values)
        case AskMock(), StoodIn(values):
            return Mock(order.request, values)
        case _:
            raise AssertionError(f"the executor answered {type(order).__name__} with {type(outcome).__name__}")


def _broke(session: Session, action: Validate | Execute, outcome: Broken) -> Step:
    if outcome.on_values and isinstance(action, Execute):
        session = replace(session, barred=session.barred | {action.order.dataset})
        if action.invited:
            return session, ()  # a private one, for which no zeros stand in: it withdraws, and nobody hears why
        return _refuse(session, action.order, outcome.code)  # where it failed would say more than that it did
    failure = Failure(action.number, outcome.code, outcome.step, outcome.operation)
    return session, (Tell(failure),)


def _refuse(session: Session, request: Request, code: ErrorCode) -> Step:
    return session, (Tell(Failure(request.request, code)),)
