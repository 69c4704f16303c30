"""Every attack that fits, on everything that a recorded run let out, each beside its positive control.

A control is the same attack on what the same order would have let out without protection: where the control fails, the
attack says nothing about the protection, and its finding says so. Nothing but the recording is read; the rows in it
score an attack, and never help it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from fedpriv.privacy.attacks.analytic import recovered, rows_in_linear
from fedpriv.privacy.attacks.imprint import Imprint
from fedpriv.privacy.attacks.masked import LEAST_WORDS, chi_squares, normal_scores
from fedpriv.privacy.attacks.membership import Inference, inferred, shadow_scores
from fedpriv.secagg.ring import Words
from fedpriv.simulation.recordings import Recording, Released
from fedpriv.simulation.replaying import Replay
from fedpriv_worker.datasets import Rows

Array: TypeAlias = npt.NDArray[np.float64]

WORKS = 0.5
"""Share of rows that a control has to recover; of what is attacked, one row is too much."""
MEMBER_WORKS = 0.2
"""Advantage in guessing at membership from which on an attack works: rows of a few dozen give half of it by chance."""
SUSPICIOUS = 6.0
"""Deviations above even bytes: with some hundred bytes tested, chance reaches it once in ten million recordings."""
CONTROL_ROWS = 8
MEMBERS, SHADOWS, CONTROL_EPOCHS = 100, 8, 60


@dataclass(frozen=True, slots=True)
class Finding:
    """What one attack got out of one thing that was released, and what it gets where nothing protects.

    `measured` and `control` are shares of rows recovered, advantages in guessing at membership, or deviations from even
    bytes; the control has to reach `works`. `excess` is by how much membership is told better than a claim allows.
    """

    attack: str
    released: str
    of: str
    measured: float
    control: float
    works: float
    excess: float | None = None
    rows: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    guesses: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)

    @property
    def is_known_to_work(self) -> bool:
        """Whether the control succeeded, so that a failure means something."""
        return self.control >= self.works

    @property
    def succeeded(self) -> bool:
        """Whether the attack got anything of what it is after: one row is enough."""
        return self.measured > 0 if len(self.rows) else self.measured >= self.works

    @property
    def kind(self) -> tuple[str, str]:
        """What was attacked how, whoever released it."""
        return self.attack, self.released

    @property
    def verdict(self) -> str:
        """What the finding says, in words."""
        if not self.is_known_to_work:
            return "says nothing: its control failed"
        if self.excess is not None and self.excess > 0:
            return "MORE THAN CLAIMED"
        return "SUCCEEDED" if self.succeeded else "stopped"


@dataclass(frozen=True, slots=True)
class Claim:
    """What differential privacy was claimed for one row."""

    epsilon: float
    delta: float


def worst_of_each(findings: Iterable[Finding]) -> tuple[tuple[Finding, int], ...]:
    """Return for each kind of finding the one that got most, and how many there are, in order."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for each in findings:
        kinds.setdefault(each.kind, []).append(each)
    return tuple((max(found, key=lambda each: each.measured), len(found)) for found in kinds.values())


def attacked(recording: Recording, claim: Claim | None = None) -> tuple[Finding, ...]:
    """Return what every attack that fits found; a `claim` is held to what is told of membership."""
    found: list[Finding] = []
    for released in recording.released():
        replay = Replay(released.plan, released.order)
        for attack in (_analytic, _imprinted, _matched):
            found.extend(attack(released, replay))
    for worker in recording.workers:
        for masked in worker.masked():
            found.extend(_bytes(worker.worker, masked.words))
    found.extend(_members(recording, claim))
    return tuple(found)


def _analytic(released: Released, replay: Replay) -> Iterator[Finding]:
    """Divide the lines of the first layer's gradient by that of its bias."""
    rows = released.rows()
    layer = _first_layer(released.changed, _flat(rows).shape[1])
    if layer is None:
        return
    sample = [_one(rows, at) for at in range(min(CONTROL_ROWS, len(rows)))]
    controls = []
    for each in sample:
        weight, bias = layer_of(replay.changed(each), layer)
        controls.append(bool(recovered(rows_in_linear(weight, bias), _flat(each)).all()))
    candidates = rows_in_linear(*layer_of(released.changed, layer))
    yield _scored("linear layer", released, candidates, float(np.mean(controls)))


def _imprinted(released: Released, replay: Replay) -> Iterator[Finding]:
    """Read rows out of the bins of a planted layer, where the model that was sent has one."""
    model = {name: each.to(torch.float64).numpy() for name, each in released.order.model}
    rows = released.rows()
    layer = _first_layer(model, _flat(rows).shape[1])
    if layer is None:
        return
    weight, bias = layer_of(model, layer)
    if len(bias) < 2 or not (weight == weight[0]).all() or not (np.diff(bias) < 0).all():
        return
    trap = Imprint(weight[0], -bias)
    control = recovered(trap.rows(*layer_of(replay.changed(rows), layer)), _flat(rows))
    candidates = trap.rows(*layer_of(released.changed, layer))
    yield _scored("planted layer", released, candidates, float(control.mean()))


