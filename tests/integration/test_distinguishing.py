"""What a coordinator received of a sum tells nothing of who put in what; the same attacks on what is in clear do.

In real runs everything that came is dumped at the ingress; chi-square tests look at the masked vectors, and what shows
of the messages is compared between runs whose one worker holds grossly different rows. Telling two worlds apart needs
the same sum in both, or the sum itself would tell: so two workers hold "all zeros" and "all as large as can be", and
the worlds differ in which. Those repetitions are rounds of the real roles, without a network, seeded: never by luck.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from distinguishers import Seen, binomial_bounds, chi_square, features, nearest, right, see, train
from dumping import Received, Tap, appearance, read_dump, write_dump
from fleets import RESEARCHER, dialling_fleet, toy
from parties import cast, completed, play
from test_secure_dropouts import Dies
from torch import nn

import fedpriv as fp
from fedpriv.ids import DatasetName
from fedpriv.secagg.messages import FromWorker, Masked
from fedpriv.secagg.vector import Part, Treatment, VectorSpec
from fedpriv.wire.codec import encode, kind_of

NAMES = ("alice", "bob", "carol", "dave", "erin")
SUMS = [fp.SecureSum()]
PLAIN = [
    fp.PlainUpdate(recipients=(RESEARCHER,), weight="exact"),
    fp.Statistics(recipients=(RESEARCHER,)),
    fp.Metrics(recipients=(RESEARCHER,)),
]
WIDTH = 5000
"""Hidden values of the model: its 30,001 numbers give each of 256 bytes 117 times, enough for Pearson's test."""
FALSE_ALARM = 1e-9
"""Of one test, fixed beforehand: a run makes fewer than 1,000, so that all of them together are below 1e-6."""
ROWS, VALIDATION = 48, 0.25
CONSTANTS = {"zeros": 0.0, "large": 1e6}


def rows_of(constant: float, release: list[object]) -> fp.Dataset:
    """Return rows that are all alike, of one class."""
    features = torch.full((ROWS, 4), constant)
    return fp.Dataset(DatasetName("toy"), features, features.sum(1) > 0, release=release, validation=VALIDATION)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1), nn.Flatten(0))


def run(folder: Path, tap: Tap, constant: float, *, secure: bool) -> list[Received]:
    """Run statistics and three rounds over gRPC, erin lost in the second, and return the dump of all that came."""
    folder.mkdir()
    release = SUMS if secure else PLAIN
    held = {name: [toy(ROWS, seed=at, release=release, validation=VALIDATION)] for at, name in enumerate(NAMES)}
    held["alice"] = [rows_of(constant, release)]
    fleet = dialling_fleet(held, folder)

    def on_round(record: fp.RoundRecord) -> None:
        if record.number == 1:
            fleet.workers["erin"].reached = Dies("masked" if secure else "advertise")

    try:
        how = fleet.secure() if secure else None
        fleet.federation.statistics("toy", secure_aggregation=how)
        result = fleet.federation.fit(
            network(), dataset="toy", loss=F.binary_cross_entropy_with_logits, rounds=3, deadline_seconds=20, seed=3,
            local=fp.LocalTraining(epochs=1, batch_size=16, optimizer=fp.SGD(lr=0.01)), secure_aggregation=how,
            worker_metrics=("loss",), on_round=on_round,
        )  # fmt: skip  # one call
    finally:
        fleet.close()
    assert [record.outcome for record in result.history.rounds] == ["complete"] * 3
    assert [lost.worker for lost in result.lost] == ["erin"]
    return read_dump(tap.write(folder / "received.dump"))


@pytest.fixture(scope="module")
def dumps(tmp_path_factory):
    """One dump a world and a way of aggregating: the same run but for what alice's rows hold."""
    folder = tmp_path_factory.mktemp("dumps")
    with pytest.MonkeyPatch.context() as monkeypatch:
        tap = Tap(monkeypatch)
        return {
            (name, secure): run(folder / f"{name}-{secure}", tap, constant, secure=secure)
            for name, constant in CONSTANTS.items()
            for secure in (True, False)
        }


def vectors(dump: list[Received]) -> dict[tuple[str, int], bytes]:
    """Return the payload of each masked vector of a training round, by worker and how many it had sent before."""
    found: dict[tuple[str, int], bytes] = {}
    for each in dump:
        if each.kind == "secagg-masked" and len(each.payload) > WIDTH:
            found[each.peer, sum(peer == each.peer for peer, _ in found)] = each.payload
    return found


def width_of(dump: list[Received]) -> int:
    (width,) = {
        each.message.words.itemsize for each in dump if each.kind == "secagg-masked" and len(each.payload) > WIDTH
    }
    return width


@pytest.mark.parametrize("world", CONSTANTS)
def test_masked_vectors_are_uniform_bytes_whatever_the_rows_are(dumps, world: str) -> None:
    dump = dumps[world, True]
    found, width = vectors(dump), width_of(dump)
    assert len(found) == 13  # three rounds of five workers, without one that was lost in the second
    words = {key: np.frombuffer(content, f"<u{width}") for key, content in found.items()}
    differences = [(words[one] - words[other]).tobytes() for one, other in pairwise(sorted(words))]
    lowest = [min(chi_square(content, width)) for content in (*found.values(), *differences)]
    assert len(lowest) * width < 1000
    assert min(lowest) > FALSE_ALARM


