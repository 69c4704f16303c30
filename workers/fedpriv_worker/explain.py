"""A request in words for the owner who has to answer it, and in numbers for a program.

It says who asks and why, what would be computed, what would leave and what the recipient can read from that, what the
owner's rules say, and whether what left so far is what was foreseen. Everything is read from what is on record:
nothing runs and no row is touched. What a peer wrote is passed on as its own words, never taken for true; `wording`
makes a text of it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fedpriv.errors import FedprivError
from fedpriv.ids import WorkerName
from fedpriv.ledger.entries import Entry
from fedpriv.plans.plan import InputRole, Plan, Step
from fedpriv.policy.decision import Standing
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.policy.rules import Approval, PlainUpdate, in_words
from fedpriv.storage.requests import Recorded
from fedpriv.wire.plans import decode_plan
from fedpriv_worker.forecast import Forecast, forecast
from fedpriv_worker.holdings import Holding, Verdict, judge
from fedpriv_worker.listing import listed

MOST_OPERATIONS = 5
IN_SUMS, MASKED, UNMASK = "secagg-", "secagg-masked", "secagg-unmask"
NO_RULES = "rules are not in the state folder: name the worker.toml that has them with --config"

READING: dict[str, str] = {
    "update": "An update in clear can reveal individual rows, above all one made from few rows, with small batches or "
    "in many epochs; give only secure sums or noised updates to whom you would not show a row.",
    "metrics": "Each metric is one number that the sender's plan computes under this name; nothing holds it to be an "
    "average, and it can be the value of one person. Every further question tells more.",
    "statistics": "Sums over all rows reveal no single row by themselves; whoever knows all rows but one can compute "
    "that one, sums before and after a change reveal the change, and a count is the exact number of rows.",
    "value": "One value that was computed step by step on your rows: read the steps. A sum over many rows tells little "
    "of one, a copy of rows tells everything, and weights of the caller's choosing can pick one row out.",
    "mock": "The stand-in is what you wrote: it reveals what you put into it, and nothing else of the rows.",
}

NOISED = (
    "What it shows of any one unit of your budget is bounded by the epsilon above, whatever the recipient knows or "
    "does with it: up to 1 is strong, 3 is useful and defensible, beyond 8 is hardly a promise. What is true of "
    "everybody in the data it shows all the same."
)
IN_A_SUM = (
    "Of this worker alone, nothing: its numbers leave masked, and the masks come off the sum over all workers alone. "
    "The sum itself can say something of one worker to whoever knows what the others put in, and so can two sums that "
    "differ by one worker."
)


@dataclass(frozen=True, slots=True)
class Left:
    """What the ledger says left for one request: messages, those among them sent again, bytes, and misfits.

    `outside` names each entry that is not what was foreseen: its number and why.
    """

    messages: int
    again: int
    bytes: int
    outside: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything about one request that an owner can be told; `plan` and `foreseen` are None where `problem` says why.

    `used` is how many releases of the approval were used; `verdicts` is None where no rules are known.
    """

    recorded: Recorded
    holding: Holding | None
    plan: Plan | None
    foreseen: Forecast | None
    problem: str
    verdicts: tuple[Verdict, ...] | None
    used: int
    now: float
    left: Left

    @property
    def standing(self) -> str:
        """Where the request stands now, as `standing_of` says it."""
        return standing_of(self.recorded, self.verdicts, self.used)

    @property
    def weight(self) -> str | None:
        """How exactly the weight of an update tells the row count: "exact", "rounded" or "uniform"; None for others."""
        request = self.recorded.request
        if "update" not in request.releases or request.masked_among or self.holding is None:
            return None
        verdicts = self.verdicts or ()
        rule = next((each.permit.rule for each in verdicts if each.release == "update" and each.permit), None)
        if rule is None:
            rule = next((each for each in self.holding.rules if isinstance(each, Approval)), None)
        return rule.weight if isinstance(rule, PlainUpdate | Approval) else "uniform"


