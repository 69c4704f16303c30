"""The messages about values that stay at a worker, in protobuf and as values.

Counts and lengths are bounded here. Whether an operation may run, an id exists or a word makes sense is judged by the
worker's session.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from fedpriv.errors import WireError
from fedpriv.ids import DatasetName
from fedpriv.plans.calls import MAXIMUM_OPERANDS, Call, Layout
from fedpriv.updates import TensorSet
from fedpriv.wire import values as m
from fedpriv.wire.fields import Kind, bounded, digest, purpose, text, texts
from fedpriv.wire.plans import check_steps, pack_step, unpack_step
from fedpriv.wire.tensors import dtype_named, dtype_number, read_shape
from fedpriv.wire.v1 import pointer_pb2 as v1

if TYPE_CHECKING:
    from fedpriv.wire.v1.tensor_pb2 import DType

MAXIMUM_DEFINITIONS = 1024
MAXIMUM_WORD_BYTES = 1 << 20
MAXIMUM_WAIT_SECONDS = 86_400.0
SESSION_BYTES = 16
_WORD_BYTES = 8


def _pack_layout(layout: Layout, body: v1.TensorLayout) -> None:
    body.dtype = cast("DType", dtype_number(layout.dtype))
    body.shape.extend(layout.shape)
    body.strides.extend(layout.strides)


def _layout(body: v1.TensorLayout) -> Layout:
    shape, strides = read_shape(body.shape), tuple(body.strides)
    if len(strides) != len(shape):
        raise WireError(f"a layout of {len(shape)} sizes and {len(strides)} strides")
    return Layout(dtype_named(body.dtype), shape, strides)


def _pack_definition(definition: m.Definition, body: v1.Definition) -> None:
    if isinstance(definition, Call):
        pack_step(definition.step, body.step)
        body.numbers, body.writes = definition.numbers, definition.writes
    else:
        body.plan = definition.plan
    for each in definition.operands:
        _pack_layout(each, body.operands.add())


def _definition(body: v1.Definition) -> m.Definition:
    if len(body.operands) > MAXIMUM_OPERANDS:
        raise WireError(f"an operation on {len(body.operands)} operands; {MAXIMUM_OPERANDS} at most are accepted")
    operands = tuple(map(_layout, body.operands))
    match body.WhichOneof("what"):
        case "step":
            return Call(unpack_step(body.step), operands, body.numbers, body.writes)
        case "plan" if not body.numbers and not body.writes:
            return m.PlanUse(digest(body.plan), operands)
    raise WireError("a definition is neither a step nor a plan")


def _pack_calls(calls: m.Calls, body: v1.Calls) -> None:
    body.sequence, body.words = calls.sequence, calls.words
    for each in calls.definitions:
        _pack_definition(each, body.definitions.add())


def _calls(body: v1.Calls, _: TensorSet) -> m.Calls:
    if len(body.definitions) > MAXIMUM_DEFINITIONS:
        raise WireError(f"{len(body.definitions)} definitions in one message; {MAXIMUM_DEFINITIONS} at most")
    if len(body.words) > MAXIMUM_WORD_BYTES or len(body.words) % _WORD_BYTES:
        raise WireError(f"{len(body.words)} bytes of words; whole words, {MAXIMUM_WORD_BYTES} bytes at most")
    check_steps([each.step for each in body.definitions if each.HasField("step")])
    return m.Calls(body.sequence, tuple(map(_definition, body.definitions)), body.words)


def _pack_put(put: m.Put, body: v1.Put) -> None:
    body.sequence, body.first, body.description = put.sequence, put.first, put.description
    body.tags.extend(put.tags)


def _put(body: v1.Put, tensors: TensorSet) -> m.Put:
    return m.Put(body.sequence, body.first, texts(body.tags), text(body.description), tensors)


def _pack_open(opened: m.OpenDataset, body: v1.OpenDataset) -> None:
    body.sequence, body.first, body.dataset = opened.sequence, opened.first, opened.dataset


def _open(body: v1.OpenDataset, _: TensorSet) -> m.OpenDataset:
    return m.OpenDataset(body.sequence, body.first, DatasetName(text(body.dataset)))


def _pack_open_session(opened: m.OpenSession, body: v1.OpenSession) -> None:
    body.request, body.session = opened.request, opened.session


def _open_session(body: v1.OpenSession, _: TensorSet) -> m.OpenSession:
    if len(body.session) != SESSION_BYTES:
        raise WireError(f"a session of {len(body.session)} bytes; it has {SESSION_BYTES}")
    return m.OpenSession(body.request, body.session)


def _pack_session_open(opened: m.SessionOpen, body: v1.SessionOpen) -> None:
    body.request, body.sequence = opened.request, opened.sequence
    granted = opened.granted
    body.granted.memory, body.granted.values, body.granted.work = granted.memory, granted.values, granted.work


def _session_open(body: v1.SessionOpen, _: TensorSet) -> m.SessionOpen:
    granted = body.granted
    return m.SessionOpen(body.request, body.sequence, m.Granted(granted.memory, granted.values, granted.work))


def _pack_fetch(fetch: m.Fetch, body: v1.Fetch) -> None:
    body.request, body.id = fetch.request, fetch.id


def _fetch(body: v1.Fetch, _: TensorSet) -> m.Fetch:
    return m.Fetch(body.request, body.id)


def _pack_value(value: m.Value, body: v1.Value) -> None:
    body.request = value.request


def _value(body: v1.Value, tensors: TensorSet) -> m.Value:
    return m.Value(body.request, tensors)


def _pack_ask_objects(ask: m.AskObjects, body: v1.AskObjects) -> None:
    body.request = ask.request


def _ask_objects(body: v1.AskObjects, _: TensorSet) -> m.AskObjects:
    return m.AskObjects(body.request)


def _pack_objects(objects: m.Objects, body: v1.Objects) -> None:
    body.request = objects.request
    for each in objects.objects:
        entry = body.objects.add(id=each.id, tags=each.tags, description=each.description)
        _pack_layout(each.layout, entry.layout)


def _objects(body: v1.Objects, _: TensorSet) -> m.Objects:
    held = (
        m.HeldObject(each.id, _layout(each.layout), texts(each.tags), text(each.description))
        for each in bounded(body.objects)
    )
    return m.Objects(body.request, tuple(held))


def _pack_ask_release(ask: m.AskRelease, body: v1.AskRelease) -> None:
    body.request, body.id, body.reason = ask.request, ask.id, purpose(ask.reason)


def _ask_release(body: v1.AskRelease, _: TensorSet) -> m.AskRelease:
    return m.AskRelease(body.request, body.id, purpose(body.reason))


def _pack_ticket(ticket: m.Ticket, body: v1.Ticket) -> None:
    body.request, body.ticket = ticket.request, ticket.ticket


def _ticket(body: v1.Ticket, _: TensorSet) -> m.Ticket:
    return m.Ticket(body.request, text(body.ticket))


def _pack_collect(collect: m.Collect, body: v1.Collect) -> None:
    body.request, body.ticket, body.wait_seconds = collect.request, collect.ticket, collect.wait_seconds


def _collect(body: v1.Collect, _: TensorSet) -> m.Collect:
    if not (math.isfinite(body.wait_seconds) and 0 <= body.wait_seconds <= MAXIMUM_WAIT_SECONDS):
        raise WireError(f"a wait of {body.wait_seconds} s; 0 to {MAXIMUM_WAIT_SECONDS:g} are accepted")
    return m.Collect(body.request, text(body.ticket), body.wait_seconds)


KINDS: Mapping[type, Kind] = {
    m.Calls: Kind("calls", _pack_calls, _calls),
    m.Put: Kind("put", _pack_put, _put, tensors="values"),
    m.OpenDataset: Kind("open_dataset", _pack_open, _open),
    m.OpenSession: Kind("open_session", _pack_open_session, _open_session),
    m.SessionOpen: Kind("session_open", _pack_session_open, _session_open),
    m.Fetch: Kind("fetch", _pack_fetch, _fetch),
    m.Value: Kind("value", _pack_value, _value, tensors="values"),
    m.AskObjects: Kind("ask_objects", _pack_ask_objects, _ask_objects),
    m.Objects: Kind("objects", _pack_objects, _objects),
    m.AskRelease: Kind("ask_release", _pack_ask_release, _ask_release),
    m.Ticket: Kind("ticket", _pack_ticket, _ticket),
    m.Collect: Kind("collect", _pack_collect, _collect),
}
