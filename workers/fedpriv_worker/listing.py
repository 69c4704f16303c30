"""A plan as lines that its owner can read: inputs, constants and every step, in order, nothing left out.

A peer's words are in quotation marks, freed of everything that does not print.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedpriv import legible
from fedpriv.plans.plan import Argument, Dtype, Input, Plan, Slot, Step
from fedpriv_worker.lineage import OVERLAID, USED, plans_in

MOST_WORDS = 300


def listed(plan: Plan, *, given: bool = False) -> list[str]:
    """Return a line for every number that a step can name, "3 = sum(#0)" and the like, in order; then plans it used.

    With `given` it is one of those: its inputs are what it is given, and what its author calls them is left out.
    """
    used = plans_in(plan)
    first = len(plan.inputs)
    values = [f"what it is given ({sized(each.dtype, each.shape)})" if given else source(each) for each in plan.inputs]
    for slot, each in enumerate(plan.constants, first):
        values.append("a plan, below" if slot in used else f"a constant ({sized(each.dtype, each.shape)})")
    lines = [*(f"{number} = {each}" for number, each in enumerate(values)), *steps_of(plan)]
    for slot, plan_used in used.items():
        lines += [f"plan #{slot} is, on what it is given:", *(f"  {line}" for line in listed(plan_used, given=True))]
        lines.append(f"  and it gives {results_of(plan_used)}")
    return lines


def in_order(plan: Plan) -> str:
    """Return which numbers within a plan that was used are what it is given, and which its author's constants."""
    given = f"the numbers below {len(plan.inputs)} are what it is given, in order"
    if not plan.constants:
        return given
    return f"{given}, those from there to {plan.first_step_slot - 1} constants of the caller's choosing"


def results_of(plan: Plan) -> str:
    """Return what a plan gives, "#12, #14"."""
    return ", ".join(f"#{each.slot}" for each in plan.outputs)


def source(each: Input) -> str:
    """Return where an input comes from, and what it is."""
    return f"{legible.quoted(each.name, MOST_WORDS)} ({sized(each.dtype, each.shape)})"


def sized(dtype: str, shape: Sequence[int]) -> str:
    """Return what a tensor is, "float32 3 x 4" or "float32 one number"."""
    return f"{dtype} {' x '.join(map(str, shape)) or 'one number'}"


def steps_of(plan: Plan) -> list[str]:
    """Return a line for every step: "#6" is what the step before it that begins with "6 =" made, or an input."""
    return [f"{_numbers(slots)} = {_in_words(step)}" for _, step, slots in plan.walk()]


def short(operation: str) -> str:
    """Return the part of an operation's name that people know: "mm" of "aten.mm.default"."""
    if operation in {USED, OVERLAID}:
        return operation.removeprefix("fedpriv.")
    parts = operation.split(".")
    return parts[1] if len(parts) == 3 and operation.isprintable() else legible.quoted(operation, MOST_WORDS)


def _numbers(slots: range) -> str:
    return f"{slots.start}" if len(slots) == 1 else f"{slots.start} to {slots.stop - 1}"


def _in_words(step: Step) -> str:
    if step.operation == USED:
        plan, *operands = map(_argument, step.arguments)
        return f"plan {plan} on {', '.join(operands)}"
    if step.operation == OVERLAID:
        before, after = map(_argument, step.arguments)
        return f"{before}, any part of which, or none, was replaced by what {after} derives from"
    return f"{short(step.operation)}({_given(step)})"


def _given(step: Step) -> str:
    named = [f"{name}={_argument(value)}" for name, value in step.keywords]
    return ", ".join([*map(_argument, step.arguments), *named])


def _argument(argument: Argument) -> str:
    match argument:
        case Slot(index):
            return f"#{index}"
        case Dtype(name):
            return name
        case tuple():
            return f"[{', '.join(map(_argument, argument))}]"
        case str():
            return legible.quoted(argument, MOST_WORDS)
    return str(argument)
