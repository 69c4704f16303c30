"""An explanation as a text that its owner can read aloud in two minutes.

Every sentence comes from the explanation's values; the commands in it can be typed as they stand. Words of a peer are
set in quotation marks, cut where they are long, and freed of everything that does not print or prints as nothing; a
line in the middle of them begins with a mark and further in than what we say. It decides nothing.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime

from fedpriv import legible
from fedpriv.errors import counted
from fedpriv.plans.plan import InputRole, Plan
from fedpriv.policy.requests import Grant, ReleaseRequest
from fedpriv.policy.rules import Approval, in_words
from fedpriv_worker.explain import MASKED, MOST_OPERATIONS, Explanation, most_frequent, parameters_of, reading_of
from fedpriv_worker.forecast import WORD_BYTES, Forecast
from fedpriv_worker.holdings import Verdict
from fedpriv_worker.lineage import plans_in
from fedpriv_worker.listing import MOST_WORDS, in_order, results_of, short, sized, source, steps_of

MOST_TENSORS = 6
MOST_MISFITS = 5
MOST_STEPS = 40
_WIDTH = 110
_HEADLINES = {
    "waiting": "it waits for your answer, and nothing leaves until you give it",
    "permitted": "your rules let it out",
    "approved": "you approved it",
    "answered": "you approved it, and it left",
    "denied": "you denied it, and nothing leaves",
    "not allowed": "no rule lets it out, and nothing leaves",
    "unknown": "whether your rules let it out is not known here",
}
_WEIGHTS = {
    "exact": "with the exact number of rows as its weight",
    "rounded": "with the number of rows, rounded down to tens, as its weight",
    "uniform": "with the weight 1, which tells nothing of the number of rows",
}


def in_text(explanation: Explanation) -> str:
    """Return the explanation as lines of text."""
    sections = (
        ("", _asked(explanation)),
        ("What would be computed, here, on rows that stay here", _computed(explanation)),
        ("What would leave, each time", _leaving(explanation)),
        ("What the recipient can read from it", _reading(explanation)),
        ("What your rules say", _rules(explanation)),
        ("What you can do", _choices(explanation)),
        ("What has left so far", _left(explanation)),
    )
    lines: list[str] = []
    for title, content in sections:
        lines += ["", title] if title else []
        lines += [_wrapped(line) for line in content]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a peer's words in quotation marks, cut, and without anything that could pass for our own."""
    return legible.quoted(text, MOST_WORDS)


