"""What a round is about: everything that all its workers must agree on before a key is made.

The session's id is a hash of all of it, and it salts every key and stands in every signature: workers that were told
different things share no mask and accept no signature of each other. `checks` compares it with what a worker knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from fedpriv import canonical
from fedpriv.errors import UsageError
from fedpriv.secagg.graph import COMPLETE, GraphKind, GraphSpec
from fedpriv.secagg.keys import PREFIX
from fedpriv.secagg.ring import Ring
from fedpriv.secagg.vector import VectorSpec

PROTOCOL = "fedpriv-secagg/1"
DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True)  # without slots, for cached_property
class Descriptor:
    """One round. `roster`, `model` and `plan` are 32-byte digests; `workers` is n, how many are invited.

    `privacy` says the parameters of differential privacy in canonical text, "" without. `deadlines_seconds` has the
    coordinator's patience with each of the five rounds of messages, as floats: a 5 and a 5.0 are one descriptor.
    """

    federation: str
    roster: bytes
    round: int
    model: bytes
    plan: bytes
    vector: VectorSpec
    modulus_bits: int
    workers: int
    threshold: int
    minimum_cohort: int
    graph: GraphSpec = COMPLETE
    privacy: str = ""
    deadlines_seconds: tuple[float, ...] = ()
    protocol: str = PROTOCOL

    def __post_init__(self) -> None:
        Ring(self.modulus_bits)
        object.__setattr__(self, "deadlines_seconds", tuple(map(float, self.deadlines_seconds)))
        if any(len(each) != DIGEST_BYTES for each in (self.roster, self.model, self.plan)):
            raise UsageError(f"roster, model and plan of a round are digests of {DIGEST_BYTES} bytes each")
        if min(self.workers, self.threshold, self.minimum_cohort) < 1 or self.round < 0:
            raise UsageError(
                f"a round {self.round} of {self.workers} workers, threshold {self.threshold}, minimum cohort "
                f"{self.minimum_cohort}; use 1 or more of each"
            )
        if not all(math.isfinite(each) and each > 0 for each in self.deadlines_seconds):
            raise UsageError(f"deadlines of {self.deadlines_seconds} seconds; use finite numbers above 0")

    @cached_property
    def sid(self) -> bytes:
        """The id of the session, 32 bytes."""
        graph = (self.graph.kind.value, self.graph.degree, self.graph.lost)
        return canonical.digest(
            f"{PREFIX}session", self.protocol, self.federation, self.roster, self.round, self.model, self.plan,
            self.vector.fields(), self.modulus_bits, self.privacy, self.workers, self.threshold, self.minimum_cohort,
            graph, self.deadlines_seconds,
        )  # fmt: skip  # in the order of the specification

    @cached_property
    def ring(self) -> Ring:
        """The ring of the words."""
        return Ring(self.modulus_bits)

    @property
    def least(self) -> int:
        """How many workers must be left at every step: enough to reconstruct, to hide in, and to stay connected."""
        connected = self.workers - self.graph.lost if self.graph.kind is GraphKind.HARARY else 0
        return max(self.threshold, self.minimum_cohort, connected)
