"""A plan: computation as data, and the digest that names it.

A plan is a list of steps over named operations. Slots are numbered by position alone: first the inputs, then
the constants, then each step's results in order, so that a step can only name what came before it. Weights,
learning rates and devices are not in a plan: tracing the same architecture twice gives the same digest.
It is a value and promises nothing about what it asks for: only `validation` makes it fit to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TypeAlias

from fedpriv import canonical
from fedpriv.ids import PlanDigest

BATCH = -1
"""Stands in a shape for the number of rows in a batch, which is free until the plan runs."""
MAXIMUM_RESULTS = 4096
"""Results that one step may have: `decode_plan` refuses more, and so does `validate`."""


class InputRole(Enum):
    """What a worker puts into an input: OPTIMIZER is zero at the start of a round, KEPT what the last round left."""

    PARAMETER = "parameter"
    STATE = "state"
    FROZEN = "frozen"
    OPTIMIZER = "optimizer"
    KEPT = "kept"
    HYPERPARAMETER = "hyperparameter"
    FEATURES = "features"
    TARGET = "target"
    ARGUMENT = "argument"


class OutputRole(Enum):
    """What an output is for; a PARAMETER, STATE, OPTIMIZER or KEPT output replaces the input of its name."""

    PARAMETER = "parameter"
    STATE = "state"
    OPTIMIZER = "optimizer"
    KEPT = "kept"
    LOSS = "loss"
    METRIC = "metric"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class Slot:
    """A reference to the value in a slot."""

    index: int


@dataclass(frozen=True, slots=True)
class Dtype:
    """A dtype as an argument, by its name in `updates.DTYPES`."""

    name: str


Argument: TypeAlias = "Slot | Dtype | str | bool | int | float | tuple[Argument, ...] | None"


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor that the worker provides; `shape` may hold `BATCH`. A HYPERPARAMETER is a float64 of shape ()."""

    name: str
    role: InputRole
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """One value that leaves the plan, and the slot it is in."""

    name: str
    role: OutputRole
    slot: int


@dataclass(frozen=True, slots=True)
class Constant:
    """A small tensor inside the plan, as contiguous little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    content: bytes = field(repr=False)

    @property
    def elements(self) -> int:
        """Number of elements, in Python integers so that it cannot wrap."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, its arguments, and how many slots its results fill."""

    operation: str
    arguments: tuple[Argument, ...]
    keywords: tuple[tuple[str, Argument], ...] = ()
    results: int = 1


@dataclass(frozen=True)
class Plan:
    """Steps from inputs to outputs; the digest covers every field."""

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    constants: tuple[Constant, ...]
    steps: tuple[Step, ...] = field(repr=False)
    torch_version: str

    @cached_property
    def digest(self) -> PlanDigest:
        """SHA-256 of the canonical encoding, 32 bytes; the plan's name everywhere."""
        return PlanDigest(
            canonical.digest(
                "fedpriv/plan/v1",
                self.torch_version,
                [[i.name, i.role.value, i.dtype, i.shape] for i in self.inputs],
                [[o.name, o.role.value, o.slot] for o in self.outputs],
                [[c.dtype, c.shape, c.content] for c in self.constants],
                [_step_field(step) for step in self.steps],
            )
        )

    def inputs_of(self, *roles: InputRole) -> tuple[Input, ...]:
        """Return the inputs with one of `roles`, in order."""
        return tuple(each for each in self.inputs if each.role in roles)

    def outputs_of(self, *roles: OutputRole) -> tuple[Output, ...]:
        """Return the outputs with one of `roles`, in order."""
        return tuple(each for each in self.outputs if each.role in roles)

    @property
    def first_step_slot(self) -> int:
        """Number of the first slot that a step fills."""
        return len(self.inputs) + len(self.constants)

    def walk(self) -> Iterator[tuple[int, Step, range]]:
        """Yield each step with its index and the slots its results fill."""
        start = self.first_step_slot
        for index, step in enumerate(self.steps):
            yield index, step, range(start, start + step.results)
            start += step.results


def slots_in(*arguments: Argument) -> Iterator[int]:
    """Yield the slots that `arguments` refer to, lists included, in order of appearance."""
    for argument in arguments:
        if isinstance(argument, Slot):
            yield argument.index
        elif isinstance(argument, tuple):
            yield from slots_in(*argument)


def step_slots(step: Step) -> Iterator[int]:
    """Yield the slots that a step reads."""
    yield from slots_in(*step.arguments)
    yield from slots_in(*(value for _, value in step.keywords))


def pruned(plan: Plan) -> Plan:
    """Return `plan` without the steps and constants that no output needs, slots renumbered; inputs stay."""
    needed = {output.slot for output in plan.outputs}
    kept: list[tuple[Step, range]] = []
    for _, step, filled in reversed(list(plan.walk())):
        if needed.intersection(filled):
            needed.update(step_slots(step))
            kept.append((step, filled))
    kept.reverse()
    first = len(plan.inputs)
    constants = [slot for slot in range(first, plan.first_step_slot) if slot in needed]
    old = [*range(first), *constants, *(slot for _, filled in kept for slot in filled)]
    new = {slot: position for position, slot in enumerate(old)}
    return Plan(
        inputs=plan.inputs,
        outputs=tuple(Output(each.name, each.role, new[each.slot]) for each in plan.outputs),
        constants=tuple(plan.constants[slot - first] for slot in constants),
        steps=tuple(_renumbered(step, new) for step, _ in kept),
        torch_version=plan.torch_version,
    )


def _renumbered(step: Step, new: Mapping[int, int]) -> Step:
    def moved(argument: Argument) -> Argument:
        if isinstance(argument, Slot):
            return Slot(new[argument.index])
        return tuple(moved(each) for each in argument) if isinstance(argument, tuple) else argument

    keywords = tuple((name, moved(value)) for name, value in step.keywords)
    return Step(step.operation, tuple(moved(each) for each in step.arguments), keywords, step.results)


def _step_field(step: Step) -> canonical.Field:
    keywords: list[canonical.Field] = [[name, _argument_field(value)] for name, value in step.keywords]
    return [step.operation, [_argument_field(each) for each in step.arguments], keywords, step.results]


def _argument_field(argument: Argument) -> canonical.Field:
    match argument:
        case Slot(index):
            return ["slot", index]
        case Dtype(name):
            return ["dtype", name]
        case tuple():
            return ["list", [_argument_field(each) for each in argument]]
        case _:
            return ["value", argument]
