"""Who may take part: names and identity keys, signed by an administrator whose key every owner pins.

Neither the coordinator nor its certificate authority can add to a roster, so whoever runs them cannot enrol workers of
their own (Sybils). Files and commands are not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fedpriv import canonical
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName, checked_name
from fedpriv.secagg.keys import PREFIX, Identity, check_signature, is_identity_key
from fedpriv.secagg.reasons import Reason, Refused


@dataclass(frozen=True, slots=True)
class Member:
    """One worker of a roster: its name, its Ed25519 key (32 bytes), and how often that key was replaced."""

    name: WorkerName
    key: bytes
    version: int = 1


@dataclass(frozen=True)  # without slots, for cached_property
class Roster:
    """Distinct workers with distinct keys, by name; raise `UsageError` for a key that cannot be an identity."""

    federation: str
    version: int
    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        for member in self.members:
            checked_name("worker", member.name)
            if not is_identity_key(member.key):
                raise UsageError(f"the key of {member.name!r} is no Ed25519 key, or one that anybody can sign for")
        names = [member.name for member in self.members]
        if sorted(set(names)) != names or len({member.key for member in self.members}) != len(names):
            raise UsageError("a roster names each worker and each key once, sorted by name")

    @cached_property
    def keys(self) -> Mapping[WorkerName, bytes]:
        """The identity key of each worker."""
        return {member.name: member.key for member in self.members}

    @property
    def statement(self) -> bytes:
        """The canonical bytes that the administrator signs."""
        return canonical.encode(f"{PREFIX}roster", *self._fields())

    @cached_property
    def digest(self) -> bytes:
        """The 32 bytes by which a descriptor names this roster."""
        return canonical.digest(f"{PREFIX}roster", *self._fields())

    def signed(self, administrator: Identity) -> bytes:
        """Return the administrator's signature."""
        return administrator.sign(self.statement)

    def check(self, signature: bytes, administrator: bytes) -> None:
        """Raise `Refused` unless the pinned key `administrator` signed exactly this roster."""
        check_signature("administrator", administrator, signature, self.statement)

    def key_of(self, worker: WorkerName) -> bytes:
        """Return the identity key of `worker`; raise `Refused` for one that is not on the roster."""
        if worker not in self.keys:
            message = f"worker {worker!r} is not on the roster; its administrator has to add it and sign"
            raise Refused(Reason.NOT_ON_ROSTER, message, subject=worker)
        return self.keys[worker]

    def _fields(self) -> tuple[canonical.Field, ...]:
        return self.federation, self.version, tuple((each.name, each.key, each.version) for each in self.members)
