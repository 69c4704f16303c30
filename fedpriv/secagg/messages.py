"""The messages of a round, as values; every one names its session. How they travel is `fedpriv.wire.secagg`'s.

    round          worker -> coordinator        coordinator -> worker
    0 advertise    Advertise                    Invite
    1 share keys   Shares                       Roll
    2 mask         Masked                       Delivery
    3 confirm      Confirm                      Survivors
    4 unmask       Unmask                       Agreement
    any            Abort

The sender of a worker's message is who its link proved it to be, never a field; `Advertise` names its worker because
it is passed on to the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from fedpriv.ids import WorkerName
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.ring import Words

Named: TypeAlias = tuple[tuple[WorkerName, bytes], ...]


@dataclass(frozen=True, slots=True)
class Invite:
    """The coordinator's question whether a worker takes part in the round of `descriptor`."""

    descriptor: Descriptor

    @property
    def sid(self) -> bytes:
        """The id of the session."""
        return self.descriptor.sid


@dataclass(frozen=True, slots=True)
class Advertise:
    """A worker's public keys of this round, each 32 bytes: C for sealing shares, S for masks; the commitment to b."""

    sid: bytes
    worker: WorkerName
    sealing: bytes
    masking: bytes
    commitment: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Roll:
    """U1: the advertisements of the receiving worker and its neighbours, as signed by each; and who else advertised.

    `everybody` has all names, and is empty where `members` has everybody; `proof` leads from the entries of `members`
    to the root of the tree over all.
    """

    sid: bytes
    members: tuple[Advertise, ...]
    everybody: tuple[WorkerName, ...] = ()
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Shares:
    """One ciphertext for each neighbour, by recipient."""

    sid: bytes
    ciphertexts: Named
    signature: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """U2, whose shares arrived, and what its neighbours among them sealed for the receiving worker, by sender."""

    sid: bytes
    members: tuple[WorkerName, ...]
    ciphertexts: Named


@dataclass(frozen=True, slots=True)
class Masked:
    """A worker's masked words, shape (d,)."""

    sid: bytes
    words: Words = field(repr=False)
    signature: bytes


@dataclass(frozen=True, slots=True)
class Survivors:
    """U3, whose masked words arrived: those in the sum."""

    sid: bytes
    members: tuple[WorkerName, ...]


@dataclass(frozen=True, slots=True)
class Confirm:
    """A worker's signature over the U3 that it was told."""

    sid: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Agreement:
    """Signatures of those who were told the same U3, by signer."""

    sid: bytes
    signatures: Named


@dataclass(frozen=True, slots=True)
class Unmask:
    """A worker's shares, 33 bytes each, by whose secret they are of: b of those in U3, s of those lost before."""

    sid: bytes
    self_shares: Named = field(repr=False)
    key_shares: Named = field(repr=False)
    signature: bytes


@dataclass(frozen=True, slots=True)
class Abort:
    """A worker's signed statement that it stopped in `round` (0 to 4), why, and about what."""

    sid: bytes
    round: int
    reason: Reason
    subject: str
    signature: bytes


FromCoordinator: TypeAlias = Invite | Roll | Delivery | Survivors | Agreement
FromWorker: TypeAlias = Advertise | Shares | Masked | Confirm | Unmask | Abort
Message: TypeAlias = FromCoordinator | FromWorker
