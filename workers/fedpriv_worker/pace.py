"""How fast one peer is listened to: a token bucket each, generous for whom a rule names, strict for everybody else.

Nobody is refused for being fast: its next message is taken up later, and the transport makes it wait. Every refusal is
a ledger entry, so without this a peer that may have nothing could fill the owner's disk. Messages of a session of
values that want no answer, which are many, make no entry and are not held up. `Bucket` is pure; `Paces` waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from fedpriv.ids import DatasetName
from fedpriv.policy.decision import Recipient, may_compute
from fedpriv.policy.rules import Rule
from fedpriv.wire.messages import Message, Request

MAXIMUM_BUCKETS = 4096


@dataclass(frozen=True, slots=True)
class Pace:
    """So many messages at once, and so many a second for ever."""

    burst: float
    per_second: float


NAMED = Pace(2000.0, 500.0)
"""Requests of a peer that a rule names: faster than any job asks."""
STRANGER = Pace(32.0, 2.0)
"""Messages of a peer that no rule names, a stand-in's recipients included."""
GREETING = Pace(128.0, 4.0)
"""Handshakes of one certificate, which are three entries each."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What one peer may still send at once, as of the time `at` in seconds; below zero it was taken in advance."""

    pace: Pace
    tokens: float
    at: float

    @classmethod
    def full(cls, pace: Pace, now: float) -> Self:
        """Return the bucket of a peer that sent nothing lately."""
        return cls(pace, pace.burst, now)

    def filled(self, now: float) -> Self:
        """Return the bucket as it is at `now`; a clock that runs backwards fills nothing."""
        now = max(self.at, now)
        return replace(self, tokens=min(self.pace.burst, self.tokens + (now - self.at) * self.pace.per_second), at=now)

    def take(self, now: float) -> tuple[Self, float]:
        """Return the bucket after one more message, and how many seconds that message has to wait."""
        filled = self.filled(now)
        after = replace(filled, tokens=filled.tokens - 1)
        return after, max(0.0, -after.tokens / self.pace.per_second)


def pace_of(message: Message, peer: Recipient, rules: Mapping[DatasetName, Sequence[Rule]]) -> Pace | None:
    """Return at which pace `peer` may send messages such as this one; None for as fast as they are taken."""
    if not may_compute(peer, rules):
        return STRANGER
    return NAMED if isinstance(message, Request) else None


class Paces:
    """The buckets of every peer, over all its links; all methods run on the loop's thread."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._buckets: dict[tuple[Hashable, Pace], Bucket] = {}

    async def keep(self, who: Hashable, pace: Pace | None) -> None:
        """Return when one more message of `who` may be taken up."""
        if pace is None:
            return
        now, key = self._now(), (who, pace)
        if key not in self._buckets and len(self._buckets) >= MAXIMUM_BUCKETS:
            self._forget(now)
        self._buckets[key], wait = self._buckets.get(key, Bucket.full(pace, now)).take(now)
        if wait:
            await self._sleep(wait)

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again: they say nothing."""
        kept = {key: bucket.filled(now) for key, bucket in self._buckets.items()}
        self._buckets = {key: bucket for key, bucket in kept.items() if bucket.tokens < bucket.pace.burst}
