"""Shamir's secret sharing over a prime field: any t shares give the secret, fewer say nothing about it.

Python's integers are not constant time: what runs on the same processor may learn from timing. No branch and no index
depends on a secret. Shares are not verifiable: `reconstruct` is exact for honest shares, and whoever uses the result
checks it against something public (`unmasking`).

Shamir, "How to share a secret", CACM 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import mul

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError

_EXTRA_BYTES = 16  # so that a draw reduced modulo the prime is uniform to 2**-128


@dataclass(frozen=True, slots=True)
class PrimeField:
    """The integers modulo `prime`; a share is `share_bytes` long, big-endian."""

    prime: int
    share_bytes: int = field(init=False)
    above: bytes = field(init=False, repr=False)  # the prime itself, which is no element

    def __post_init__(self) -> None:
        object.__setattr__(self, "share_bytes", (self.prime.bit_length() + 7) // 8)
        object.__setattr__(self, "above", self.prime.to_bytes(self.share_bytes, "big"))

    def draw(self, count: int, entropy: Entropy) -> list[int]:
        """Return `count` uniform elements."""
        width = self.share_bytes + _EXTRA_BYTES
        data = entropy.random_bytes(width * count)
        return [int.from_bytes(data[at : at + width], "big") % self.prime for at in range(0, len(data), width)]

    def split(self, secret: int, threshold: int, points: Sequence[int], entropy: Entropy) -> list[int]:
        """Return a share of `secret` at each of `points`, any `threshold` of which give it back.

        Raises `UsageError` for a secret outside the field, a point that is 0 or repeated, or too few points.
        """
        if not 0 <= secret < self.prime:
            raise UsageError("the secret is not an element of the field")
        _check_points(points, self.prime)
        if not 1 <= threshold <= len(points):
            raise UsageError(f"{len(points)} shares cannot have a threshold of {threshold}")
        falling = self.draw(threshold - 1, entropy)
        falling.append(secret)
        return [self._evaluate(falling, point) for point in points]

    def _evaluate(self, falling: Sequence[int], point: int) -> int:
        # Points are small, so one reduction at the end is cheaper than one a step.
        value = 0
        for coefficient in falling:
            value = value * point + coefficient
        return value % self.prime

    def weights(self, points: Sequence[int], at: int = 0) -> tuple[int, ...]:
        """Return Lagrange's weights: the polynomial through shares y_i at `points` is sum(w_i y_i) at `at`.

        Raises `UsageError` for a point that is 0 or repeated. One inversion for all (Montgomery's trick).
        """
        _check_points(points, self.prime)
        if at in points:
            return tuple(int(point == at) for point in points)
        everywhere = math.prod(point - at for point in points)
        below = [(one - at) * math.prod(other - one for other in points if other != one) % self.prime for one in points]
        running, product = [], 1
        for each in below:
            running.append(product)
            product = product * each % self.prime
        inverse, inverses = pow(product, -1, self.prime), []
        for before, each in zip(reversed(running), reversed(below), strict=True):
            inverses.append(inverse * before % self.prime)
            inverse = inverse * each % self.prime
        return tuple(everywhere * each % self.prime for each in reversed(inverses))

    def combine(self, weights: Sequence[int], shares: Sequence[int]) -> int:
        """Return the value that `weights` of the shares' points give; as many shares as weights."""
        if len(weights) != len(shares):
            raise UsageError(f"{len(weights)} weights for {len(shares)} shares; each share has its own")
        products: Iterable[int] = map(mul, weights, shares)
        return sum(products) % self.prime

    def encode(self, share: int) -> bytes:
        """Return the bytes of `share`."""
        return share.to_bytes(self.share_bytes, "big")

    def decode(self, data: bytes) -> int:
        """Return the share in `data`; raise `UsageError` for another length or a value that is not reduced."""
        self.check(data)
        return int.from_bytes(data, "big")

    def check(self, *shares: bytes) -> None:
        """Raise `UsageError` unless each of `shares` is the one spelling of an element."""
        if not {self.share_bytes}.issuperset(map(len, shares)) or max(shares, default=b"") >= self.above:
            raise UsageError(f"a share is not a reduced element of {self.share_bytes} bytes")


SECRETS = PrimeField((1 << 256) + 297)
"""The field of 32-byte secrets: every one of them is an element, and a share has 33 bytes."""


def _check_points(points: Sequence[int], prime: int) -> None:
    if len(set(points)) != len(points) or not all(0 < point < prime for point in points):
        raise UsageError("shares need distinct points between 1 and the prime, 0 is where the secret lies")