def moment(seconds: float) -> str:
    """Return a time as people write it, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _asked(explanation: Explanation) -> Iterator[str]:
    recorded, request = explanation.recorded, explanation.recorded.request
    yield f"Request {request.id}: {_headline(explanation)}."
    yield ""
    who = f"{request.recipient.name}, a {request.recipient.role} by its certificate,"
    yield f"{who} asks for {_parts(explanation)} of the data set {quoted(request.dataset)}."
    stated = f"for the purpose {quoted(request.purpose)}" if request.purpose else "without stating a purpose"
    yield f"It asks {stated}; nobody has checked that."
    often = counted(recorded.times, "time")
    yield f"It asked {often}, first on {moment(recorded.first)}, last on {moment(recorded.last)}."


def _headline(explanation: Explanation) -> str:
    """Return in one line where the request stands; one that waits again says what became of its approval."""
    grant = explanation.recorded.grant
    if explanation.standing != "waiting" or grant is None:
        return _HEADLINES[explanation.standing]
    if grant.expires <= explanation.now:
        return f"your approval expired on {moment(grant.expires)}; nothing more leaves"
    if explanation.used >= grant.releases:
        used = counted(grant.releases, "release")
        return f"your approval is used up ({used}); nothing more leaves"
    return _HEADLINES["waiting"]  # approved under a rule that has changed since


def _parts(explanation: Explanation) -> str:
    request = explanation.recorded.request
    kinds = f" ({', '.join(quoted(kind) for kind in request.kinds)})" if request.kinds else ""
    names = {
        "update": "an update of its model",
        "metrics": f"metrics{kinds}",
        "statistics": f"statistics of each column{kinds}",
        "mock": "the stand-in",
        "value": f"one value{kinds}",
    }
    parts = " and ".join(names.get(each, quoted(each)) for each in sorted(request.releases, reverse=True))
    among = request.masked_among
    return f"{parts}, masked, in a sum over at least {counted(among, 'worker')}," if among else parts


def _computed(explanation: Explanation) -> Iterator[str]:
    request, plan = explanation.recorded.request, explanation.plan
    if plan is None:
        known = {
            "statistics": "Sums over the rows of each feature column, by this worker's own code",
            "mock": "Nothing: the stand-in is sent as you wrote it",
        }
        unknown = f"Not known: {explanation.problem or 'no plan is on record'}"
        yield f"  {known.get(' '.join(request.releases), unknown)}."
        return
    if "value" in request.releases:
        yield from _steps(plan)
        return
    if "update" in request.releases:
        passes = counted(request.epochs, "pass", "passes")
        yield f"  Training: {passes} over all rows, {request.batch_size:,} rows at once."
        yield from _privacy(request)
    else:
        yield f"  A measurement of a model on the rows held out for that, {request.batch_size:,} at once."
    yield from _plan(plan)


def _privacy(request: ReleaseRequest) -> Iterator[str]:
    """Say how an update is clipped and noised, who adds the noise, and what the job costs the budget."""
    if not request.privacy:
        return
    said = json.loads(request.privacy)
    rounds, clip, multiplier = counted(said["rounds"], "round"), said["clip"], said["noise_multiplier"]
    yield f"  Private, as {said['mode']}, for {rounds}: clipped to {clip:g}, noise multiplier {multiplier:.4g}."
    if request.epsilon is None:
        yield "  This worker clips, and no more: the noise is the recipient's promise, and bounds nothing here."
    else:
        yield f"  This worker adds noise itself; all rounds cost its budget epsilon {request.epsilon:.4g}."


def _steps(plan: Plan) -> Iterator[str]:
    """Say how a value came about, step by step; what is long is cut in the middle."""
    own = [each for each in plan.inputs if each.role is InputRole.ARGUMENT]
    named = [source(each) for each in plan.inputs if each.role is not InputRole.ARGUMENT]
    shown = [source(each) for each in own[:MOST_TENSORS]]
    yield f"  It was computed already, step by step, from {', '.join([*named, *shown])}"
    if len(own) > MOST_TENSORS:
        yield f"  and {len(own) - MOST_TENSORS:,} more of the caller's own, which --steps names"
    if len(plan.steps) <= MOST_STEPS:
        yield f"  in {counted(len(plan.steps), 'step')}; the numbers 0 to {len(plan.inputs) - 1} are the inputs above:"
    else:
        yield f"  in {len(plan.steps):,} steps, of which these are the first and the last:"
    yield from _cut(plan)
    for slot, used in plans_in(plan).items():
        steps = counted(len(used.steps), "step")
        yield f"  Plan #{slot} is a function of the caller's, of {steps}; it gives {results_of(used)}. In it,"
        yield f"  {in_order(used)}:"
        yield from _cut(used)


def _cut(plan: Plan) -> Iterator[str]:
    """Yield the steps of a plan; of many, the first and the last, and which operations stand between them."""
    lines = [f"    {each}" for each in steps_of(plan)]
    if len(lines) > MOST_STEPS:
        left_out = plan.steps[MOST_STEPS // 2 : -MOST_STEPS // 2]
        often = ", ".join(f"{short(name)} ({times:,})" for name, times in most_frequent(left_out, len(left_out)))
        between = [f"    between these, {len(left_out):,} steps that --steps prints: {often}"]
        lines = [*lines[: MOST_STEPS // 2], *between, *lines[-MOST_STEPS // 2 :]]
    yield from lines


def _plan(plan: Plan) -> Iterator[str]:
    numbers, tensors, rest = parameters_of(plan)
    further = f", and {counted(rest, 'further number')}" if rest else ""
    yield f"  The model has {counted(numbers, 'trained number')} in {counted(tensors, 'tensor')}{further}."
    if kept := sum(math.prod(each.shape) for each in plan.inputs_of(InputRole.KEPT)):
        yield f"  This worker keeps {counted(kept, 'number')} of its own for the job's next round; they do not leave."
    for each in plan.inputs_of(InputRole.FEATURES, InputRole.TARGET):
        of = f" of {' x '.join(map(str, each.shape[1:]))}" if each.shape[1:] else ""
        yield f"  It reads the {each.role.value} of each row ({each.dtype}{of})."
    often = ", ".join(f"{short(name)} ({times})" for name, times in most_frequent(plan.steps, MOST_OPERATIONS))
    yield f"  It is a list of {counted(len(plan.steps), 'operation')}, no program; most often: {often}."


def _leaving(explanation: Explanation) -> Iterator[str]:
    foreseen = explanation.foreseen
    if foreseen is None:
        yield f"  Not known: {explanation.problem}."
        return
    tensors = foreseen.tensors
    if foreseen.kind == MASKED:
        most = counted(foreseen.payload_bytes // WORD_BYTES, "number")
        yield f"  One vector of at most {most}, masked: updates, metrics, its weight, and how many were clipped."
        yield "  Beside it public keys, sealed shares of fresh secrets, signatures, and, at the end, the shares that"
        yield "  unmask the sum; each is an entry of the ledger."
    elif tensors:
        size = counted(foreseen.payload_bytes, "byte")
        yield f"  One message with {counted(len(tensors), 'tensor')}, {size} of numbers:"
        yield from _tensors(foreseen)
    if foreseen.metrics and foreseen.kind != MASKED:
        named = ", ".join(map(quoted, foreseen.metrics))
        yield f"  {'Beside that, one' if tensors else 'One'} number for each of {named}."
    if explanation.weight is not None:
        yield f"  It goes {_WEIGHTS[explanation.weight]}."
    elif foreseen.kind == "evaluation" and explanation.holding is not None:
        hidden = explanation.holding.told == "hidden"
        yield f"  It goes {_WEIGHTS['uniform' if hidden else 'rounded']}."
    yield f"  At most {counted(foreseen.most_bytes, 'byte')} on the wire in all; the door stops whatever is larger."
    private = sum(not label.is_public for label in foreseen.labels.values())
    if private:
        yield f"  {private} of the plan's {counted(len(foreseen.labels), 'result')} derive from your rows."


def _tensors(foreseen: Forecast) -> Iterator[str]:
    for spec in foreseen.tensors[:MOST_TENSORS]:
        yield f"    {quoted(spec.name)} {sized(spec.dtype, spec.shape)}"
    if len(foreseen.tensors) > MOST_TENSORS:
        yield f"    and {len(foreseen.tensors) - MOST_TENSORS} more"


def _reading(explanation: Explanation) -> Iterator[str]:
    request = explanation.recorded.request
    known = reading_of(request)
    said = (known.get(each, "Nothing: this version has no answer to it.") for each in sorted(request.releases)[::-1])
    for text in dict.fromkeys(said):
        yield f"  {text}"


def _rules(explanation: Explanation) -> Iterator[str]:
    if explanation.holding is None:
        yield f"  Nothing: {explanation.problem}."
    said: dict[tuple[str, ...], list[str]] = {}
    for verdict in explanation.verdicts or ():
        said.setdefault(_said(verdict), []).append(verdict.release)
    for (first, *reasons), releases in said.items():
        yield f"  {' and '.join(releases).capitalize()}: {first}"
        yield from (f"    {reason}" for reason in reasons)
    grant = explanation.recorded.grant
    if grant is not None:
        yield f"  {_approval(grant, explanation.used, explanation.now)}"
    if explanation.recorded.state == "denied" and explanation.recorded.why:
        decided = explanation.recorded.decided
        when = "" if decided is None else f" on {moment(decided)}"
        yield f"  You denied it{when}: {quoted(explanation.recorded.why)}. Its sender is told that, and not why."


def _said(verdict: Verdict) -> tuple[str, ...]:
    """Return what the rules say of one part, as lines."""
    if verdict.permit is None:
        return ("may not leave, because", *verdict.reasons)
    if verdict.permit.rule is None:
        return ("may leave, because nothing private is in it.",)
    return (f"may leave under the rule {verdict.permit.rule.name}: {in_words(verdict.permit.rule)}.",)


def _approval(grant: Grant, used: int, now: float) -> str:
    expires = "expired" if grant.expires <= now else "expires"
    return (
        f"Your approval {grant.digest[:16]} is for {counted(grant.releases, 'release')}, of which {used:,} are used; "
        f"it {expires} on {moment(grant.expires)}."
    )


def _choices(explanation: Explanation) -> Iterator[str]:
    identity, standing = explanation.recorded.request.id, explanation.standing
    deny = f'fedpriv worker deny {identity} --why "..."'
    rules = () if explanation.holding is None else explanation.holding.rules
    match standing:
        case "unknown":
            yield "  To see what your rules say of it, and to be able to approve it:"
            yield f"    fedpriv worker explain {identity} --config worker.toml"
            yield "  To refuse this exact request:"
            yield f"    {deny}"
        case "permitted":
            yield "  Nothing is needed. To stop this exact request, whatever your rules say:"
            yield f"    {deny}"
            yield "  One that differs in anything is another one: let no rule name whom nothing more is to reach."
        case "answered":
            yield "  Nothing is needed: another value, of the same steps too, is another request."
        case "approved":
            yield "  Nothing is needed. To withdraw your approval:"
            yield f"    {deny}"
        case _ if standing == "denied" or any(isinstance(rule, Approval) for rule in rules):
            once = "value" in explanation.recorded.request.releases
            often = "once" if once else "so many times (a training job needs one release for each round)"
            again = " --again" if standing == "denied" else ""
            yield f"  To let it out {often}, for a week:"
            yield f"    fedpriv worker approve {identity} --releases {1 if once else 20} --expires 7d{again}"
            if standing != "denied":
                yield "  To refuse this exact request:"
                yield f"    {deny}"
        case _:
            yield "  Nothing is needed to refuse it. To be able to approve it, add this rule to the data set's release"
            yield "  list in worker.toml, and start the worker again:"
            yield '    { rule = "approval" }'


def _left(explanation: Explanation) -> Iterator[str]:
    left, request = explanation.left, explanation.recorded.request
    if not left.messages:
        yield "  Nothing."
        return
    again = f", {left.again} of them sent again" if left.again else ""
    messages = counted(left.messages, "message")
    yield f"  The ledger has {messages} to {request.recipient.name}, {left.bytes:,} bytes{again}."
    if left.outside:
        yield f"  {counted(len(left.outside), 'entry', 'entries')} of them are NOT what was foreseen:"
        yield from (f"    entry {entry} {why}" for entry, why in left.outside[:MOST_MISFITS])
        if len(left.outside) > MOST_MISFITS:
            yield f"    and {len(left.outside) - MOST_MISFITS} more"
    elif explanation.foreseen is None:
        yield "  They cannot be held against a forecast: there is none."
    else:
        yield "  All of them are what was foreseen."


def _wrapped(line: str) -> str:
    """Return `line` broken at spaces, unless it is a command; a further line within quoted words begins with a mark.

    Further lines are set in deeper than the first, so that none of them could be a title or a sentence of ours.
    """
    line = legible.legible(line)
    indent = line[: len(line) - len(line.lstrip())]
    if line.lstrip().startswith("fedpriv "):
        return line
    first, *further = textwrap.wrap(line, _WIDTH, subsequent_indent=f"{indent}    ", break_on_hyphens=False) or [""]
    broken, within = [first], first.count('"') % 2 == 1
    for part in further:
        mark = '" ' if within else ""
        broken.append(f"{indent}  {mark}{part.lstrip()}")
        within ^= part.count('"') % 2 == 1
    return "\n".join(broken)
