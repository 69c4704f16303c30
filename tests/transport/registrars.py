"""A registrar on a real port, beside an authority in a folder, with a clock that a test sets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedpriv.clock import ManualClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import Role
from fedpriv.storage.register import Promise, Register
from fedpriv.transport.authority import Authority
from fedpriv.transport.registrar import NAME, Desk, Registrar
from fedpriv.transport.runtime import Runtime
from fedpriv.transport.token import JoinToken


@dataclass(frozen=True)
class Office:
    """Everything about one authority; `clock` is the registrar's own."""

    folder: Path
    authority: Authority
    register: Register
    desk: Desk
    clock: ManualClock
    address: str

    def token(
        self, name: str = "alice", role: Role = Role.WORKER, *, seconds: float = 3600, days: int = 30
    ) -> JoinToken:
        token = JoinToken.fresh(SystemEntropy(), self.authority.fingerprint, registrar=self.address)
        promised = Promise(name, role.value, ("localhost", "127.0.0.1"), days, self.clock.now() + seconds)
        self.register.promise(token.id, token.secret, promised)
        return token


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@contextmanager
def opened(folder: Path) -> Iterator[Office]:
    """Serve an authority in `folder` until the end."""
    authority, clock, runtime = Authority.create(), ManualClock(time.time()), Runtime()
    authority.save(folder)
    with Register.open(folder) as register:
        desk = Desk(authority, register, folder, clock)
        registrar = Registrar(("127.0.0.1", 0), desk, authority.issue(NAME, Role.REGISTRAR, hosts=()))
        runtime.run(registrar.__aenter__())
        try:
            yield Office(folder, authority, register, desk, clock, f"127.0.0.1:{registrar.port}")
        finally:
            runtime.run(registrar.__aexit__(None, None, None))
            runtime.close()
