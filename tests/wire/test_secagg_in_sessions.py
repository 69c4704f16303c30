"""Secure aggregation among a session's other messages: orders that invite, and the protocol's own messages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import WireError
from fedpriv.ids import DatasetName, JobId, PlanDigest, WorkerName
from fedpriv.sealed import Envelope
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.messages import Advertise, Confirm, Delivery, Invite, Masked, Message, Unmask
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.codec import decode, encode, kind_of
from fedpriv.wire.messages import AskStatistics, Evaluate, Train
from fedpriv.wire.rounds import FixedPoint, computation, vector_of
from fedpriv.wire.secagg import encode_secagg
from fedpriv.wire.v1 import session_pb2 as v1

SID = b"s" * 32
HOW = FixedPoint(16.0, 16, 100)
CHANGED = (TensorSpec("weight", "float32", (2, 3)), TensorSpec("seen", "int64", ()))
MODEL = TensorSet({"weight": torch.ones(2, 3), "seen": torch.tensor(1)})
TRAIN = Train(
    7,
    JobId("j"),
    3,
    DatasetName("rows"),
    PlanDigest(b"p" * 32),
    1,
    8,
    True,
    False,
    5,
    {"lr": 0.1},
    ("loss",),
    "",
    MODEL,
)
EVALUATE = Evaluate(7, JobId("j"), 3, DatasetName("rows"), PlanDigest(b"p" * 32), 8, ("loss",), "", MODEL)
ASK = AskStatistics(7, DatasetName("rows"), ("count", "sum"), "")


def invited(order):
    descriptor = Descriptor(
        federation="clinics",
        roster=bytes(32),
        round=9,
        model=bytes(32),
        plan=computation(order),
        vector=vector_of(order, CHANGED, 4, HOW),
        modulus_bits=64,
        workers=5,
        threshold=4,
        minimum_cohort=3,
        deadlines_seconds=(1.0, 2.0, 3.0, 4.0, 5.0),
    )
    return replace(order, invite=Invite(descriptor))


def again(message):
    return decode(encode(message))


@pytest.mark.parametrize("order", [TRAIN, EVALUATE, ASK], ids=lambda order: type(order).__name__)
def test_an_invitation_travels_with_its_order_and_names_the_same_session(order) -> None:
    sent = invited(order)
    received = again(sent)
    assert received.invite == sent.invite
    assert received.invite.sid == sent.invite.sid
    assert again(order).invite is None


@pytest.mark.parametrize(
    "message",
    [
        Advertise(SID, WorkerName("a"), b"c" * 32, b"s" * 32, b"b" * 32, b"x" * 64),
        Delivery(SID, (WorkerName("a"),), ((WorkerName("a"), b"sealed"),)),
        Confirm(SID, b"x" * 64),
        Unmask(SID, ((WorkerName("a"), bytes(33)),), (), b"x" * 64),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_of_the_protocol_travel_among_the_others(message: Message) -> None:
    assert again(message) == message
    assert kind_of(message) == f"secagg-{type(message).__name__.lower()}"


def test_masked_words_travel_as_raw_bytes() -> None:
    words = np.arange(7, dtype="<u8")
    received = again(Masked(SID, words, b"x" * 64))
    assert isinstance(received, Masked)
    assert np.array_equal(received.words, words)
    assert sum(part.nbytes for part in encode(received).payload) == 56


def test_an_order_that_brings_another_message_than_an_invitation_is_refused() -> None:
    header = v1.Header()
    header.ParseFromString(encode(ASK).header)
    header.ask_statistics.invite = encode_secagg(Confirm(SID, b"x" * 64)).header
    with pytest.raises(WireError, match="another message of secure aggregation than an invitation"):
        decode(Envelope(header.SerializeToString(deterministic=True)))


@given(st.data())
def test_mutated_invitations_are_an_order_or_a_wire_error(data: st.DataObject) -> None:
    header = bytearray(encode(invited(ASK)).header)
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(Envelope(bytes(header)))
    except WireError:
        return
    invite = getattr(found, "invite", None)
    assert invite is None or isinstance(invite, Invite)
    again = encode(found)
    assert encode(decode(again)).header == again.header


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2}, {"batch_size": 9}, {"shuffle": False}, {"drop_last": True}, {"hyperparameters": {"lr": 0.0}},
        {"metrics": ()}, {"purpose": "x"}, {"round": 4}, {"job": JobId("k")}, {"dataset": DatasetName("other")},
        {"plan": PlanDigest(b"q" * 32)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip  # one line of changes
def test_whatever_differs_in_an_order_is_another_computation(change) -> None:
    assert computation(replace(TRAIN, **change)) != computation(TRAIN)


def test_the_seed_of_the_rows_and_the_number_of_the_request_are_each_workers_own() -> None:
    assert computation(replace(TRAIN, seed=99, request=8)) == computation(TRAIN)


def test_one_kind_of_order_is_not_another() -> None:
    assert len({computation(TRAIN), computation(EVALUATE), computation(ASK)}) == 3


def test_the_vector_holds_every_tensor_metric_and_count() -> None:
    vector = vector_of(TRAIN, CHANGED, 4, HOW)
    assert [part.name for part in vector.parts] == [
        "tensor/weight",
        "tensor/seen",
        "metric/loss",
        "weight",
        "saturated",
    ]
    assert vector.length == 6 + 1 + 1 + 1 + 1
    sums = vector_of(ASK, (), 4, HOW)
    assert [(part.name, part.shape) for part in sums.parts[:2]] == [("statistic/count", ()), ("statistic/sum", (4,))]
    assert sums.maximum_weight == 1
