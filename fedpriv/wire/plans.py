"""Plans to bytes and back.

`decode_plan` accepts only what `encode_plan` could have made, within bounds on counts and depth that hold before a
single step is looked at. Whether a plan may run is not judged here: that is `plans.validation`.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from fedpriv.errors import WireError
from fedpriv.plans.plan import (
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

MAXIMUM_PLAN_BYTES = 8 << 20
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
        packed = message.steps.add(operation=step.operation, results=step.results)
        packed.arguments.extend(_pack(argument) for argument in step.arguments)
        for name, argument in step.keywords:
            packed.keywords.add(name=name, value=_pack(argument))
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
    try:
        plan = Plan(
            tuple(Input(i.name, InputRole(i.role), i.dtype, tuple(i.shape)) for i in message.inputs),
            tuple(Output(o.name, OutputRole(o.role), o.slot) for o in message.outputs),
            tuple(Constant(c.dtype, tuple(c.shape), c.content) for c in message.constants),
            tuple(_unpack_step(step) for step in message.steps),
            message.torch_version,
        )
    except ValueError:
        raise WireError("a plan has an input or output with an unknown role") from None
    if encode_plan(plan) != data:
        raise WireError("a plan has unknown, repeated or reordered fields; both sides need the same fedpriv")
    return plan


def _unpack_step(step: v1.PlanStep) -> Step:
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
