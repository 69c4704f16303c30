"""`fedpriv health`: one question to a process on this machine, and its answer as an exit code."""

from __future__ import annotations

import typer

from fedpriv import settings
from fedpriv.errors import PeerLost
from fedpriv.transport.health import is_serving


def health(at: str, service: str) -> None:
    """Print whether the process serves; raise `PeerLost` if it does not, or does not answer."""
    if not is_serving(settings.loopback_address(at, "HOST:PORT"), service):
        raise PeerLost(f"the process at {at} does not serve; it is starting, or going down, or has no link")
    typer.echo("serving")