def explain(
    recorded: Recorded,
    holding: Holding | None,
    worker: WorkerName,
    standing: Standing,
    entries: Iterable[Entry],
    siblings: Sequence[Recorded] = (),
    *,
    rules_known: bool = True,
) -> Explanation:
    """Return what can be said of `recorded`; `siblings` are requests that the ledger cannot tell from it."""
    request = recorded.request
    plan, foreseen, problem = _foreseen(recorded, holding, worker)
    if not rules_known:
        problem = NO_RULES
    judged = () if holding is None else judge(request, worker, holding.rules, standing)
    others = [_foreseen(other, holding, worker)[1] for other in siblings]
    bound = max((each.most_bytes for each in (foreseen, *others) if each is not None), default=0)
    return Explanation(
        recorded=recorded,
        holding=holding,
        plan=plan,
        foreseen=foreseen,
        problem=problem,
        verdicts=judged if rules_known else None,
        used=0 if recorded.grant is None else standing.used.get(recorded.grant.digest, 0),
        now=standing.now,
        left=what_left(request, worker, foreseen, bound, entries),
    )


def standing_of(recorded: Recorded, verdicts: Sequence[Verdict] | None, used: int) -> str:
    """Return where a request stands now: "approved", "permitted", "waiting", "answered", "denied" or "not allowed".

    It is "unknown" where no rules are known (None) and the owner did not deny it. "answered" is a single value that
    left as often as was approved, `used` times: nobody can ask for it again.
    """
    if verdicts and all(verdict.permit is not None for verdict in verdicts):
        by_grant = any(verdict.permit is not None and verdict.permit.grant is not None for verdict in verdicts)
        return "approved" if by_grant else "permitted"
    if recorded.state == "denied":
        return "denied"
    if verdicts is None:
        return "unknown"
    if "value" in recorded.request.releases and recorded.grant is not None and used >= recorded.grant.releases:
        return "answered"
    waits = verdicts and all(verdict.permit is not None or verdict.pending for verdict in verdicts)
    return "waiting" if waits else "not allowed"


def same_in_ledger(one: ReleaseRequest, other: ReleaseRequest) -> bool:
    """Return whether ledger entries of `one` and `other` look alike: entries name no epochs, kinds or batch size."""
    return (
        (one.recipient.name, one.dataset, one.plan, one.purpose)
        == (other.recipient.name, other.dataset, other.plan, other.purpose)
    ) and _kind(one) == _kind(other)


def what_left(
    request: ReleaseRequest, worker: WorkerName, foreseen: Forecast | None, most_bytes: int, entries: Iterable[Entry]
) -> Left:
    """Return what the entries of this plan, recipient, data set and purpose add up to, held against the forecast."""
    label, kind = f"{request.dataset}/{worker}", _kind(request)
    messages = again = total = 0
    outside: list[tuple[int, str]] = []
    for entry in entries:
        draft = entry.draft
        same = (draft.peer, draft.plan, draft.purpose) == (request.recipient.name, request.plan, request.purpose)
        masked = draft.kind.startswith(IN_SUMS)
        if not (same and label in draft.labels) or masked != (request.masked_among > 0):
            continue
        if not request.plan and draft.kind != kind and not masked:
            continue
        messages, total, again = messages + 1, total + draft.bytes, again + (draft.source >= 0)
        if draft.kind not in (kind, UNMASK if masked else kind):
            outside.append((entry.seq, f"is of the kind {draft.kind}, not {kind}"))
        elif foreseen is not None and draft.kind == kind and draft.bytes > most_bytes:
            outside.append((entry.seq, f"has {draft.bytes:,} bytes, {most_bytes:,} at most were foreseen"))
    return Left(messages, again, total, tuple(outside))


def facts(explanation: Explanation) -> dict[str, Any]:
    """Return the explanation as values for JSON."""
    recorded, foreseen, plan = explanation.recorded, explanation.foreseen, explanation.plan
    request = recorded.request
    return {
        "id": request.id,
        "standing": explanation.standing,
        "recipient": {"name": request.recipient.name, "role": request.recipient.role},
        "purpose": request.purpose,
        "dataset": request.dataset,
        "asked": {"times": recorded.times, "first": recorded.first, "last": recorded.last},
        "releases": list(request.releases),
        "kinds": list(request.kinds),
        "epochs": request.epochs,
        "batch_size": request.batch_size,
        "masked_among": request.masked_among,
        "privacy": json.loads(request.privacy) if request.privacy else None,
        "epsilon": request.epsilon,
        "plan": None if plan is None else _plan_facts(plan, request),
        "problem": explanation.problem,
        "forecast": None if foreseen is None else _forecast_facts(foreseen, explanation.weight),
        "reading": reading_of(request),
        "rules": [_verdict_facts(verdict) for verdict in explanation.verdicts or ()],
        "approval": grant_facts(recorded, explanation.used),
        "denied_because": recorded.why if recorded.state == "denied" else "",
        "left": {
            "messages": explanation.left.messages,
            "sent_again": explanation.left.again,
            "bytes": explanation.left.bytes,
            "outside_forecast": [{"entry": entry, "why": why} for entry, why in explanation.left.outside],
        },
    }