@pytest.mark.parametrize("world", CONSTANTS)
def test_updates_in_clear_are_not(dumps, world: str) -> None:
    updates = [each.payload for each in dumps[world, False] if each.kind == "update"]
    assert len(updates) == 13
    assert all(chi_square(content, 4)[3] < FALSE_ALARM for content in updates)


def test_nothing_else_that_came_differs_between_the_two_worlds(dumps) -> None:
    zeros, large = (appearance(dumps[world, True]) for world in CONSTANTS)
    assert zeros.keys() == large.keys() == set(NAMES)
    for name in NAMES:
        assert zeros[name] == large[name], name
    kinds = {kind for messages in zeros.values() for kind, *_ in messages}
    assert kinds == {"announcement", "plan-accepted"} | {
        f"secagg-{phase}" for phase in ("advertise", "shares", "masked", "confirm", "unmask")
    }


def test_in_clear_it_does(dumps) -> None:
    zeros, large = (appearance(dumps[world, False]) for world in CONSTANTS)
    assert zeros["alice"] != large["alice"]


def test_a_worker_says_the_same_kinds_in_the_same_order_in_both_worlds_and_numbers_all_of_them(dumps) -> None:
    for dump in (dumps[world, True] for world in CONSTANTS):
        for name in NAMES:
            entries = [each.envelope.entry for each in dump if each.peer == name]
            assert entries == list(range(len(entries)))


LENGTH, BOUND = 12, 1.0
VECTOR = VectorSpec((Part("update", (LENGTH,), BOUND, 16, Treatment.UNWEIGHTED),))
QUICK, LONG = (60, 100), (400, 1000)
"""Rounds whose world a distinguisher is told, and rounds in which it guesses."""
WORKERS = tuple(f"worker-{at:05d}" for at in range(5))
PAIR = WORKERS[:2]
"""The two who hold zeros and the largest values; the others hold whatever; the last one is lost after it shared."""
CONFIDENCE = 0.999


def worlds(ring) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the pair's words in the first and in the second world; the sum of both is the same."""
    zero, most = ring.zeros(LENGTH), ring.reduce(np.full(LENGTH, VECTOR.parts[0].largest))
    return dict(zip(PAIR, (zero, most), strict=True)), dict(zip(PAIR, (most, zero), strict=True))


def repeat(file: Path, number: int, *, first: bool, masks: str = "all") -> Seen:
    """Play round `number` in the first or second world, dump what came, and return what a coordinator sees in the dump.

    For controls, `masks` leaves the pair's words as they are ("none"), or under those masks alone that the coordinator
    gets shares of ("its own").
    """
    party = cast(5, VECTOR, number=number, seed=f"distinguish/{number}")
    random, ring = np.random.default_rng(number), party.descriptor.ring
    most = VECTOR.parts[0].largest
    words = {name: ring.reduce(random.integers(-most, most + 1, LENGTH)) for name in WORKERS}
    words |= worlds(ring)[0 if first else 1]
    played = play(party, words, drops={WORKERS[4]: "mask"})
    assert completed(played).members == WORKERS[:4]
    seen = see(dumped(file, played.received), party.descriptor)
    if masks == "all":
        return seen
    under = {
        name: words[name] if masks == "none" else words[name] + seen.masked[name] - seen.bared[name] for name in PAIR
    }
    bared = [
        (name, replace(message, words=under[name]) if name in PAIR and isinstance(message, Masked) else message)
        for name, message in played.received
    ]
    return see(dumped(file, bared), party.descriptor)


def dumped(file: Path, received: list[tuple[str, FromWorker]]) -> list[Received]:
    """Return messages of workers as they come out of a dump of them."""
    return read_dump(write_dump(file, ((name, kind_of(message), encode(message)) for name, message in received)))


def guesses(folder: Path, masks: str, training: int, tries: int) -> dict[str, int]:
    """Return how many of `tries` each distinguisher gets right, after `training` rounds whose world it was told."""
    truth = np.random.default_rng(7).integers(0, 2, training + tries).astype(bool)
    seen = [
        repeat(folder / "received.dump", number, first=bool(first), masks=masks)
        for number, first in enumerate(truth, 1)
    ]
    samples = np.stack([features(each, PAIR) for each in seen])
    learned = train(samples[:training], truth[:training])(samples[training:]) > 0
    first, second = worlds(cast(5, VECTOR).descriptor.ring)
    near = np.array([nearest(each, first, second) for each in seen[training:]])
    return {"learned": right(learned, truth[training:]), "nearest": right(near, truth[training:])}


@pytest.mark.parametrize(("training", "tries"), [QUICK, pytest.param(*LONG, marks=pytest.mark.slow)])
def test_who_put_in_what_is_told_no_better_than_by_guessing(tmp_path: Path, training: int, tries: int) -> None:
    least, most = binomial_bounds(tries, CONFIDENCE)
    found = guesses(tmp_path, "all", training, tries)
    assert all(least <= right <= most for right in found.values()), found


@pytest.mark.parametrize("masks", ["none", "its own"])
def test_the_same_distinguishers_always_tell_where_the_masks_between_workers_are_missing(
    tmp_path: Path, masks: str
) -> None:
    assert guesses(tmp_path, masks, 20, 20) == {"learned": 20, "nearest": 20}
