"""`fedpriv certs`: an authority in a folder and the certificates that it issues; an administrator and its rosters.

Tokens, the registrar and revocation are in `registry`.

Whoever holds the authority's key decides who is a worker and who a coordinator; it stays on one machine, offline if
possible. The administrator decides who counts in sums, with a key of its own: who runs the authority cannot add
workers to a roster. Nothing that exists is overwritten but a roster, by a later version of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv.cli import registry
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import CredentialsError, UsageError
from fedpriv.ids import Role, WorkerName, checked_name
from fedpriv.secagg.keys import key_text
from fedpriv.secagg.roster import Member, Roster
from fedpriv.storage.files import make_folder
from fedpriv.storage.rosters import ROSTER, SignedRoster, key_of, load_identity, load_roster, made_identity
from fedpriv.transport.authority import Authority

ADMINISTRATOR_KEY, ADMINISTRATOR_PUBLIC = "administrator.key", "administrator.pub"

app = typer.Typer(
    help="Make an authority, and certificates for workers, coordinators and researchers.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("join-token")(registry.join_token)
app.command("serve")(registry.serve)
app.command("list")(registry.show)
app.command("revoke")(registry.revoke)


@app.command("ca")
def ca(
    folder: Annotated[Path, typer.Argument(help="Where ca.pem and ca-key.pem are written.")],
    name: Annotated[str, typer.Option(help="The authority's name.")] = "fedpriv-ca",
    days: Annotated[int, typer.Option(min=1, max=7300, help="How long it is valid.")] = 3650,
) -> None:
    """Make an authority; keep its key to yourself."""
    _refuse_overwriting(folder, "ca.pem", "ca-key.pem")
    Authority.create(name, days=days).save(folder)
    typer.echo(folder / "ca.pem")
    typer.echo(f"{folder / 'ca-key.pem'} makes anybody anything: keep it offline", err=True)


@app.command("issue")
def issue(
    name: Annotated[str, typer.Argument(help="Who it is for, as rules and ledgers will name it.")],
    *,
    role: Annotated[Role, typer.Option(help="What its holder may be.")] = Role.WORKER,
    ca: Annotated[Path, typer.Option(help="The authority's folder.")] = Path("ca"),
    out: Annotated[Path | None, typer.Option(help="Where it is written.", show_default="a folder called NAME")] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address it listens at; again for more.", show_default="localhost")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is valid.")] = 365,
) -> None:
    """Issue ca.pem, certificate.pem and key.pem for one peer; hand it that folder over a safe channel."""
    folder = out or Path(name)
    _refuse_overwriting(folder, "certificate.pem", "key.pem")
    if not (ca / "ca.pem").exists():
        raise CredentialsError(
            f"{ca} holds no authority; make one once with: fedpriv certs ca {quote(str(ca))} (or name its folder, --ca)"
        )
    authority = Authority.load(ca)
    hosts = tuple(host) if host else ("localhost", "127.0.0.1")
    credentials = authority.issue(name, role, hosts=hosts, days=days)
    registry.record(ca, credentials)  # before anybody has it, so that it can be revoked
    credentials.save(folder)
    typer.echo(folder / "certificate.pem")


@app.command("administrator")
def administrator(
    folder: Annotated[Path, typer.Argument(help="Where administrator.key and administrator.pub are written.")],
) -> None:
    """Make the key that signs rosters; print the public half, which each owner pins in worker.toml."""
    _refuse_overwriting(folder, ADMINISTRATOR_KEY, ADMINISTRATOR_PUBLIC)
    make_folder(folder, mode=0o700)
    identity = made_identity(folder / ADMINISTRATOR_KEY, SystemEntropy())
    (folder / ADMINISTRATOR_PUBLIC).write_text(f"{key_text(identity.public)}\n", encoding="utf-8")
    typer.echo(key_text(identity.public))
    typer.echo(f"{folder / ADMINISTRATOR_KEY} puts anybody on the roster: keep it offline", err=True)


@app.command("roster")
def roster(
    workers: Annotated[list[str], typer.Argument(metavar="NAME=KEY...", help="As `fedpriv worker roster show` says.")],
    *,
    federation: Annotated[str, typer.Option(help="The federation's name; the same in every version.")],
    administrator: Annotated[Path, typer.Option(help="The administrator's folder.")] = Path("administrator"),
    out: Annotated[Path, typer.Option(help="The roster; one that is there gives the next version.")] = Path(ROSTER),
) -> None:
    """Sign a roster of these workers, the whole of it; every owner then accepts it."""
    identity = load_identity(administrator / ADMINISTRATOR_KEY)
    if identity is None:
        where = quote(str(administrator))
        raise CredentialsError(f"{administrator} holds no administrator; make one: fedpriv certs administrator {where}")
    before = load_roster(out).roster if out.exists() else None
    if before is not None and before.federation != federation:
        raise UsageError(f"{out} is of federation {before.federation!r}, not {federation!r}; name another file, --out")
    known = {} if before is None else {each.name: each for each in before.members}
    members = sorted((_member(text, known) for text in workers), key=lambda each: each.name)
    version = 1 if before is None else before.version + 1
    SignedRoster.sign(Roster(federation, version, tuple(members)), identity).save(out)
    typer.echo(out)


def _member(text: str, known: Mapping[WorkerName, Member]) -> Member:
    """Return the worker that "NAME=KEY" says, with the number of keys that it has had."""
    name, equals, key = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r:.80} is no NAME=KEY; copy the line that `fedpriv worker roster show` prints there")
    worker = WorkerName(checked_name("worker", name))
    member = Member(worker, key_of(key, f"the key of {name!r}"))
    before = known.get(worker)
    if before is None:
        return member
    return replace(member, version=before.version + (before.key != member.key))


def _refuse_overwriting(folder: Path, *names: str) -> None:
    for name in names:
        if (folder / name).exists():
            raise UsageError(f"{folder / name} exists and may be in use; choose another folder, or remove it first")