def reading_of(request: ReleaseRequest) -> dict[str, str]:
    """Return what the recipient can read from each part of what it asks for."""
    known = {release: READING[release] for release in request.releases if release in READING}
    if request.epsilon is not None:
        return dict.fromkeys(known, NOISED)
    return dict.fromkeys(known, IN_A_SUM) if request.masked_among else known


def grant_facts(recorded: Recorded, used: int) -> dict[str, Any] | None:
    """Return the approval of a request as values for JSON, or None."""
    grant = recorded.grant
    if grant is None:
        return None
    return {
        "digest": grant.digest,
        "rule": grant.rule,
        "releases": grant.releases,
        "used": used,
        "expires": grant.expires,
        "given": recorded.decided,
    }


def parameters_of(plan: Plan) -> tuple[int, int, int]:
    """Return how many numbers a model has that are trained, in how many tensors, and how many further ones it has."""
    trained = [math.prod(each.shape) for each in plan.inputs_of(InputRole.PARAMETER)]
    others = plan.inputs_of(InputRole.STATE, InputRole.FROZEN)
    return sum(trained), len(trained), sum(math.prod(each.shape) for each in others)


def most_frequent(steps: Sequence[Step], most: int) -> list[tuple[str, int]]:
    """Return the operations that `steps` name most often, `most` at most, with their number."""
    counted = Counter(step.operation for step in steps)
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))[:most]


def _foreseen(
    recorded: Recorded, holding: Holding | None, worker: WorkerName
) -> tuple[Plan | None, Forecast | None, str]:
    """Return plan and forecast of a request, or as much of them as there is and why there is no more."""
    plan: Plan | None = None
    try:
        plan = decode_plan(recorded.plan) if recorded.plan else None
        if holding is None:
            return plan, None, f"this worker has no data set {recorded.request.dataset!r} now"
        if holding.rows is None and recorded.request.releases in {("statistics",), ("mock",)}:
            return plan, None, "how large it is depends on columns that are read when the worker starts"
        found = forecast(
            plan, recorded.request, holding.label(worker), features=holding.features or 0, stand_in=holding.stand_in
        )
    except FedprivError as error:
        return plan, None, str(error)
    return plan, found, ""


def _kind(request: ReleaseRequest) -> str:
    if request.masked_among:
        return MASKED
    if "update" in request.releases:
        return "update"
    return "evaluation" if "metrics" in request.releases else (*request.releases, "nothing")[0]


def _plan_facts(plan: Plan, request: ReleaseRequest) -> dict[str, Any]:
    numbers, tensors, rest = parameters_of(plan)
    return {
        "digest": request.plan,
        "torch": plan.torch_version,
        "steps": len(plan.steps),
        "listing": listed(plan) if "value" in request.releases else [],
        "most_frequent": [
            {"operation": name, "times": times} for name, times in most_frequent(plan.steps, MOST_OPERATIONS)
        ],
        "inputs": [
            {"name": each.name, "role": each.role.value, "dtype": each.dtype, "shape": list(each.shape)}
            for each in plan.inputs
        ],
        "trained_numbers": numbers,
        "trained_tensors": tensors,
        "further_numbers": rest,
    }


def _forecast_facts(foreseen: Forecast, weight: str | None) -> dict[str, Any]:
    return {
        "kind": foreseen.kind,
        "tensors": [
            {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "bytes": spec.nbytes}
            for spec in foreseen.tensors
        ],
        "metrics": list(foreseen.metrics),
        "payload_bytes": foreseen.payload_bytes,
        "most_bytes": foreseen.most_bytes,
        "weight": weight,
        "derive_from_rows": sorted(name for name, label in foreseen.labels.items() if not label.is_public),
    }


def _verdict_facts(verdict: Verdict) -> dict[str, Any]:
    rule = None if verdict.permit is None else verdict.permit.rule
    return {
        "release": verdict.release,
        "permitted": verdict.permit is not None,
        "rule": None if rule is None else in_words(rule),
        "reasons": list(verdict.reasons),
        "pending": verdict.pending,
    }
