"""A publication that fails is logged by its kind, and leaves nothing behind for asyncio to print."""

from __future__ import annotations

import asyncio
import gc
import logging

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv_worker.journal import Journal
from fedpriv_worker.publishing import Publisher


def test_a_publication_that_finds_no_thread_any_more_is_logged_and_nobody_else_hears_of_it(caplog) -> None:
    """So it is when a process ends in which virtual workers were not closed."""
    unretrieved: list[object] = []

    async def ending() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: unretrieved.append(context["message"]))
        journal = Journal.in_memory(worker=WorkerName("alice"), clock=SystemClock(), entropy=SystemEntropy())
        publisher = Publisher(journal)
        await loop.shutdown_default_executor()
        await asyncio.wait({publisher.soon()})
        gc.collect()
        await publisher.close()

    with caplog.at_level(logging.ERROR, "fedpriv.worker"):
        asyncio.run(ending())
    gc.collect()
    assert unretrieved == []
    assert "the ledger's checkpoint is not published: RuntimeError" in caplog.text
