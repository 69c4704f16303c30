"""What watches a process, as its file's [operations] says: health and metrics, for a worker and for a run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from fedpriv.cli.logs import say
from fedpriv.settings import Operations
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.health import LINK, PROCESS, Health
from fedpriv.transport.metrics import Metrics, process_facts
from fedpriv.transport.runtime import runtime
from fedpriv.transport.tally import tally


@asynccontextmanager
async def watched(
    wanted: Operations, state: Path, credentials: CredentialsSource, serves: Callable[[], bool]
) -> AsyncIterator[None]:
    """Answer on the ports that are wanted, if any; `serves` says whether the process is up and not going down."""
    async with AsyncExitStack() as stack:
        if wanted.health is not None:
            states = {PROCESS: serves, LINK: lambda: tally.links_opened > tally.links_closed}
            health = await stack.enter_async_context(Health(wanted.health, states))
            say(f"health answers on port {health.port} of this machine")
        if wanted.metrics is not None:
            facts = process_facts(state, credentials, serves)
            metrics = stack.enter_context(Metrics(wanted.metrics, facts))
            say(f"metrics answer on port {metrics.port} of this machine")
        yield


@contextmanager
def watched_run(wanted: Operations, state: Path, credentials: CredentialsSource) -> Iterator[None]:
    """Do the same beside a run, on the runtime's thread: it serves for as long as it lasts."""
    watching = watched(wanted, state, credentials, lambda: True)
    runtime.run(watching.__aenter__())
    try:
        yield
    finally:
        runtime.run(watching.__aexit__(None, None, None))
