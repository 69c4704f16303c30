"""What to raise where a worker gave no value: which limit or rule it was, how much is granted, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fedpriv.errors import FedprivError, QuotaExceeded, ReleaseDenied, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.labels import Label
from fedpriv.wire.messages import ErrorCode
from fedpriv.wire.values import Granted

_OVER: Mapping[str, tuple[Callable[[Granted], str], str, str]] = {
    ErrorCode.OVER_QUOTA.name: (
        lambda granted: f"{granted.memory / 2**30:,.3g} GiB of memory at once in all your sessions",
        "free values with del, or use smaller ones",
        "memory_gib",
    ),
    ErrorCode.OVER_WORK.name: (
        lambda granted: f"{granted.work:.3g} elementary operations for one operation",
        "do it in parts",
        "work",
    ),
    ErrorCode.OVER_VALUES.name: (
        lambda granted: f"{granted.values:,} values at once in a session",
        "free some with del, or compute them within a function under @fp.plan",
        "values",
    ),
}
"""By code: what is granted, what to do, and what the owner's limit is called."""


def explained(
    refusal: WorkerRefused, what: str, worker: WorkerName, label: Label, granted: Granted | None
) -> FedprivError:
    """Return what to raise where `worker` did not give the value `what`, with what to do about it."""
    if refusal.code == ErrorCode.RELEASE_DENIED.name:
        if label.is_public:
            return ReleaseDenied(
                f"{worker} keeps nothing for you, {what} neither: no rule of its owner names you; ask them for one"
            )
        names = ", ".join(sorted(str(origin.dataset) for origin in label.origins))
        return ReleaseDenied(
            f"{what} stays at {worker}: it derives from {names}, and no rule lets it out; ask its owner with "
            'request("why"), aggregate it under a rule, or try the program on the mock'
        )
    if refusal.code == ErrorCode.OVER_STEPS.name:
        return QuotaExceeded(
            f"{what} took more steps than its owner can read; trace the computation with @fp.plan and ask for what "
            "the plan gives"
        )
    if refusal.code == ErrorCode.OVER_REQUESTS.name:
        return QuotaExceeded(
            f"the owner of {worker} has too many of your requests to answer; ask again when some are answered"
        )
    if refusal.code in _OVER and granted is not None:
        limit, mend, name = _OVER[refusal.code]
        at = f"{refusal.operation} (operation {refusal.step})" if refusal.operation else "what was asked"
        return QuotaExceeded(
            f"{worker} grants {limit(granted)}, and {at} goes over that; {mend}, or ask its owner for more ({name} "
            "under [limits] in worker.toml)"
        )
    return refusal
