"""Which fedpriv this is, and what two sides that do not understand each other are to do about it."""

from __future__ import annotations

import importlib.metadata
import re

from fedpriv.legible import legible
from fedpriv.wire.messages import PROTOCOL

_LONGEST = 40
_VERSION = re.compile(r"fedpriv (\d+)\.(\d+)")


def _own() -> str:
    try:
        return f"fedpriv {importlib.metadata.version('fedpriv')}"
    except importlib.metadata.PackageNotFoundError:
        return "fedpriv"


SOFTWARE = _own()
"""What we call ourselves in a hello."""


def mismatch(protocol: str, software: str) -> str | None:
    """Return what to do about a peer that speaks another protocol, None for ours; its words are made legible."""
    if protocol == str(PROTOCOL):
        return None
    theirs = legible(software[:_LONGEST]) or "another version of fedpriv"
    spoken = legible(protocol[:_LONGEST])
    newer = spoken.isdecimal() and int(spoken) > PROTOCOL
    older = "this side is the older one: update fedpriv here" if newer else "update fedpriv there"
    return (
        f"the other side ({theirs}) speaks protocol {spoken}, this side ({SOFTWARE}) speaks protocol {PROTOCOL}; "
        f"{older}, so that both have the same version"
    )
