"""Plans to bytes and back.

`decode_plan` accepts only what `encode_plan` could have made, within bounds on counts and depth that hold before a
single step is looked at. Whether a plan may run is not judged here: that is `plans.validation`.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import DecodeError

from fedpriv.errors import WireError
from fedpriv.plans.plan import (
    MAXIMUM_RESULTS,
    Argument,
    Constant,
    Dtype,
    Input,
    InputRole,
    Output,
    OutputRole,
    Plan,
    Slot,
    Step,
)
from fedpriv.wire.v1 import plan_pb2 as v1

MAXIMUM_PLAN_BYTES = 3 << 20
MAXIMUM_STEPS = 20_000
MAXIMUM_ENDS = 20_000
"""Inputs, outputs and constants, of each."""
MAXIMUM_ARGUMENTS = 200_000
"""Arguments and keywords of all steps together, those in lists included."""
MAXIMUM_STEP_ARGUMENTS = 8192
MAXIMUM_RANK = 64
MAXIMUM_DEPTH = 4


def encode_plan(plan: Plan) -> bytes:
    """Return the protobuf bytes of `plan`; they are never an identity, `plan.digest` is."""
    message = v1.Plan(torch_version=plan.torch_version)
    for each in plan.inputs:
        message.inputs.add(name=each.name, role=each.role.value, dtype=each.dtype, shape=each.shape)
    for output in plan.outputs:
        message.outputs.add(name=output.name, role=output.role.value, slot=output.slot)
    for constant in plan.constants:
        message.constants.add(dtype=constant.dtype, shape=constant.shape, content=constant.content)
    for step in plan.steps:
        pack_step(step, message.steps.add())
    data: bytes = message.SerializeToString(deterministic=True)
    if len(data) > MAXIMUM_PLAN_BYTES:
        raise WireError(f"a plan of {len(data)} bytes cannot travel; {MAXIMUM_PLAN_BYTES} at most, use a smaller model")
    return data


def decode_plan(data: bytes) -> Plan:
    """Return the plan in `data`; raise `WireError` unless it is one that `encode_plan` could have made."""
    if len(data) > MAXIMUM_PLAN_BYTES:
        raise WireError(f"a plan of {len(data)} bytes; {MAXIMUM_PLAN_BYTES} at most are accepted")
    message = v1.Plan()
    try:
        message.ParseFromString(data)
    except DecodeError:
        raise WireError("a plan is not a protobuf Plan") from None
    _check_counts(message)
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != data:
        raise WireError("a plan has unknown, repeated or reordered fields; both sides need the same fedpriv")
    try:
        return Plan(
            tuple(Input(i.name, InputRole(i.role), i.dtype, tuple(i.shape)) for i in message.inputs),
            tuple(Output(o.name, OutputRole(o.role), o.slot) for o in message.outputs),
            tuple(Constant(c.dtype, tuple(c.shape), c.content) for c in message.constants),
            tuple(unpack_step(step) for step in message.steps),
            message.torch_version,
        )
    except ValueError:
        raise WireError("a plan has an input or output with an unknown role") from None


def pack_step(step: Step, into: v1.PlanStep) -> None:
    """Write `step` into an empty message."""
    into.operation, into.results = step.operation, step.results
    into.arguments.extend(_pack(argument) for argument in step.arguments)
    for name, argument in step.keywords:
        into.keywords.add(name=name, value=_pack(argument))


def check_steps(steps: Sequence[v1.PlanStep]) -> None:
    """Refuse steps of too many arguments before one object is made for any of them."""
    left = MAXIMUM_ARGUMENTS
    for step in steps:
        here = _count(step.arguments, MAXIMUM_DEPTH) + len(step.keywords)
        here += sum(
            _count(keyword.value.list.items, MAXIMUM_DEPTH) for keyword in step.keywords[:MAXIMUM_STEP_ARGUMENTS]
        )
        left -= here
        if step.results > MAXIMUM_RESULTS:
            raise WireError(f"a step of {step.results} results; {MAXIMUM_RESULTS} at most are accepted")
        if here > MAXIMUM_STEP_ARGUMENTS or left < 0:
            raise WireError(
                f"a plan has more than {MAXIMUM_STEP_ARGUMENTS} arguments in a step or {MAXIMUM_ARGUMENTS} in all"
            )


def _check_counts(message: v1.Plan) -> None:
    """Refuse a plan of too many parts before one object is made for any of them."""
    ends = (message.inputs, message.outputs, message.constants)
    if len(message.steps) > MAXIMUM_STEPS or any(len(each) > MAXIMUM_ENDS for each in ends):
        raise WireError(f"a plan of {len(message.steps)} steps, {'/'.join(str(len(each)) for each in ends)} ends")
    if any(len(each.shape) > MAXIMUM_RANK for several in (message.inputs, message.constants) for each in several):
        raise WireError(f"a plan has a shape of more than {MAXIMUM_RANK} dimensions")
    check_steps(message.steps)


def _count(arguments: Sequence[v1.PlanArgument], depth: int) -> int:
    """Return how many arguments there are, lists included; more than a step may have is enough to know."""
    total = len(arguments)
    if total > MAXIMUM_STEP_ARGUMENTS or not depth:
        return total
    for each in arguments:
        if each.HasField("list"):
            total += _count(each.list.items, depth - 1)
            if total > MAXIMUM_STEP_ARGUMENTS:
                return total
    return total


def unpack_step(step: v1.PlanStep) -> Step:
    """Return the step in a message whose counts were checked."""
    return Step(
        step.operation,
        tuple(_unpack(argument, MAXIMUM_DEPTH) for argument in step.arguments),
        tuple((keyword.name, _unpack(keyword.value, MAXIMUM_DEPTH)) for keyword in step.keywords),
        step.results,
    )


def _pack(argument: Argument) -> v1.PlanArgument:  # noqa: PLR0911 - one for each kind of argument
    match argument:
        case None:
            return v1.PlanArgument(nothing=True)
        case Slot(index):
            return v1.PlanArgument(slot=index)
        case Dtype(name):
            return v1.PlanArgument(dtype=name)
        case bool():
            return v1.PlanArgument(flag=argument)
        case int():
            return v1.PlanArgument(integer=argument)
        case float():
            return v1.PlanArgument(number=argument)
        case str():
            return v1.PlanArgument(text=argument)
        case tuple():
            return v1.PlanArgument(list=v1.PlanArguments(items=[_pack(item) for item in argument]))


def _unpack(argument: v1.PlanArgument, depth: int) -> Argument:  # noqa: PLR0911 - one for each kind of argument
    kind = argument.WhichOneof("value")
    match kind:
        case "slot":
            return Slot(argument.slot)
        case "dtype":
            return Dtype(argument.dtype)
        case "text":
            return str(argument.text)
        case "flag":
            return bool(argument.flag)
        case "integer":
            return int(argument.integer)
        case "number":
            return float(argument.number)
        case "nothing" if argument.nothing:
            return None
        case "list" if depth:
            return tuple(_unpack(item, depth - 1) for item in argument.list.items)
    raise WireError("a plan has an argument that is empty, unknown or nested too deeply")
