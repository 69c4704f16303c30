"""What a worker does with one peer, as a pure function of what arrived.

    message -> (session, actions)        outcome of an execution -> (session, actions)

It promises that nothing is executed on private data unless the owner's rules would let the result leave to this
very peer; that every value it hands on carries the label of what it derives from; that a request is answered
once; and that a failure is a code. An operation that fails on private values bars its data set for the rest of
the session, because failing or not failing is itself an answer. It performs nothing: `worker` executes, and the
door (`release`) decides again before anything leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from fedpriv.ids import DatasetName, PeerName, PlanDigest, WorkerName
from fedpriv.labels import Label, private
from fedpriv.plans.plan import Plan
from fedpriv.policy.decision import Ask, Deny, Recipient, decide, may_receive
from fedpriv.policy.rules import Rule
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import (
    Announcement,
    AskStatistics,
    CloseRound,
    DatasetDescription,
    ErrorCode,
    Evaluate,
    Evaluation,
    Failure,
    Goodbye,
    Message,
    OfferPlan,
    PlanAccepted,
    Request,
    Statistics,
    Train,
    Update,
)

MAXIMUM_PLANS = 32
MAXIMUM_RUNNING = 8
MAXIMUM_ROUND = 1 << 31


@dataclass(frozen=True, slots=True)
class Facts:
    """What stays the same while a worker runs: descriptions of its data sets and their rules, never their rows."""

    worker: WorkerName
    torch_version: str
    datasets: Mapping[DatasetName, DatasetDescription]
    rules: Mapping[DatasetName, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class Session:
    """One authenticated peer, the plans it offered, what is running for it, and what it lost the right to."""

    facts: Facts
    peer: Recipient
    plans: Mapping[PlanDigest, Plan] = field(default_factory=dict)
    running: Mapping[int, Request] = field(default_factory=dict)
    barred: frozenset[DatasetName] = frozenset()


# --- what an execution came to ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """The plan passed validation and is compiled."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Local training ended: what changed, over how many rows, and the training metrics."""

    rows: int
    metrics: Mapping[str, float] = field(repr=False)
    delta: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Evaluation ended: metrics over so many validation rows."""

    rows: int
    metrics: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Summed:
    """Statistics were computed."""

    values: TensorSet = field(repr=False)


@dataclass(frozen=True, slots=True)
class Broken:
    """Execution failed. `on_values` says that it could not have failed before private values were read."""

    code: ErrorCode
    step: int = -1
    operation: str = ""
    on_values: bool = False


Outcome: TypeAlias = Loaded | Trained | Evaluated | Summed | Broken


# --- actions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Execute:
    """Carry out `request` with the plan that it offers or names, if any, then report the outcome."""

    request: Request
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message that derives from no private data; the door records it."""

    message: Announcement | PlanAccepted | Failure | Goodbye


@dataclass(frozen=True, slots=True)
class Release:
    """Hand a value that derives from private data to the door, with its label and what it answers."""

    message: Update | Evaluation | Statistics
    label: Label
    request: Train | Evaluate | AskStatistics


@dataclass(frozen=True, slots=True)
class Publish:
    """Sign and publish a checkpoint of the ledger."""


@dataclass(frozen=True, slots=True)
class Close:
    """End the link."""


Action: TypeAlias = Execute | Tell | Release | Publish | Close
Step: TypeAlias = tuple[Session, tuple[Action, ...]]


def open_session(facts: Facts, peer: Recipient) -> Step:
    """Return a session with `peer`, whose identity the handshake proved, and the announcement."""
    return Session(facts, peer), (Tell(Announcement(facts.torch_version, tuple(facts.datasets.values()))),)


def handle(session: Session, message: Message) -> Step:
    """Return the session after `message` and what to do. A message that a peer may not send closes the link."""
    match message:
        case OfferPlan():
            return _offered(session, message)
        case Train() | Evaluate() | AskStatistics():
            return _ordered(session, message)
        case CloseRound():
            return session, (Publish(),)
        case Goodbye():
            return session, (Publish(), Close())
        case _:
            return session, (Close(),)  # only a worker sends the rest


def executed(session: Session, number: int, outcome: Outcome) -> Step:
    """Return the session after the execution of request `number`, and the reply."""
    request = session.running[number]
    running = {other: order for other, order in session.running.items() if other != number}
    session = replace(session, running=running)
    if isinstance(outcome, Broken):
        return _broke(session, request, outcome)
    if not isinstance(request, OfferPlan) and request.dataset in session.barred:
        return _refuse(session, request, ErrorCode.RELEASE_DENIED)  # barred while it was running
    return _succeeded(session, request, outcome)


