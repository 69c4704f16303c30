"""`fedpriv doctor`: whether a worker, a coordinator or a researcher on this machine can do its part; and the mends.

It looks and changes nothing. Exit code 0 if nothing failed, else that of the first failure: 2 for what is wrong on this
machine, 5 for a peer that is not reached.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import typer

from fedpriv import settings
from fedpriv.cli.terminal import harmless
from fedpriv.clock import SystemClock
from fedpriv.errors import FedprivError, UsageError
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.diagnosis import (
    Check,
    check_credentials,
    check_disk,
    check_listening,
    check_peer,
    check_registrar,
    failed,
)
from fedpriv.transport.rotation import CredentialFiles, CredentialPaths

_SHOWN = ("torch", "grpcio", "protobuf", "cryptography", "numpy")
_BOUND = re.compile(r"(>=|<)\s*([0-9.]+)")
_SIGNS = {"ok": "ok      ", "warning": "warning ", "failed": "FAILED  "}
_CLOCK = SystemClock()


def doctor(
    config: Path | None, job: Path | None, to: str | None, credentials: Path | None, *, as_json: bool
) -> NoReturn:
    """Check what the options name, print what was found, and exit."""
    chosen = [each for each in (config, job, to) if each is not None]
    if not chosen and Path("worker.toml").exists():
        config = Path("worker.toml")
    elif len(chosen) != 1:
        raise UsageError(
            "say what to look at: --config worker.toml, --job job.toml, or --to HOST:PORT --credentials DIR"
        )
    if config is not None:
        found = _worker(config)
    elif job is not None:
        found = _job(job)
    else:
        found = _peer(to or "", credentials)
    sys.exit(_printed(found, as_json=as_json))


def _worker(config: Path) -> Iterator[Check]:
    from fedpriv_worker.config import load_config  # noqa: PLC0415 - brings torch

    yield from _versions()
    try:
        settled = load_config(config)
    except FedprivError as error:
        yield failed("configuration", error)
        return
    yield Check("configuration", "ok", f"{config}: worker {settled.worker.name}, {len(settled.datasets)} data sets")
    yield check_disk(settled.worker.state)
    tls = settled.tls
    paths = CredentialPaths(tls.ca, tls.certificate, tls.key)
    yield from _reached(
        paths, None if settled.dial is None else settled.dial.address, tls.registrar, name=settled.worker.name
    )
    if settled.listen is not None:
        yield check_listening(settled.listen.address)


def _job(job: Path) -> Iterator[Check]:
    from fedpriv_coordinator.config import load_job  # noqa: PLC0415 - brings torch

    yield from _versions()
    try:
        settled = load_job(job)
    except FedprivError as error:
        yield failed("configuration", error)
        return
    yield Check("configuration", "ok", f"{job}: {len(settled.workers.names)} workers, {settled.rounds} rounds")
    yield check_disk(settled.state)
    tls = settled.tls
    yield from _reached(CredentialPaths(tls.ca, tls.certificate, tls.key), None, tls.registrar)
    yield check_listening(settled.listen)


def _peer(to: str, credentials: Path | None) -> Iterator[Check]:
    if credentials is None:
        raise UsageError("--to needs --credentials, the folder with ca.pem, certificate.pem and key.pem")
    address = settings.address(to, "--to")
    yield from _versions()
    folder = credentials
    yield from _reached(
        CredentialPaths(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem"), address, None
    )


def _reached(paths: CredentialPaths, address: str | None, registrar: str | None, *, name: str = "") -> Iterator[Check]:
    """Yield what is to be said of credentials, and of whom they are to be shown to."""
    try:
        own: Credentials = CredentialFiles(paths, name=name or None).current()
    except FedprivError as error:
        yield failed("certificate", error)
        return
    yield from check_credentials(own, paths.key, _CLOCK, renews=registrar is not None)
    if address is not None:
        yield from check_peer(address, own, _CLOCK)
    if registrar is not None:
        yield check_registrar(registrar, _CLOCK)


def _versions() -> Iterator[Check]:
    """Yield whether what fedpriv needs is installed in a version that it was made for."""
    try:
        own, needed = importlib.metadata.version("fedpriv"), importlib.metadata.requires("fedpriv") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("versions", "warning", "fedpriv is not installed, it runs from its sources", "pip install fedpriv")
        return
    wrong = [text for text in needed if "extra ==" not in text and not _is_met(text)]
    shown = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _SHOWN if _version_of(name))
    python = ".".join(map(str, sys.version_info[:3]))
    found = f"fedpriv {own}, Python {python}, {shown}"
    if wrong:
        yield Check("versions", "failed", found, f"install {', '.join(wrong)}", 2)
    else:
        yield Check("versions", "ok", found)


def _is_met(requirement: str) -> bool:
    """Return whether an installed version lies within the bounds of one line of our own requirements."""
    name = re.split(r"[^A-Za-z0-9_.-]", requirement, maxsplit=1)[0]
    version = _version_of(name)
    if not version:
        return False
    bounds = [(sign, _numbers(bound)) for sign, bound in _BOUND.findall(requirement)]
    return all(_numbers(version) >= bound if sign == ">=" else _numbers(version) < bound for sign, bound in bounds)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3])


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _printed(found: Iterator[Check], *, as_json: bool) -> int:
    """Print checks as they are made and return the exit code."""
    checks: list[Check] = []
    for check in found:
        checks.append(check)
        if not as_json:
            typer.echo(f"{_SIGNS[check.state]}{check.name:<14}{harmless(check.found)}")
            if check.mend:
                typer.echo(f"{'':<22}-> {harmless(check.mend)}")
    code = next((check.exit_code for check in checks if check.state == "failed"), 0)
    if as_json:
        rows = [{key: value for key, value in asdict(check).items() if key != "exit_code"} for check in checks]
        typer.echo(json.dumps({"ok": code == 0, "checks": rows}))
    return code