def _matched(released: Released, replay: Replay) -> Iterator[Finding]:
    """Search for the row whose gradient is what was released, where it is one row's."""
    rows = released.rows()
    if len(rows) != 1 or rows.features.dtype is not torch.float32:
        return
    targets = torch.arange(int(rows.target.max()) + 1) if rows.target.dtype is torch.int64 else torch.tensor([0.0, 1.0])
    control = recovered(replay.matched(replay.changed(rows), targets)[None], _flat(rows))
    yield _scored("matching", released, replay.matched(released.changed, targets)[None], float(control.mean()))


def _bytes(worker: str, words: Words) -> Iterator[Finding]:
    """Test whether masked words are uniform, byte by byte."""
    if len(words) < LEAST_WORDS:
        return
    statistics = chi_squares(words)
    small = (np.arange(len(words)) % 251).astype(words.dtype)  # what rounded updates look like: small numbers
    score, control = (float(normal_scores(each).max()) for each in (statistics, chi_squares(small)))
    yield Finding("uneven bytes", "masked", worker, score, control, SUSPICIOUS)


def _members(recording: Recording, claim: Claim | None) -> Iterator[Finding]:
    """Guess from the last model who was trained on, against rows that were held out."""
    last = recording.last()
    if last is None:
        return
    order, plan, model, members, others = last
    members, others = _some(members, MEMBERS), _some(others, MEMBERS)
    if min(len(members), len(others)) < 2:
        return
    replay = Replay(plan, order)
    both = Rows(torch.cat([members.features, others.features]), torch.cat([members.target, others.target]))
    overfit = replay.model(replay.changed(members, epochs=CONTROL_EPOCHS))
    count = len(members)
    released, control = replay.losses(model, both), replay.losses(overfit, both)
    yield _told("loss threshold", claim, inferred(-released[:count], -released[count:]), _told_apart(-control, count))
    included = _halves(len(both))
    trained = [replay.model(replay.changed(_chosen(both, each), epochs=CONTROL_EPOCHS)) for each in included]
    held, seen = np.array([replay.losses(each, both) for each in trained]), np.array(included)
    scores, controls = (shadow_scores(each, held, seen) for each in (released, control))
    yield _told("shadow models", claim, inferred(scores[:count], scores[count:]), _told_apart(controls, count))


def layer_of(tensors: Mapping[str, Array], layer: str) -> tuple[Array, Array]:
    """Return weight and bias of a layer by the name that precedes them."""
    return tensors[f"{layer}weight"], tensors[f"{layer}bias"]


def _first_layer(tensors: Mapping[str, Array], width: int) -> str | None:
    """Return the name before "weight" of the first linear layer that takes a whole row, or None."""
    for name, each in tensors.items():
        layer = name.removesuffix("weight")
        if layer != name and each.ndim == 2 and each.shape[1] == width and f"{layer}bias" in tensors:
            return layer
    return None


def _scored(attack: str, released: Released, candidates: Array, control: float) -> Finding:
    rows = _flat(released.rows())
    of = released.workers[0].worker if len(released.workers) == 1 else f"{len(released.workers)} workers"
    share = float(recovered(candidates, rows).mean())
    return Finding(attack, released.kind, of, share, control, WORKS, rows=rows, guesses=_nearest(candidates, rows))


def _nearest(candidates: Array, rows: Array) -> Array:
    """Return for each row the candidate nearest to it, or zeros where there is none."""
    if not len(candidates):
        return np.zeros_like(rows)
    return np.array([candidates[np.linalg.norm(candidates - row, axis=1).argmin()] for row in rows])


def _told(attack: str, claim: Claim | None, found: Inference, control: float) -> Finding:
    excess = None if claim is None else found.excess(claim.epsilon, claim.delta)
    return Finding(attack, "model", "all workers", found.advantage, control, MEMBER_WORKS, excess)


def _told_apart(scores: Array, count: int) -> float:
    return inferred(scores[:count], scores[count:]).advantage


def _halves(count: int) -> list[npt.NDArray[np.bool_]]:
    """Return who is in which shadow model: halves and their complements, so that everyone is in half of them."""
    generator = np.random.default_rng(0)  # shadow models are the attacker's own: nothing here protects anybody
    found = []
    for _ in range(SHADOWS // 2):
        chosen = np.zeros(count, np.bool_)
        chosen[generator.permutation(count)[: count // 2]] = True
        found += [chosen, ~chosen]
    return found


def _flat(rows: Rows) -> Array:
    flat: Array = rows.features.flatten(1).to(torch.float64).numpy()
    return flat


def _one(rows: Rows, at: int) -> Rows:
    return Rows(rows.features[at : at + 1], rows.target[at : at + 1])


def _some(rows: Rows, count: int) -> Rows:
    return Rows(rows.features[:count], rows.target[:count])


def _chosen(rows: Rows, chosen: npt.NDArray[np.bool_]) -> Rows:
    at = torch.from_numpy(np.flatnonzero(chosen))
    return Rows(rows.features[at], rows.target[at])