def _offered(session: Session, offer: OfferPlan) -> Step:
    if not may_receive(session.peer, session.facts.rules):
        return _refuse(session, offer, ErrorCode.RELEASE_DENIED)  # whom no rule names has no use for a plan
    if offer.plan.digest in session.plans:
        return session, (Tell(PlanAccepted(offer.request, offer.plan.digest)),)
    if len(session.plans) >= MAXIMUM_PLANS:
        return _refuse(session, offer, ErrorCode.OVER_QUOTA)
    return _start(session, offer)


def _ordered(session: Session, order: Train | Evaluate | AskStatistics) -> Step:
    if order.dataset not in session.facts.datasets:
        return _refuse(session, order, ErrorCode.UNKNOWN_DATASET)
    if not isinstance(order, AskStatistics):
        if order.plan not in session.plans:
            return _refuse(session, order, ErrorCode.UNKNOWN_PLAN)
        if not 0 <= order.round < MAXIMUM_ROUND:
            return _refuse(session, order, ErrorCode.BAD_REQUEST)
    if order.dataset in session.barred:
        return _refuse(session, order, ErrorCode.RELEASE_DENIED)
    asks = _would_release(session.peer, order, _label(session, order))
    if any(isinstance(decide(ask, session.facts.rules), Deny) for ask in asks):
        return _refuse(session, order, ErrorCode.RELEASE_DENIED)
    return _start(session, order)


def _start(session: Session, request: Request) -> Step:
    if request.request in session.running:
        return _refuse(session, request, ErrorCode.BAD_REQUEST)
    if len(session.running) >= MAXIMUM_RUNNING:
        return _refuse(session, request, ErrorCode.OVER_QUOTA)
    plan = None if isinstance(request, AskStatistics) else _plan(session, request)
    return replace(session, running={**session.running, request.request: request}), (Execute(request, plan),)


def _plan(session: Session, request: OfferPlan | Train | Evaluate) -> Plan:
    return request.plan if isinstance(request, OfferPlan) else session.plans[request.plan]


def _would_release(peer: Recipient, order: Train | Evaluate | AskStatistics, label: Label) -> tuple[Ask, ...]:
    """Return what carrying out `order` would release, all of which some rule must allow."""
    match order:
        case Train(metrics=metrics, purpose=purpose):
            update = Ask("update", label, peer, (), purpose)
            return (update, Ask("metrics", label, peer, metrics, purpose)) if metrics else (update,)
        case Evaluate(metrics=metrics, purpose=purpose):
            return (Ask("metrics", label, peer, metrics, purpose),)
        case AskStatistics(kinds=kinds, purpose=purpose):
            return (Ask("statistics", label, peer, kinds, purpose),)


def _succeeded(session: Session, request: Request, outcome: Loaded | Trained | Evaluated | Summed) -> Step:
    match request, outcome:
        case OfferPlan(request=number, plan=plan), Loaded():
            session = replace(session, plans={**session.plans, plan.digest: plan})
            return session, (Tell(PlanAccepted(number, plan.digest)),)
        case Train(request=number, round=round_number), Trained(rows, metrics, delta):
            update = Update(number, round_number, float(rows), metrics, delta)
            return session, (Release(update, _label(session, request), request),)
        case Evaluate(request=number, round=round_number), Evaluated(rows, metrics):
            evaluation = Evaluation(number, round_number, float(rows), metrics)
            return session, (Release(evaluation, _label(session, request), request),)
        case AskStatistics(request=number), Summed(values):
            return session, (Release(Statistics(number, values), _label(session, request), request),)
        case _:
            raise AssertionError(f"the executor answered {type(request).__name__} with {type(outcome).__name__}")


def _label(session: Session, request: Train | Evaluate | AskStatistics) -> Label:
    """Return the label of everything a request yields.

    A plan reads one data set, and even an output that touches no row depends on how many rows there are: the
    number of local steps, the weight. So it is the data set's own label, whatever the plan does.
    """
    return private(request.dataset, PeerName(session.facts.worker))


def _broke(session: Session, request: Request, outcome: Broken) -> Step:
    if outcome.on_values and not isinstance(request, OfferPlan):
        session = replace(session, barred=session.barred | {request.dataset})
    failure = Failure(request.request, outcome.code, outcome.step, outcome.operation)
    return session, (Tell(failure),)


def _refuse(session: Session, request: Request, code: ErrorCode) -> Step:
    return session, (Tell(Failure(request.request, code)),)
