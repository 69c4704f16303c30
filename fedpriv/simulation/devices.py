"""Devices of unlike speed, for simulations: how long each takes to answer, and how often it drops out.

Seconds here are simulated. Workers compute as fast as they can, and what they answer counts when their devices would
have been done, so that a run with devices ten times as slow takes no longer. A drop-out costs the device's whole
answer, and is noticed when the answer was due.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedpriv import canonical
from fedpriv.errors import UsageError, nearest
from fedpriv.ids import WorkerName
from fedpriv_coordinator.pacing import Answer


@dataclass(frozen=True, slots=True)
class Device:
    """A device that answers within about `seconds`, and that with probability `drops_out` does not.

    The logarithm of what an answer takes is normal with deviation `spread` around that of `seconds`.
    """

    seconds: float = 1.0
    spread: float = 0.0
    drops_out: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0 and 0 <= self.spread <= 10):
            raise UsageError(
                f"seconds is {self.seconds} and spread {self.spread}; use a time above 0 and a spread from 0 to 10"
            )
        if not 0 <= self.drops_out < 1:
            raise UsageError(f"drops_out is {self.drops_out}; use a probability of at least 0 and below 1")


@dataclass(frozen=True, slots=True)
class SimulatedDevices:
    """The devices of a simulation by worker; the same `seed` makes the same draws, whatever order they are made in."""

    devices: Mapping[str, Device]
    seed: int = 0

    @classmethod
    def unlike(
        cls, workers: Sequence[str], *, fastest: float = 1.0, times: float = 10.0, drops_out: float = 0.0, seed: int = 0
    ) -> SimulatedDevices:
        """Return devices from `fastest` seconds to `times` as many, evenly spaced by their logarithm, in drawn order.

        Every answer varies by a tenth.
        """
        if not (math.isfinite(times) and times >= 1):
            raise UsageError(f"times is {times}; the slowest takes at least as long as the fastest: use 1 or more")
        names, generator = sorted(workers), np.random.default_rng(seed)
        factors = generator.permutation(np.geomspace(1.0, times, len(names)))
        made = {
            name: Device(fastest * float(factor), 0.1, drops_out) for name, factor in zip(names, factors, strict=True)
        }
        return cls(made, seed)

    def answer(self, worker: WorkerName, round_number: int) -> Answer:
        """Return when `worker` answers what it is asked in a round, and whether it does."""
        device = self.devices.get(worker)
        if device is None:
            raise UsageError(
                f"worker {worker!r} has no simulated device{nearest(worker, self.devices)}; give each worker one"
            )
        digest = canonical.digest("fedpriv/simulated-device/v1", self.seed, worker, round_number)
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        seconds = device.seconds * math.exp(device.spread * float(generator.standard_normal()))
        return Answer(seconds, bool(generator.random() < device.drops_out))
