"""`fedpriv certs join-token`, `serve`, `list` and `revoke`: an authority's register, and the registrar that answers.

The registrar holds the authority's key while it runs. It need not run all the time: peers ask it when they join, once
in a while for who is revoked, and when two thirds of a certificate's life are over. It is no coordinator.
"""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv import settings
from fedpriv.cli.durations import seconds_of
from fedpriv.cli.logs import configure, say
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import CredentialsError, UsageError
from fedpriv.ids import Role, checked_name
from fedpriv.storage.register import Issued, Promise, Register
from fedpriv.storage.rosters import key_of
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.enquiry import REGISTRAR_PORT
from fedpriv.transport.joining import ask_as
from fedpriv.transport.registrar import NAME, Desk, Registrar, described, issued_as, spki
from fedpriv.transport.token import JoinToken, fingerprint_text

LONGEST_SECONDS = 30 * 86_400
AuthorityFolder = Annotated[Path, typer.Option("--ca", help="The authority's folder.")]


def join_token(
    *,
    worker: Annotated[str, typer.Option(metavar="NAME", help="The worker's name, as rules and ledgers will say it.")],
    expires: Annotated[str, typer.Option(metavar="TIME", help="For how long it is good: 30m, 1h, 2d.")] = "1h",
    ca: AuthorityFolder = Path("ca"),
    registrar: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where `fedpriv certs serve` answers.", show_default="not said")
    ] = "",
    administrator: Annotated[
        Path | None, typer.Option(help="administrator.pub, whose rosters the worker is to take.")
    ] = None,
    host: Annotated[list[str] | None, typer.Option(help="Name or address it listens at; again for more.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long its certificate is valid.")] = 365,
) -> None:
    """Make a token with which one new worker gets its certificate, once; print it."""
    seconds = seconds_of(expires)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise UsageError(f"--expires {expires} is too long or nothing; use up to 30d, and rather an hour")
    name, authority, now = checked_name("worker", worker), _authority(ca), SystemClock().now()
    where = settings.address(registrar, "--registrar") if registrar else ""
    token = JoinToken.fresh(
        SystemEntropy(), authority.fingerprint, registrar=where, administrator=_administrator(administrator)
    )
    hosts = tuple(host) if host else ("localhost", "127.0.0.1")
    with Register.open(ca) as register:
        promised = Promise(name, Role.WORKER.value, hosts, days, now + seconds)
        register.promise(token.id, token.secret, promised)
    typer.echo(token.text)
    say(f"good once, until {_time(now + seconds)} UTC, for whoever has it first: give it to {name}'s owner alone")
    say(f"  there: fedpriv worker join TOKEN --coordinator HOST:PORT{'' if where else ' --registrar HOST:PORT'}")
    say(f"  here, until it was used: fedpriv certs serve --ca {quote(str(ca))}")
    say(f"the authority's fingerprint is {fingerprint_text(authority.fingerprint)}")


def serve(
    *,
    ca: AuthorityFolder = Path("ca"),
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where it answers.")] = f"0.0.0.0:{REGISTRAR_PORT}",
) -> None:
    """Answer those who join with a token, renew certificates, and say who is revoked; until it is interrupted."""
    address = settings.listening_address(listen, "--listen")
    authority = _authority(ca)
    configure(as_json=False)
    credentials = authority.issue(NAME, Role.REGISTRAR, hosts=())
    with Register.open(ca) as register:
        desk = Desk(authority, register, ca, SystemClock())
        desk.publish()
        host, _, port = address.rpartition(":")
        asyncio.run(_serve((host.strip("[]"), int(port)), desk, credentials))


def show(
    *,
    ca: AuthorityFolder = Path("ca"),
    at: Annotated[str, typer.Option(metavar="HOST:PORT", help="Ask this registrar instead of a folder.")] = "",
    credentials: Annotated[
        Path | None, typer.Option(help="Of an auditor or administrator, to ask a registrar with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """List every certificate that was issued: for whom, until when, and whether it was revoked."""
    if at:
        answer = ask_as(settings.address(at, "--at"), _asker(credentials), {"ask": "issued"})
        rows = json.loads(str(answer["issued"]))
    else:
        _authority(ca)
        with Register.open(ca) as register:
            rows = [described(each) for each in register.issued()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        state = f"revoked {_time(row['revoked'])}" if row["revoked"] else f"until {_time(row['expires'])}"
        typer.echo(f"{row['name']}  {row['role']}  issued {_time(row['issued'])}  {state}  {row['serial']}")


def revoke(
    name: Annotated[str, typer.Argument(help="Whose certificates, all of them, hold no more from now on.")],
    *,
    ca: AuthorityFolder = Path("ca"),
    at: Annotated[str, typer.Option(metavar="HOST:PORT", help="Have this registrar do it.")] = "",
    credentials: Annotated[Path | None, typer.Option(help="Of an administrator, to ask a registrar with.")] = None,
) -> None:
    """Take back every certificate of NAME; both sides of a link honour the list at the next handshake."""
    checked_name("peer", name)
    if at:
        answer = ask_as(settings.address(at, "--at"), _asker(credentials), {"ask": "revoke", "name": name})
        typer.echo(f"{answer['count']} of {name} revoked")
        return
    clock, authority = SystemClock(), _authority(ca)
    with Register.open(ca) as register:
        found = register.revoke(name, clock.now())
        Desk(authority, register, ca, clock).publish()
    typer.echo(f"{len(found)} of {name} revoked")
    say(
        f"{ca / 'revoked.pem'} says so: peers that have a registrar fetch it within the hour; copy it beside the "
        "ca.pem of every other, which reads it at its next handshake. Links that are open go on until they end"
    )


def record(ca: Path, credentials: Credentials) -> None:
    """Put credentials that were issued on this machine into the register."""
    issued: Issued = issued_as(credentials.chain[0], SystemClock().now())
    with Register.open(ca) as register:
        register.record(issued, spki(credentials.key.public_key()))


async def _serve(address: tuple[str, int], desk: Desk, credentials: Credentials) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Registrar(address, desk, credentials) as registrar:
        say(f"the registrar answers on {address[0]}:{registrar.port}")
        await stop.wait()
    say("the registrar stopped")


def _authority(ca: Path) -> Authority:
    if not (ca / "ca.pem").exists():
        raise CredentialsError(
            f"{ca} holds no authority; make one once with: fedpriv certs ca {quote(str(ca))} (or name its folder, --ca)"
        )
    return Authority.load(ca)


def _administrator(path: Path | None) -> bytes:
    if path is None:
        return b""
    try:
        return key_of(path.read_text(encoding="utf-8").strip(), str(path))
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"{path} cannot be read; name the administrator.pub of fedpriv certs administrator") from None


def _asker(folder: Path | None) -> Credentials:
    if folder is None:
        raise UsageError("--at needs --credentials, the folder of an administrator's or auditor's certificate")
    return Credentials.load(folder)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"
