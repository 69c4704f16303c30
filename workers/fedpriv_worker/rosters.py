"""The roster that an owner accepted, as it lies in the state folder, and this worker's own key beside it.

It is read anew for each round, so that a roster accepted while the worker runs holds from the next round on; the
administrator's signature is checked each time, and the version against the highest that the journal remembers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.secagg.checks import check_own_key
from fedpriv.secagg.keys import Identity
from fedpriv.secagg.roster import Roster
from fedpriv.storage.files import make_folder
from fedpriv.storage.rosters import IDENTITY_KEY, ROSTER, SignedRoster, load_roster, made_identity
from fedpriv_worker.enrolment import check_next

VERSION = "roster-version/"
"""Under this, in the journal, lies the highest version of each federation's roster that was used."""


class AcceptedRoster:
    """The roster of one state folder, under the administrator's key that the owner pinned."""

    def __init__(self, state: Path, administrator: bytes) -> None:
        self._path = state / ROSTER
        self._administrator = administrator

    def signed(self) -> SignedRoster | None:
        """Return what was accepted last, None if nothing was; raise unless the administrator signed it."""
        if not self._path.exists():
            return None
        found = load_roster(self._path)
        check_next(found, self._administrator, None)
        return found

    def accept(self, offered: SignedRoster, name: WorkerName, identity: Identity) -> None:
        """Keep `offered` from now on; raise, with nothing changed, unless it counts and this worker is on it."""
        check_next(offered, self._administrator, self.signed())
        check_own_key(offered.roster, name, identity.public)
        make_folder(self._path.parent, mode=0o700)
        offered.save(self._path)

    def current(self, raise_to: Callable[[str, int], int]) -> Roster:
        """Return the roster to take part under; `raise_to` remembers the highest version, durably.

        Raise `UsageError` where none was accepted, and `VerificationFailed` for one older than was used before.
        """
        found = self.signed()
        if found is None:
            raise UsageError(f"no roster was accepted yet; use: fedpriv worker roster accept {ROSTER}")
        roster = found.roster
        before = raise_to(f"{VERSION}{roster.federation}", roster.version)
        if roster.version < before:
            raise VerificationFailed(
                f"{self._path} has version {roster.version}, and version {before} was used already; accept the latest"
            )
        return roster


def own_identity(state: Path, entropy: Entropy) -> Identity:
    """Return the worker's own key from its state folder, made now if it has none."""
    make_folder(state, mode=0o700)
    return made_identity(state / IDENTITY_KEY, entropy)
