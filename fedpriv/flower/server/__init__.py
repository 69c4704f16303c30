"""What Flower's programs name under `fl.server`."""

from __future__ import annotations

from dataclasses import dataclass

from fedpriv.flower.server import strategy
from fedpriv.flower.server.history import History


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How many rounds there are; `round_timeout` is taken and not needed, since nothing here waits."""

    num_rounds: int = 1
    round_timeout: float | None = None


__all__ = ["History", "ServerConfig", "strategy"]
