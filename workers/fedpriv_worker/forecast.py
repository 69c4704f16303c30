"""What an order will release, before anything runs: read from its plan and its request alone.

An order has one answer: an update, an evaluation, statistics or a stand-in. The forecast names its tensors with their
shapes, its metrics, the exact length of its payload and the most bytes that it can take on the wire; `check` holds what
is about to leave to that. It foresees no number that an answer will hold, not how many rounds a job has, and
permits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from fedpriv.errors import ReleaseDenied
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.labelling import output_labels
from fedpriv.plans.plan import InputRole, OutputRole, Plan
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.secagg.descriptor import DIGEST_BYTES
from fedpriv.secagg.keys import SIGNATURE_BYTES
from fedpriv.secagg.messages import Masked
from fedpriv.updates import DTYPES, TensorSet, TensorSpec
from fedpriv.wire import codec
from fedpriv.wire.framing import framed_bytes
from fedpriv.wire.messages import (
    Evaluation,
    Memory,
    Mock,
    Statistics,
    Update,
)
from fedpriv.wire.values import Value
from fedpriv_worker.orders import spec_of_value

ENTRY_KEY_BYTES = 32
"""Length of the digest key that travels with an envelope, part of its size on the wire."""
WORD_BYTES = 8
"""Length of one masked number in the larger of the two rings."""
_LARGEST = (1 << 64) - 1
_PRIVATE = (InputRole.FEATURES, InputRole.TARGET, InputRole.KEPT)


@dataclass(frozen=True, slots=True)
class Forecast:
    """The one message that answers an order: its kind, its contents by name and shape, and its size in bytes.

    `payload_bytes` is exact, `most_bytes` a bound on the whole message as it travels, frames included; of words in a
    sum, which show neither names nor shapes, both are bounds. `labels` say of each output of the plan what it derives
    from, `label` what the whole answer does.
    """

    kind: str
    tensors: tuple[TensorSpec, ...]
    metrics: tuple[str, ...]
    payload_bytes: int
    most_bytes: int
    labels: Mapping[str, Label] = field(default_factory=dict)
    label: Label = PUBLIC

    def check(self, kind: str, specs: tuple[TensorSpec, ...], total_bytes: int) -> None:
        """Raise `ReleaseDenied` unless a message of `kind` with these tensors, so long in all, is what was forecast."""
        if kind != self.kind:
            raise ReleaseDenied(f"a message of kind {kind!r} stays here: the forecast of this order is {self.kind!r}")
        if difference := _difference(specs, self.tensors):
            raise ReleaseDenied(f"this {kind} stays here: {difference}")
        if total_bytes > self.most_bytes:
            raise ReleaseDenied(
                f"this {kind} stays here: it has {total_bytes} bytes, {self.most_bytes} at most were forecast"
            )


def forecast(
    plan: Plan | None,
    request: ReleaseRequest,
    origin: Label,
    *,
    features: int = 0,
    stand_in: tuple[TensorSpec, ...] = (),
) -> Forecast:
    """Return what carrying out `request` once will send.

    `origin` is the label of the data set's rows, `features` the number of its feature columns (for statistics) and
    `stand_in` what its mock holds. Raise `ReleaseDenied` for a request that has no single answer, and `PlanRefused`
    for a plan with an operation that is not allowed.
    """
    releases = set(request.releases)
    labels = {} if "value" in releases else _labels(plan, origin)  # a lineage: made already, not to be run
    if request.masked_among:
        return _masked(plan, request, features, labels, origin)
    match sorted(releases):
        case ["update"] | ["metrics", "update"] if plan is not None:
            metrics = request.kinds if "metrics" in releases else ()
            return _forecast("update", changed_specs(plan), metrics, labels, origin)
        case ["metrics"]:
            return _forecast("evaluation", (), request.kinds, labels, origin)
        case ["statistics"]:
            shapes = {kind: () if kind == "count" else (features,) for kind in request.kinds}
            specs = tuple(TensorSpec(kind, "float64", shape) for kind, shape in shapes.items())
            return _forecast("statistics", specs, (), labels, origin)
        case ["mock"]:
            return _forecast("mock", stand_in, (), labels, origin)
        case ["value"] if len(request.kinds) == 1:
            return _forecast("value", (spec_of_value(request.kinds[0]),), (), {}, origin)
    asked = ", ".join(request.releases) or "nothing"
    raise ReleaseDenied(f"an order for {asked} {'without' if plan is None else 'with'} a plan has no answer of ours")


def changed_specs(plan: Plan) -> tuple[TensorSpec, ...]:
    """Return what an update of `plan` holds: every parameter and state tensor that its step writes, in plan order.

    A plan that is a loss alone writes nothing: the steps that train its parameters are the worker's own.
    """
    written = {each.name for each in plan.outputs_of(OutputRole.PARAMETER, OutputRole.STATE)}
    held = plan.inputs_of(InputRole.PARAMETER, InputRole.STATE)
    if not written:
        held = plan.inputs_of(InputRole.PARAMETER)
        written = {each.name for each in held}
    return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in held if each.name in written)


def _labels(plan: Plan | None, origin: Label) -> Mapping[str, Label]:
    if plan is None:
        return {}
    given = {each.name: origin if each.role in _PRIVATE else PUBLIC for each in plan.inputs}
    return dict(zip((each.name for each in plan.outputs), output_labels(plan, given), strict=True))


def _forecast(
    kind: str, tensors: tuple[TensorSpec, ...], metrics: tuple[str, ...], labels: Mapping[str, Label], origin: Label
) -> Forecast:
    payload_bytes = sum(spec.nbytes for spec in tensors)
    header_bytes = len(codec.encode(_longest(kind, tensors, metrics)).header)
    most = framed_bytes(header_bytes, payload_bytes, entry=0, entry_key_bytes=ENTRY_KEY_BYTES)
    label = origin.join(*labels.values())
    return Forecast(kind, tensors, metrics, payload_bytes, most, labels, label)


def _masked(
    plan: Plan | None, request: ReleaseRequest, features: int, labels: Mapping[str, Label], origin: Label
) -> Forecast:
    """Return the forecast of masked words: a number for every one of the answer, its weight, and what was clipped."""
    if plan is None:
        numbers = sum(1 if kind == "count" else features for kind in request.kinds)
    else:
        changed = changed_specs(plan) if "update" in request.releases else ()
        numbers = sum(spec.elements for spec in changed) + len(request.kinds)
    payload_bytes = WORD_BYTES * (numbers + 2)
    empty = Masked(bytes(DIGEST_BYTES), np.zeros(0, np.uint64), bytes(SIGNATURE_BYTES))
    header_bytes = len(codec.encode(empty).header)
    most = framed_bytes(header_bytes, payload_bytes, entry=0, entry_key_bytes=ENTRY_KEY_BYTES)
    label = origin.join(*labels.values())
    return Forecast(codec.kind_of(empty), (), request.kinds, payload_bytes, most, labels, label)


def _longest(
    kind: str, tensors: tuple[TensorSpec, ...], metrics: tuple[str, ...]
) -> Update | Evaluation | Statistics | Mock | Value:
    """Return a message of `kind` whose header is at least as long as that of any real one, and that holds no bytes.

    The numbers are those that take most room. Each shape gets one more dimension, of size 0, so that no memory is
    needed however large the tensors are; that makes the header a few bytes longer than it can be.
    """
    numbers = dict.fromkeys(metrics, 1.0)
    empty = TensorSet(
        {spec.name: torch.empty((*spec.shape, 0), dtype=DTYPES[spec.dtype], device="meta") for spec in tensors}
    )
    match kind:
        case "update":
            return Update(_LARGEST, _LARGEST, 1.0, numbers, empty, Memory.ANEW)
        case "evaluation":
            return Evaluation(_LARGEST, _LARGEST, 1.0, numbers)
        case "statistics":
            return Statistics(_LARGEST, empty)
        case "value":
            return Value(_LARGEST, empty)
    return Mock(_LARGEST, empty)


def _difference(found: tuple[TensorSpec, ...], foreseen: tuple[TensorSpec, ...]) -> str:
    """Return the first thing in which two sets of tensors differ, in words, or "": their order is no matter."""
    if len(found) != len(foreseen):
        return f"it holds {_tensors(len(found))}, {_tensors(len(foreseen))} were forecast"
    for have, want in zip(sorted(found, key=_name), sorted(foreseen, key=_name), strict=True):
        if have != want:
            return f"it holds {_in_words(have)} where {_in_words(want)} was forecast"
    return ""


def _name(spec: TensorSpec) -> str:
    return spec.name


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _in_words(spec: TensorSpec) -> str:
    return f"{spec.name!r} ({spec.dtype} {list(spec.shape)})"
