"""The privacy of an order on the wire: every mode and optimiser comes back equal, and numbers without noise do not."""

from __future__ import annotations

import math

import pytest

import fedpriv as fp
from fedpriv.errors import UsageError, WireError
from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import decode, encode
from fedpriv.wire.messages import Train
from fedpriv.wire.private import Private
from fedpriv.wire.private_bodies import pack_private, read_private
from fedpriv.wire.rounds import computation
from fedpriv.wire.v1 import session_pb2 as v1

SGD = fp.SGD(0.1)
EVERY = [
    Private(fp.CentralDP(1.0, None, 1e-6, 2.0), 10, 100),
    Private(fp.DistributedDP(0.5, None, 1e-5, 1.5, "discrete-gaussian", 12), 5, 10, 3),
    Private(fp.LocalDP(1.0, None, 1e-5, 2.0), 1, 1),
    Private(fp.TreeDP(1.0, None, 1e-5, 2.0), 64, 7),
    Private(fp.TreeDP(1.0, None, 1e-5, 2.0, 4), 64, 7),
    Private(fp.ExampleDP(1.0, None, 1e-5, 2.0), 3, 5, optimizer=fp.SGD(0.1, 0.9, 1e-4, nesterov=True)),
    Private(fp.ExampleDP(1.0, None, 1e-5, 2.0), 3, 5, optimizer=fp.Adam(1e-3, (0.8, 0.99), 1e-7, 0.1)),
    Private(fp.ExampleDP(1.0, None, 1e-5, 2.0), 3, 5, optimizer=fp.AdamW()),
]


def order(private: Private | None) -> Train:
    return Train(
        1, JobId("j"), 1, DatasetName("rows"), PlanDigest(b"p" * 32), 1, 8, True, False, 0, {}, (), "", TensorSet(),
        privacy=private,
    )  # fmt: skip  # one line of fields


@pytest.mark.parametrize("private", EVERY, ids=lambda each: type(each.mode).__name__)
def test_what_is_said_comes_back_equal_and_is_the_same_computation(private: Private) -> None:
    again = decode(encode(order(private)))
    assert isinstance(again, Train)
    assert again.privacy == private
    assert computation(again) == computation(order(private))
    assert again.privacy.text() == private.text()


def test_no_two_ways_to_be_private_are_one_computation() -> None:
    assert len({computation(order(each)) for each in (*EVERY, None)}) == len(EVERY) + 1


def test_whole_numbers_say_the_same_as_they_travel() -> None:
    whole = Private(fp.ExampleDP(1, None, 1e-5, 2), 3, 5, optimizer=fp.SGD(1))
    again = decode(encode(order(whole)))
    assert isinstance(again, Train)
    assert again.privacy is not None
    assert again.privacy.fields() == whole.fields()


@pytest.mark.parametrize(
    "change",
    [
        {"clip": 0.0},
        {"clip": math.nan},
        {"clip": -1.0},
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.inf},
        {"delta": 0.0},
        {"delta": 1.0},
        {"rounds": 0},
        {"rounds": 1 << 40},
        {"workers": 0},
        {"distributed": v1.DistributedMode(mechanism="gauss", scale_bits=10)},
        {"distributed": v1.DistributedMode(mechanism="skellam", scale_bits=200)},
        {"distributed": v1.DistributedMode(mechanism="skellam", scale_bits=10, colluding=10)},
        {"example": v1.ExampleMode()},
        {"example": v1.ExampleMode(sgd=v1.Sgd(lr=math.nan))},
        {"example": v1.ExampleMode(adam=v1.Adam(lr=0.1, beta1=2.0, eps=1e-8))},
    ],
    ids=str,
)
def test_numbers_from_which_no_noise_follows_are_no_message(change: dict[str, object]) -> None:
    body = v1.Privacy()
    pack_private(EVERY[2], body)
    for name, value in change.items():
        getattr(body, name).CopyFrom(value) if isinstance(value, v1.DistributedMode | v1.ExampleMode) else setattr(
            body, name, value
        )
    with pytest.raises(WireError):
        read_private(body)


def test_a_mode_of_a_later_version_is_refused() -> None:
    body = v1.Privacy()
    pack_private(EVERY[2], body)
    body.ClearField("local")
    with pytest.raises(WireError, match="private in a mode that is not known here"):
        read_private(body)


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        (fp.LocalDP(epsilon=3.0), {}),
        (fp.LocalDP(), {}),
        (fp.LocalDP(noise_multiplier=1.0), {"optimizer": SGD}),
        (fp.LocalDP(noise_multiplier=1.0), {"colluding": 1}),
        (fp.ExampleDP(noise_multiplier=1.0), {}),
        (fp.DistributedDP(noise_multiplier=1.0), {}),
        (fp.CentralDP(noise_multiplier=1.0, adaptive=fp.AdaptiveClip()), {}),
        (fp.TreeDP(noise_multiplier=1.0, participations=1), {}),
    ],
)
def test_an_order_says_all_that_its_noise_needs_and_nothing_else(mode: object, more: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Private(mode, 3, 5, **more)
