"""The secrets of one worker in one round, and their shares: made, sealed for a peer, opened from a peer, erased.

Secrets never touch a disk: a worker that restarts has dropped out. Python cannot overwrite what a library copied;
erasing means that nothing here refers to a secret any more, and that its bytes are zeroed where they are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.secagg import keys, statements
from fedpriv.secagg.graph import Neighbourhood
from fedpriv.secagg.keys import KEY_BYTES, KeyPair, fresh_pair
from fedpriv.secagg.masks import Mask
from fedpriv.secagg.messages import Advertise
from fedpriv.secagg.reasons import Erased, Reason, Refused
from fedpriv.secagg.shamir import SECRETS
from fedpriv.secagg.statements import History

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SharePair:
    """One worker's shares of another's b and s, 33 bytes each; they never print."""

    of_seed: bytes = field(repr=False)
    of_key: bytes = field(repr=False)


class RoundSecrets:
    """Everything secret of one round at one worker; nothing of it prints. After `erase` every use raises `Erased`."""

    __slots__ = ("_held", "_inbound", "_masking", "_masks", "_sealing", "_seed")

    def __init__(self, sealing: KeyPair, masking: KeyPair, seed: bytes) -> None:
        self._sealing: KeyPair | None = sealing
        self._masking: KeyPair | None = masking
        self._seed: bytearray | None = bytearray(seed)
        self._inbound: dict[WorkerName, bytes] = {}
        self._masks: list[Mask] = []
        self._held: dict[WorkerName, SharePair] | None = {}

    @classmethod
    def fresh(cls, entropy: Entropy) -> RoundSecrets:
        """Return new keys c and s and a new seed b."""
        return cls(fresh_pair(entropy), fresh_pair(entropy), entropy.random_bytes(KEY_BYTES))

    @property
    def sealing(self) -> KeyPair:
        """c, C: the key that seals shares."""
        return _there(self._sealing)

    @property
    def masking(self) -> KeyPair:
        """s, S: the key that masks are agreed with."""
        return _there(self._masking)

    @property
    def seed(self) -> bytes:
        """b, 32 bytes: what the worker's own mask comes from."""
        return bytes(_there(self._seed))

    @property
    def held(self) -> dict[WorkerName, SharePair]:
        """The shares that this worker holds, by whose secrets they are of."""
        return _there(self._held)

    @property
    def inbound(self) -> dict[WorkerName, bytes]:
        """The key under which each neighbour seals for this worker."""
        _there(self._sealing)
        return self._inbound

    @property
    def masks(self) -> list[Mask]:
        """The masks of this worker's vector."""
        _there(self._masking)
        return self._masks

    def erase_own(self) -> None:
        """Forget b, c, s and the masks; the shares that others need stay."""
        if self._seed is not None:
            self._seed[:] = bytes(len(self._seed))
        self._sealing = self._masking = self._seed = None
        self._inbound.clear()
        self._masks.clear()

    def erase(self) -> None:
        """Forget everything."""
        self.erase_own()
        if self._held is not None:
            self._held.clear()
        self._held = None


def share_out(
    secrets: RoundSecrets,
    history: History,
    around: Neighbourhood,
    members: Mapping[WorkerName, Advertise],
    *,
    me: WorkerName,
    threshold: int,
    entropy: Entropy,
) -> list[tuple[WorkerName, bytes]]:
    """Return a sealed pair of shares for each neighbour; keep the own pair, and the keys for what comes back.

    One X25519 a neighbour gives the keys of both directions.
    """
    points = [around.points[holder] for holder in around.holders]
    made = (
        SECRETS.split(int.from_bytes(secret, "big"), threshold, points, entropy)
        for secret in (secrets.seed, secrets.masking.private_bytes)
    )
    ciphertexts = []
    for holder, of_seed, of_key in zip(around.holders, *made, strict=True):
        pair = SharePair(SECRETS.encode(of_seed), SECRETS.encode(of_key))
        if holder == me:
            secrets.held[me] = pair
            continue
        agreed = secrets.sealing.agree(holder, members[holder].sealing)
        mine, theirs = secrets.sealing.public, members[holder].sealing
        secrets.inbound[holder] = keys.share_key(agreed, history.sid, (holder, me), (theirs, mine))
        outbound = keys.share_key(agreed, history.sid, (me, holder), (mine, theirs))
        plaintext = statements.share_header(me, holder, around.points[holder]) + pair.of_seed + pair.of_key
        ciphertexts.append((holder, keys.seal(outbound, plaintext, statements.sealed_for(history, me, holder))))
    return ciphertexts


def open_shares(
    key: bytes, ciphertext: bytes, history: History, sender: WorkerName, me: WorkerName, point: int
) -> SharePair:
    """Return the pair of shares that `sender` sealed for `me` at `point`.

    Raises `Refused` where it does not decrypt, is meant for another route or point, or is of another size: the subject
    names sender and holder, and either of them, or whoever passed it on, may be at fault.
    """
    subject = f"{sender} -> {me}"
    plaintext = keys.unseal(key, ciphertext, statements.sealed_for(history, sender, me))
    if plaintext is None:
        message = f"the shares of {sender!r} for {me!r} do not decrypt; they were altered, misrouted or never right"
        raise Refused(Reason.UNDECIPHERABLE_SHARE, message, subject=subject)
    header, width = statements.share_header(sender, me, point), SECRETS.share_bytes
    shares = plaintext[len(header) :]
    if plaintext[: len(header)] != header or len(shares) != 2 * width:
        message = f"the shares of {sender!r} for {me!r} are of another route, point or size; {sender!r} made them so"
        raise Refused(Reason.MALFORMED_SHARE, message, subject=subject)
    try:
        SECRETS.check(shares[:width], shares[width:])
    except UsageError:
        message = f"a share of {sender!r} for {me!r} is not reduced modulo the prime; {sender!r} made it so"
        raise Refused(Reason.MALFORMED_SHARE, message, subject=subject) from None
    return SharePair(shares[:width], shares[width:])


def derive_masks(
    secrets: RoundSecrets,
    sid: bytes,
    peers: Mapping[WorkerName, Advertise],
    me: WorkerName,
) -> None:
    """Keep the masks of this worker's vector: its own, one added for each peer before it, else taken away."""
    own = secrets.masking
    secrets.masks.append((keys.self_key(secrets.seed, sid, me), True))
    for peer, advertised in peers.items():
        agreed = own.agree(peer, advertised.masking)
        secrets.masks.append((keys.pairwise_key(agreed, sid, (me, own.public), (peer, advertised.masking)), peer < me))


def _there(value: T | None) -> T:
    if value is None:
        raise Erased("the secrets of this round were erased; a round that ended is not taken up again, begin a new one")
    return value
