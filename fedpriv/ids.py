"""Names that travel: distinct types so that a worker's name is never passed for a data set's; and what peers may be."""

from __future__ import annotations

import re
from enum import Enum
from typing import NewType

from fedpriv.errors import UsageError

WorkerName = NewType("WorkerName", str)
DatasetName = NewType("DatasetName", str)
PeerName = NewType("PeerName", str)
JobId = NewType("JobId", str)
PlanDigest = NewType("PlanDigest", bytes)

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


class Role(Enum):
    """What a certificate says its holder may be."""

    WORKER = "worker"
    COORDINATOR = "coordinator"
    RESEARCHER = "researcher"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"
    REGISTRAR = "registrar"


def checked_name(kind: str, name: str) -> str:
    """Return `name` if it can stand in a certificate, a file name and a ledger entry; raise `UsageError` if not."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{kind} name {name!r} is not usable: 1 to 63 of a-z, 0-9, '.', '_' and '-', "
            "beginning and ending with a letter or digit"
        )
    return name
