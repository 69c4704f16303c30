"""`fedpriv worker roster`: the key by which others know this worker in a sum, and the roster that its owner accepted.

Whether a roster counts is decided by the administrator's key in worker.toml, which its owner got from a person and not
from a coordinator.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fedpriv.entropy import SystemEntropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.secagg.keys import key_text
from fedpriv.storage.rosters import SignedRoster, load_roster
from fedpriv_worker.config import SecureAggregation, WorkerConfig, load_config
from fedpriv_worker.rosters import AcceptedRoster, own_identity

app = typer.Typer(
    help="Show this worker's key and its roster, or accept another roster.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Config = Annotated[Path, typer.Option(help="The worker's TOML file.")]


@app.command("show")
def show(
    *,
    config: Config = Path("worker.toml"),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show this worker's name and key, for the administrator, and who is on the roster that was accepted."""
    settings = load_config(config)
    key = key_text(own_identity(settings.worker.state, SystemEntropy()).public)
    section = settings.secure_aggregation
    signed = None if section is None else AcceptedRoster(settings.worker.state, section.administrator).signed()
    if as_json:
        typer.echo(json.dumps({"worker": settings.worker.name, "key": key, "roster": _facts(signed)}))
        return
    typer.echo(f"{settings.worker.name}={key}")
    if section is None:
        typer.echo("this worker takes part in no sums: worker.toml has no [secure_aggregation]", err=True)
    elif signed is None:
        typer.echo("no roster was accepted yet; fedpriv worker roster accept FILE", err=True)
    else:
        typer.echo(_in_words(signed))


@app.command("accept")
def accept(
    file: Annotated[Path, typer.Argument(help="The roster that the administrator signed.")],
    *,
    config: Config = Path("worker.toml"),
) -> None:
    """Accept a roster: check its signature, that it is newer than the last, and that this worker is on it.

    Exit code 3 if the pinned administrator did not sign it, 4 if it is no newer or this worker is not on it.
    """
    settings = load_config(config)
    section = _section(settings, config)
    identity = own_identity(settings.worker.state, SystemEntropy())
    offered = load_roster(file)
    accepted = AcceptedRoster(settings.worker.state, section.administrator)
    accepted.accept(offered, WorkerName(settings.worker.name), identity)
    typer.echo(_in_words(offered))


def _section(settings: WorkerConfig, config: Path) -> SecureAggregation:
    if settings.secure_aggregation is None:
        raise UsageError(
            f"{config} pins no administrator; add [secure_aggregation] with administrator = the key that they gave you"
        )
    return settings.secure_aggregation


def _facts(signed: SignedRoster | None) -> dict[str, Any] | None:
    if signed is None:
        return None
    roster = signed.roster
    workers = [{"name": each.name, "key": key_text(each.key), "version": each.version} for each in roster.members]
    return {"federation": roster.federation, "version": roster.version, "workers": workers}


def _in_words(signed: SignedRoster) -> str:
    roster = signed.roster
    lines = [f"federation {roster.federation}, version {roster.version}, {len(roster.members)} workers"]
    return "\n".join((*lines, *(f"  {each.name}={key_text(each.key)}" for each in roster.members)))
