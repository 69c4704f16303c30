"""A worker in this process that dials a coordinator over gRPC with TLS, as one on another host does.

For examples and tests of what networks do: it isolates nothing from this process, but what passes between it and the
coordinator goes through real sockets. Whoever holds it can end it without a word, as a crash would, and begin it again
from the same state folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import PeerLost
from fedpriv.ids import WorkerName, checked_name
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side
from fedpriv.transport.runtime import Running, runtime
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import Journal
from fedpriv_worker.worker import Worker, serve_quietly

PAUSE_SECONDS = 0.1


class DiallingWorker:
    """A worker `name` with `datasets` that keeps a link to the coordinator at `address` until it is closed.

    Its ledger lies in `state`: a coordinator turns away a worker whose ledger began anew.
    """

    def __init__(
        self, name: str, datasets: Sequence[Dataset], address: str, *, credentials: Credentials, state: str | Path
    ) -> None:
        self.name = WorkerName(checked_name("worker", name))
        self._datasets, self._address, self._credentials, self._state = datasets, address, credentials, Path(state)
        self._worker, self._serving = self._begun()

    def close(self) -> None:
        """End every link and close the ledger; what was under way is lost to the coordinator."""
        runtime.run(self._worker.close())
        self._serving.result()

    def restart(self) -> None:
        """End as a crash would, and begin again from what is on disk."""
        self.close()
        self._worker, self._serving = self._begun()

    def _begun(self) -> tuple[Worker, Running[None]]:
        journal = Journal.open(self._state, worker=self.name, clock=SystemClock(), entropy=SystemEntropy())
        worker = Worker(
            self.name,
            self._datasets,
            executor=InProcessExecutor(self._datasets),
            journal=journal,
            credentials=self._credentials,
        )
        return worker, runtime.start(self._serve(worker))

    async def _serve(self, worker: Worker) -> None:
        """Dial, and dial again when a link ends: the coordinator may not have missed the last one yet."""
        while not worker.closing:
            with suppress(PeerLost):
                await serve_quietly(worker, await dial(self._address, self._credentials), Side.DIALER)
            await asyncio.sleep(PAUSE_SECONDS)
