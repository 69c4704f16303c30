"""A plan as lines that its owner can read: inputs, constants and every step, in order, nothing left out.

A peer's words are in quotation marks, freed of everything that does not print.
"""

from __future__ import annotations

from collections.abc import Sequence

from fedpriv import legible
from fedpriv.plans.plan import Argument, Dtype, Input, Plan, Slot, Step

MOST_WORDS = 300


def listed(plan: Plan) -> list[str]:
    """Return a line for every number that a step can name, "3 = sum(#0)" and the like, in order."""
    values = [*map(source, plan.inputs), *(f"a constant ({sized(each.dtype, each.shape)})" for each in plan.constants)]
    return [*(f"{number} = {each}" for number, each in enumerate(values)), *steps_of(plan)]


def source(each: Input) -> str:
    """Return where an input comes from, and what it is."""
    return f"{legible.quoted(each.name, MOST_WORDS)} ({sized(each.dtype, each.shape)})"


def sized(dtype: str, shape: Sequence[int]) -> str:
    """Return what a tensor is, "float32 3 x 4" or "float32 one number"."""
    return f"{dtype} {' x '.join(map(str, shape)) or 'one number'}"


def steps_of(plan: Plan) -> list[str]:
    """Return a line for every step: "#6" is what the step before it that begins with "6 =" made, or an input."""
    return [f"{slots.start} = {short(step.operation)}({_given(step)})" for _, step, slots in plan.walk()]


def short(operation: str) -> str:
    """Return the part of an operation's name that people know: "mm" of "aten.mm.default"."""
    parts = operation.split(".")
    return parts[1] if len(parts) == 3 and operation.isprintable() else legible.quoted(operation, MOST_WORDS)


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
