"""Secrets from shares, and a sum from masked words: what the coordinator does last.

Every secret is checked against what its owner published: b against its commitment, s against S. Where the check fails,
other subsets of the shares are tried, within a bound; a share that does not fit the others is named, and with it "its
sender or its holder": without verifiable secret sharing it is proof against neither, and holders that collude can make
an honest share look as if it did not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

from fedpriv.ids import WorkerName
from fedpriv.secagg import keys, statements
from fedpriv.secagg.graph import Topology
from fedpriv.secagg.keys import KEY_BYTES, KeyPair
from fedpriv.secagg.masks import Mask
from fedpriv.secagg.messages import Advertise
from fedpriv.secagg.reasons import Reason, Refused
from fedpriv.secagg.shamir import SECRETS, PrimeField

MAXIMUM_ATTEMPTS = 2000
"""How many subsets of shares are tried in one round before it is given up, the first of each secret not counted."""

_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Outlier:
    """A share of `sender`'s secret, held by `holder`, that does not fit the others: either of them made it wrong."""

    sender: WorkerName
    holder: WorkerName


@dataclass(slots=True)
class Recovery:
    """Reconstructs the secrets of one round; remembers whose shares did not fit, and tries those last."""

    threshold: int
    points: Mapping[WorkerName, int]
    over: PrimeField = SECRETS
    outliers: list[Outlier] = field(default_factory=list)
    attempts_left: int = MAXIMUM_ATTEMPTS
    _weights: dict[tuple[tuple[WorkerName, ...], int], tuple[int, ...]] = field(default_factory=dict, repr=False)

    def recover(self, sender: WorkerName, shares: Mapping[WorkerName, bytes], is_right: Callable[[int], bool]) -> int:
        """Return the secret of `sender` that `shares`, well-formed, by holder, give and that `is_right`.

        Raises `Refused` where there are too few shares, or where no subset within the bound gives it.
        """
        if len(shares) < self.threshold:
            message = f"{len(shares)} shares of {sender!r} came back, {self.threshold} are needed; begin a new round"
            raise Refused(Reason.TOO_FEW_MEMBERS, message)
        suspects = {outlier.holder for outlier in self.outliers}
        holders = sorted(shares)
        if suspects:
            holders.sort(key=suspects.__contains__)
        for attempt, chosen in enumerate(self._subsets(holders)):
            self.attempts_left -= attempt > 0
            if self.attempts_left < 0:
                break
            secret = self.over.combine(
                self._weights_of(chosen), [int.from_bytes(shares[holder], "big") for holder in chosen]
            )
            if is_right(secret):
                if attempt or suspects.intersection(holders):
                    self._name_outliers(sender, shares, chosen)
                return secret
        message = (
            f"the {len(shares)} shares of {sender!r} do not give what it published, {self.threshold} at a time; "
            "its shares were wrong, or too many holders altered theirs"
        )
        raise Refused(Reason.INCONSISTENT_SHARES, message, subject=sender)

    def _subsets(self, holders: Sequence[WorkerName]) -> Iterator[tuple[WorkerName, ...]]:
        """Yield every choice of `threshold` holders once, those of the first few holders first."""
        for left_out in range(len(holders) - self.threshold + 1):
            if not left_out:
                yield tuple(holders[: self.threshold])
                continue
            *earlier, last = holders[: self.threshold + left_out]
            for missing in combinations(earlier, left_out):
                yield (*(holder for holder in earlier if holder not in missing), last)

    def _weights_of(self, holders: tuple[WorkerName, ...], at: int = 0) -> tuple[int, ...]:
        if (holders, at) not in self._weights:
            if len(self._weights) >= _REMEMBERED:
                self._weights.clear()
            self._weights[holders, at] = self.over.weights([self.points[holder] for holder in holders], at)
        return self._weights[holders, at]

    def _name_outliers(
        self, sender: WorkerName, shares: Mapping[WorkerName, bytes], good: tuple[WorkerName, ...]
    ) -> None:
        values = [int.from_bytes(shares[holder], "big") for holder in good]
        for holder in sorted(set(shares).difference(good)):
            expected = self.over.combine(self._weights_of(good, self.points[holder]), values)
            if self.over.encode(expected) != shares[holder]:
                self.outliers.append(Outlier(sender, holder))


@dataclass(frozen=True, slots=True)
class Roles:
    """Who is in the sum, and who was lost after sharing: survivors' b and lost ones' s are reconstructed."""

    sid: bytes
    members: Mapping[WorkerName, Advertise]
    survivors: Sequence[WorkerName]
    lost: Sequence[WorkerName]
    graph: Topology


def masks_to_remove(
    roles: Roles,
    recovery: Recovery,
    self_shares: Mapping[WorkerName, Mapping[WorkerName, bytes]],
    key_shares: Mapping[WorkerName, Mapping[WorkerName, bytes]],
) -> Iterator[Mask]:
    """Yield each mask that is still in the sum, as it has to be applied; shares are by sender, then by holder.

    Nothing larger than a key is kept. Raises `Refused` where a secret cannot be reconstructed.
    """
    for survivor in roles.survivors:
        published = roles.members[survivor].commitment
        is_right = partial(_commits, roles.sid, survivor, published)
        seed = recovery.recover(survivor, self_shares[survivor], is_right)
        yield keys.self_key(seed.to_bytes(KEY_BYTES, "big"), roles.sid, survivor), False
    public_keys = {survivor: keys.parsed(roles.members[survivor].masking) for survivor in roles.survivors}
    for lost in roles.lost:
        published = roles.members[lost].masking
        private = recovery.recover(lost, key_shares[lost], partial(_has_public, published))
        pair = KeyPair.of(private.to_bytes(KEY_BYTES, "big"))
        for peer in roles.graph.neighbours(lost):
            if peer not in public_keys:
                continue  # lost as well: neither's words are in the sum
            agreed, public = pair.agree(peer, public_keys[peer]), roles.members[peer].masking
            # The peer added the mask if the lost worker came before it.
            yield keys.pairwise_key(agreed, roles.sid, (lost, pair.public), (peer, public)), lost > peer


def _commits(sid: bytes, worker: WorkerName, commitment: bytes, value: int) -> bool:
    if value.bit_length() > 8 * KEY_BYTES:
        return False
    return statements.commitment(sid, worker, value.to_bytes(KEY_BYTES, "big")) == commitment


def _has_public(public: bytes, value: int) -> bool:
    if value.bit_length() > 8 * KEY_BYTES:
        return False
    return KeyPair.of(value.to_bytes(KEY_BYTES, "big")).public == public
