"""This worker's place in a federation: its own identity, the roster that its owner accepted, and its owner's terms.

The identity is an Ed25519 key that is made in the state folder and stays there. A roster counts only if the key of the
administrator, which the owner pinned, signed it, and never one older than what was accepted before: a coordinator can
neither add a worker to it nor bring back one that was taken off. It takes part in no round; `aggregation` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from fedpriv.errors import FedprivError, UsageError, VerificationFailed
from fedpriv.privacy.noises import DistributedNoise, Noise
from fedpriv.secagg.checks import Expectation, Terms
from fedpriv.secagg.keys import Identity, key_text
from fedpriv.secagg.reasons import Refused
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.thresholds import DEFAULT_COLLUDING, LEAST_WORKERS
from fedpriv.storage.rosters import SignedRoster
from fedpriv.updates import TensorSpec
from fedpriv.wire.messages import Train
from fedpriv.wire.rounds import Summable, computation, fixed_point_of, vector_of
from fedpriv_worker.actions import Evaluated, Summand, Trained

_DENOMINATOR = 1_000_000
FUTURE_MILLISECONDS = 600_000
"""How far a round's number, the time at which it began, may be ahead of this worker's clock: ten minutes.

Until then whoever may give orders can keep this worker out of every other round, by beginning one of that number.
"""


class NotAccepted(FedprivError):
    """A roster is the administrator's, and not later than the one that was accepted."""

    exit_code = 4


@dataclass(frozen=True, slots=True)
class OwnerTerms:
    """What the owner insists on, beyond any one rule; a coordinator can ask for more, never for less.

    `colluding` is the share of workers that may work together with the coordinator, `maximum_weight` the most that
    this worker weighs in a mean; None for as many as it has rows. Raise `UsageError` for terms that no round can meet.
    """

    minimum_cohort: int = LEAST_WORKERS
    colluding: Fraction | float = DEFAULT_COLLUDING
    maximum_weight: int | None = None

    def __post_init__(self) -> None:
        self.check()

    @property
    def colluding_share(self) -> Fraction:
        """The colluding share as an exact fraction, 1/3 for 0.333333."""
        return Fraction(self.colluding).limit_denominator(_DENOMINATOR)

    def check(self) -> None:
        """Raise `UsageError` for terms that no round can meet or that protect nobody."""
        if self.minimum_cohort < LEAST_WORKERS:
            raise UsageError(
                f"minimum_cohort is {self.minimum_cohort}; use {LEAST_WORKERS} or more: in a sum of two, each can "
                "subtract its own"
            )
        if not 0 <= self.colluding < 1:
            raise UsageError(f"colluding is {float(self.colluding):g}; use a share of at least 0 and below 1")
        if self.maximum_weight is not None and self.maximum_weight < 1:
            raise UsageError(f"maximum_weight is {self.maximum_weight}; use 1 or more, or leave it out")


@dataclass(frozen=True, slots=True)
class Enrolment:
    """Who this worker is to others in a sum, and what its owner insists on; `roster` returns what is accepted now.

    It raises `VerificationFailed` or `UsageError` where there is none that counts.
    """

    identity: Identity = field(repr=False)
    roster: Callable[[], Roster] = field(repr=False)
    terms: OwnerTerms = OwnerTerms()

    def judged_by(self, last_round: int) -> Terms:
        """Return the terms that a descriptor is held to, when `last_round` is the highest that was ever begun."""
        return Terms(self.terms.minimum_cohort, self.terms.colluding_share, last_round)

    def weight(self, outcome: Summand, most: int) -> int:
        """Return what an outcome weighs: its rows, at most `most` and what the owner lets it weigh; 1 for sums.

        A round whose `most` is below the rows caps them: to stop there would tell its coordinator, round by round, how
        many rows there are, which the owner may have rounded.
        """
        if not isinstance(outcome, Trained | Evaluated):
            return 1
        limit = self.terms.maximum_weight
        return max(1, min(outcome.rows, most if limit is None else min(most, limit)))


def expected(
    order: Summable,
    roster: Roster,
    *,
    model: bytes,
    changed: tuple[TensorSpec, ...],
    features: int,
    now: float,
    noise: Noise | None = None,
) -> Expectation:
    """Return what the descriptor of the round has to say, worked out from the `order` itself; `now` in Unix seconds.

    `noise` is what this worker executes of a private one.
    """
    assert order.invite is not None  # nobody asks without
    descriptor = order.invite.descriptor
    latest = int(now * 1000) + FUTURE_MILLISECONDS
    shared = noise if isinstance(noise, DistributedNoise) else None
    private = order.privacy if isinstance(order, Train) else None
    return Expectation(
        roster=roster,
        round=min(descriptor.round, latest),
        model=model,
        plan=computation(order),
        vector=vector_of(order, changed, features, fixed_point_of(descriptor), shared),
        privacy="" if private is None else private.text(),
    )


def check_next(signed: SignedRoster, administrator: bytes, before: SignedRoster | None) -> None:
    """Raise unless the administrator signed `signed`, for the same federation and later than what was accepted.

    `VerificationFailed` says that the key `administrator` did not sign it, `NotAccepted` that it is not later.
    """
    try:
        signed.roster.check(signed.signature, administrator)
    except Refused:
        raise VerificationFailed(_signed_by_another(signed, key_text(administrator))) from None
    if before is None or before == signed:
        return
    if before.roster.federation != signed.roster.federation:
        raise UsageError(
            f"the roster is of federation {signed.roster.federation!r}, this worker is in "
            f"{before.roster.federation!r}; use another state folder for another federation"
        )
    offered, accepted = signed.roster.version, before.roster.version
    if offered == accepted:
        raise NotAccepted(
            f"the roster is another one of version {offered} than that of version {accepted}, which was accepted "
            "already; have the administrator sign it with a higher version"
        )
    if offered < accepted:
        raise NotAccepted(
            f"roster version {offered} does not follow version {accepted}, which was accepted already; an older one "
            "could bring back a worker that was taken off: ask the administrator for the latest"
        )


def _signed_by_another(signed: SignedRoster, pinned: str) -> str:
    """Return what to do about a roster that the pinned key did not sign."""
    failed = f"the key {pinned}, which worker.toml pins as administrator under [secure_aggregation], did not sign it"
    if signed.administrator is None or not _is_signed_by(signed, signed.administrator):
        return f"the roster does not verify: {failed}; it was altered, or is another's: get it from the administrator"
    return (
        f"the roster is signed by {key_text(signed.administrator)}, and {failed}; only if the administrator tells you "
        "in person that theirs is the other key, write it to worker.toml in place of this one"
    )


def _is_signed_by(signed: SignedRoster, key: bytes) -> bool:
    try:
        signed.roster.check(signed.signature, key)
    except Refused:
        return False
    return True
