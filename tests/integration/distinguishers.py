"""Who tries to tell from a dump what went into a sum: tests for randomness, and guesses at which worker holds which.

Each reads a dump and what is public, nothing else. They use all that the coordinator may: whatever masks the shares in
the dump give, they take off first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from dumping import Received
from numpy.typing import NDArray
from scipy import stats

from fedpriv.secagg import keys, statements
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.keys import KEY_BYTES, KeyPair
from fedpriv.secagg.masks import apply_masks
from fedpriv.secagg.messages import Advertise, Masked, Unmask
from fedpriv.secagg.ring import Words
from fedpriv.secagg.unmasking import Recovery

Floats = NDArray[np.float64]


def chi_square(content: bytes, width: int) -> list[float]:
    """Return, for each byte position of words of `width` bytes, the p-value of Pearson's test against uniform bytes."""
    columns = np.frombuffer(content, np.uint8).reshape(-1, width).T
    counts = (np.bincount(column, minlength=256) for column in columns)
    return [float(stats.chisquare(each).pvalue) for each in counts]


@dataclass(frozen=True)
class Seen:
    """One session as its coordinator sees it, by worker: words as they came, and less all masks that shares give."""

    masked: Mapping[str, Words]
    bared: Mapping[str, Words]


def see(dump: Iterable[Received], descriptor: Descriptor) -> Seen:
    """Return what a dump of one session shows to whoever computes all that the protocol lets its coordinator."""
    keyed: dict[str, Advertise] = {}
    masked: dict[str, Words] = {}
    of_seed: dict[str, dict[str, bytes]] = {}
    of_key: dict[str, dict[str, bytes]] = {}
    for each in dump:
        match each.message:
            case Advertise() as advertise:
                keyed[each.peer] = advertise
            case Masked() as one:
                masked[each.peer] = one.words
            case Unmask() as unmask:
                for shares, found in ((unmask.self_shares, of_seed), (unmask.key_shares, of_key)):
                    for sender, share in shares:
                        found.setdefault(sender, {})[each.peer] = share
    points = {name: at for at, name in enumerate(sorted(keyed), 1)}
    recovery = Recovery(descriptor.threshold, points)
    bared = {name: words.copy() for name, words in masked.items()}
    for name, shares in of_seed.items():
        apply_masks(bared[name], [(_self_mask(recovery, descriptor.sid, keyed[name], shares), False)])
    for lost, shares in of_key.items():
        pair = _pair(recovery, keyed[lost], shares)
        for name, words in bared.items():
            agreed = pair.agree(name, keyed[name].masking)
            ends = (lost, pair.public), (name, keyed[name].masking)
            apply_masks(words, [(keys.pairwise_key(agreed, descriptor.sid, *ends), lost > name)])
    return Seen(masked, bared)


def _self_mask(recovery: Recovery, sid: bytes, owner: Advertise, shares: Mapping[str, bytes]) -> bytes:
    def commits(value: int) -> bool:
        return statements.commitment(sid, owner.worker, value.to_bytes(KEY_BYTES, "big")) == owner.commitment

    seed = recovery.recover(owner.worker, shares, commits).to_bytes(KEY_BYTES, "big")
    return keys.self_key(seed, sid, owner.worker)


def _pair(recovery: Recovery, owner: Advertise, shares: Mapping[str, bytes]) -> KeyPair:
    def pair(value: int) -> KeyPair:
        return KeyPair.of(value.to_bytes(KEY_BYTES, "big"))

    return pair(recovery.recover(owner.worker, shares, lambda value: pair(value).public == owner.masking))


Score = Callable[[Floats], Floats]
"""From features, shape (dumps, features), to a number for each dump: above 0 speaks for the first of two worlds."""


def features(seen: Seen, pair: tuple[str, str]) -> Floats:
    """Return the words of two workers as centred fractions of the ring, masked and bared, their differences and bytes.

    The differences are taken in the ring: there masks that both share, or that come again, would cancel.
    """
    parts: list[Floats] = []
    for words in (seen.masked, seen.bared):
        one, other = words[pair[0]], words[pair[1]]
        for each in (one, other, one - other, one + other):
            signed = each.view(each.dtype.str.replace("u", "i")).astype(np.float64)
            parts += [signed / 2.0 ** (8 * each.itemsize - 1), each.view(np.uint8).reshape(-1, each.itemsize).mean(0)]
    return np.concatenate(parts)


def train(samples: Floats, firsts: NDArray[np.bool_], penalty: float = 1.0) -> Score:
    """Return the linear distinguisher that ridge regression finds from `samples` whose world is known."""
    mean, deviation = samples.mean(0), samples.std(0) + 1e-12
    standard = (samples - mean) / deviation
    wanted = np.where(firsts, 1.0, -1.0)
    inner = standard @ standard.T + penalty * np.eye(len(samples))
    weights = standard.T @ np.linalg.solve(inner, wanted - wanted.mean())

    def score(found: Floats) -> Floats:
        return ((found - mean) / deviation) @ weights + wanted.mean()

    return score


def nearest(seen: Seen, first: Mapping[str, Words], second: Mapping[str, Words]) -> bool:
    """Say whether the words are nearer to those of the first world, around the ring, knowing both worlds exactly."""

    def distance(found: Mapping[str, Words], world: Mapping[str, Words]) -> float:
        apart = [(found[name] - world[name]).view(found[name].dtype.str.replace("u", "i")) for name in world]
        return float(sum(np.abs(each.astype(np.float64)).sum() for each in apart))

    near_first = min(distance(seen.masked, first), distance(seen.bared, first))
    return near_first < min(distance(seen.masked, second), distance(seen.bared, second))


def binomial_bounds(tries: int, confidence: float = 0.999) -> tuple[int, int]:
    """Return the least and the most right guesses, of `tries`, between which pure guessing stays with `confidence`."""
    tail = (1 - confidence) / 2
    return int(stats.binom.ppf(tail, tries, 0.5)), int(stats.binom.isf(tail, tries, 0.5))


def right(guesses: Sequence[bool], truth: Sequence[bool]) -> int:
    """Return how many guesses are right."""
    return int(np.sum(np.asarray(guesses) == np.asarray(truth)))
