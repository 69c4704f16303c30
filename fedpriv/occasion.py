"""What is going on, as ids: which peer, session, request, round. Log records carry them, so that lines fit together.

Ids name who and which, never a value. They follow the task that set them, through awaits and `asyncio.to_thread`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_IDS: ContextVar[Mapping[str, str | int]] = ContextVar("fedpriv_ids", default={})  # noqa: B039 - never changed in place


def ids() -> Mapping[str, str | int]:
    """Return what is going on here, by kind: "peer", "session", "request", "round", "worker"."""
    return _IDS.get()


@contextmanager
def about(**more: str | int) -> Iterator[None]:
    """Say what the block is about, beside what is known already."""
    token = _IDS.set({**_IDS.get(), **more})
    try:
        yield
    finally:
        _IDS.reset(token)
