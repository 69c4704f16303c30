"""`fedpriv certs`: an authority in a folder, and the certificates that it issues.

Whoever holds the authority's key decides who is a worker and who a coordinator; it stays on one machine, offline if
possible. Nothing that exists is overwritten.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv.errors import CredentialsError, UsageError
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role

app = typer.Typer(
    help="Make an authority, and certificates for workers, coordinators and researchers.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    authority.issue(name, role, hosts=hosts, days=days).save(folder)
    typer.echo(folder / "certificate.pem")


def _refuse_overwriting(folder: Path, *names: str) -> None:
    for name in names:
        if (folder / name).exists():
            raise UsageError(f"{folder / name} exists and may be in use; choose another folder, or remove it first")
