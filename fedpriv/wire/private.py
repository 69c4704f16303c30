"""What an order says of a private job: the public numbers from which each side makes the same noise and its own bill.

A mode with its noise multiplier, the rounds of the whole job, how many workers are expected in each. Nothing here is
believed: a worker makes the noise itself, and bills what it then executes (`fedpriv_worker.pricing`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from fedpriv import canonical
from fedpriv.errors import UsageError
from fedpriv.learning.local import Optimizer
from fedpriv.privacy.mechanisms import check_count
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, Mode, TreeDP
from fedpriv.privacy.noises import DistributedNoise

MAXIMUM_COUNT = 1 << 20
"""Rounds of a job, and workers of a round."""
MAXIMUM_SCALE_BITS = 40


@dataclass(frozen=True, slots=True)
class Private:
    """One job's privacy: a mode that says its noise multiplier, for `rounds` rounds of `workers` expected workers.

    `colluding` is how many of them may know and leave out their share of distributed noise. `optimizer` is what an
    example-level job applies to noisy gradients. Raise `UsageError` for numbers from which no noise follows.
    """

    mode: Mode
    rounds: int
    workers: int
    colluding: int = 0
    optimizer: Optimizer | None = None

    def __post_init__(self) -> None:
        if self.mode.noise_multiplier is None or self.mode.epsilon is not None:
            raise UsageError("an order names the noise multiplier, from which epsilon follows, and no epsilon")
        for name, value in (("rounds", self.rounds), ("workers", self.workers)):
            check_count(name, value)
            if value > MAXIMUM_COUNT:
                raise UsageError(f"{name} is {value}; use at most {MAXIMUM_COUNT}")
        if isinstance(self.mode, ExampleDP) != (self.optimizer is not None):
            raise UsageError("an example-level job, and no other, names the optimiser that runs on noisy gradients")
        match self.mode:
            case CentralDP(adaptive=adaptive) if adaptive is not None:
                raise UsageError("an order names the clip of its round, not how clips adapt")
            case DistributedDP(scale_bits=bits) if bits is None or not 0 <= bits <= MAXIMUM_SCALE_BITS:
                raise UsageError(f"scale_bits is {bits!r}; use 0 to {MAXIMUM_SCALE_BITS}")
            case TreeDP(participations=times, separation=apart) if times is not None or apart != 1:
                raise UsageError("every worker is asked in every round: leave out participations and separation")
        if not 0 <= self.colluding < self.workers or (self.colluding and not isinstance(self.mode, DistributedDP)):
            raise UsageError(f"colluding is {self.colluding} of {self.workers}; use fewer, and for distributed noise")

    def fields(self) -> list[canonical.Field]:
        """Return all of it for a canonical digest: workers of a sum agree on it."""
        rule = self.optimizer
        numbers: list[canonical.Field] = [] if rule is None else [type(rule).__name__, *_said(rule).items()]
        mode: list[canonical.Field] = [type(self.mode).__name__, *_said(self.mode).items()]
        return [mode, self.rounds, self.workers, self.colluding, numbers]

    def text(self) -> str:
        """Return the parameters of the noise as canonical text, which the descriptor of a sum holds."""
        said = {"mode": type(self.mode).__name__, "rounds": self.rounds, "workers": self.workers, **_said(self.mode)}
        return json.dumps(said | {"colluding": self.colluding}, sort_keys=True, separators=(",", ":"))

    def shared_noise(self, dimension: int, *, workers: int, least: int) -> DistributedNoise:
        """Return the distributed noise of one round of `workers`, of whom at least `least` are in its sum.

        Raise `UsageError` where that leaves no honest worker, or the noise is too narrow or wide to be drawn.
        """
        assert isinstance(self.mode, DistributedDP)  # nobody else shares noise
        return self.mode.noise(
            rounds=self.rounds, workers=workers, threshold=least, minimum=least, dimension=dimension,
            colluding=self.colluding,
        )  # fmt: skip  # one line of numbers


def _said(value: Mode | Optimizer) -> dict[str, canonical.Field]:
    """Return the fields of a value that are set: numbers as they travel, so that 1 and 1.0 say the same."""
    found = {each.name: getattr(value, each.name) for each in fields(value)}
    return {
        name: float(each) if name in _REALS else [float(part) for part in each] if isinstance(each, tuple) else each
        for name, each in found.items()
        if each is not None
    }


_REALS = ("clip", "delta", "noise_multiplier", "lr", "momentum", "weight_decay", "dampening", "eps")
