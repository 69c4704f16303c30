"""What an owner grants one peer that works with values here, and whether more is within it."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedpriv.plans.inference import Quota
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.values import Granted
from fedpriv_worker.config import Limits
from fedpriv_worker.shelf import Shelf


@dataclass(frozen=True, slots=True)
class PointerQuota:
    """What one peer may hold at once in all its sessions, how many values in one, and what one operation may use."""

    maximum_bytes: int = 4 << 30
    maximum_objects: int = 1_000_000
    each: Quota = field(default_factory=Quota)

    @property
    def granted(self) -> Granted:
        """What the peer is told of it."""
        return Granted(self.maximum_bytes, self.maximum_objects, self.each.maximum_work)


def quota_of(limits: Limits) -> PointerQuota:
    """Return the quota that an owner's limits come to."""
    each = Quota(maximum_bytes=int(limits.memory_gib * 2**30), maximum_work=int(limits.work))
    return PointerQuota(each.maximum_bytes, limits.values, each)


class Allowance:
    """What is left of a quota beside what one session holds on its shelf and its peer holds elsewhere."""

    __slots__ = ("_shelf", "elsewhere", "quota")

    def __init__(self, quota: PointerQuota, shelf: Shelf) -> None:
        self.quota = quota
        self.elsewhere = 0
        """Bytes that other sessions of the same peer hold, and that wait for their owner's answer."""
        self._shelf = shelf

    def excess(self, fresh: int, values: int) -> ErrorCode | None:
        """Return which limit `fresh` more bytes in so many more values would go over, or None."""
        if self._shelf.live_bytes + self.elsewhere + fresh > self.quota.maximum_bytes:
            return ErrorCode.OVER_QUOTA
        return ErrorCode.OVER_VALUES if len(self._shelf) + values > self.quota.maximum_objects else None
