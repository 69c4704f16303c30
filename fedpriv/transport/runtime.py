"""One background thread that owns the asyncio loop and every gRPC object of the process.

Public calls are synchronous: they hand a coroutine over and block on its result, so they work in a notebook that has
a loop of its own. The thread starts with the first call and ends with the process, or with `close`.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, Generic, TypeVar

from fedpriv.errors import PeerLost, UsageError

T = TypeVar("T")

_STOP_SECONDS = 10.0


class Running(Generic[T]):
    """A coroutine on another thread's loop; it is done when it has ended, cleaning up included."""

    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> None:
        self._loop = loop
        self._ended: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._begin, coroutine)

    def result(self, timeout_seconds: float | None = None) -> T:
        """Return what the coroutine returned, or raise what it raised; `TimeoutError` if it still runs."""
        return self._ended.result(timeout_seconds)

    def done(self) -> bool:
        """Whether the coroutine has ended."""
        return self._ended.done()

    def cancel(self) -> None:
        """Cancel the coroutine and wait, for a while, until it has cleaned up."""
        self._loop.call_soon_threadsafe(self._cancel)
        wait((self._ended,), _STOP_SECONDS)

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(coroutine)
        self._task.add_done_callback(self._settle)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _settle(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._ended.cancel()
            self._ended.set_running_or_notify_cancel()  # wakes those who `wait`
        elif (error := task.exception()) is not None:
            self._ended.set_exception(error)
        else:
            self._ended.set_result(task.result())


class Runtime:
    """A loop in a daemon thread; `run` may be called from any thread but that one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_seconds: float | None = None) -> T:
        """Run `coroutine` on the loop and return its result; raise `PeerLost` after `timeout_seconds`.

        Ctrl-C, and any other interruption of the wait, cancels the coroutine and lets it clean up first.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError("a blocking fedpriv call was made from fedpriv's own thread; call it from another thread")
        task = self.start(coroutine)
        try:
            return task.result(timeout_seconds)
        except TimeoutError:
            if task.done():
                raise
            task.cancel()
            raise PeerLost(f"no answer within {timeout_seconds:g} s; the work was cancelled") from None
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Running[T]:
        """Run `coroutine` on the loop without waiting for it."""
        return Running(self._started(), coroutine)

    def close(self) -> None:
        """Cancel what still runs, let it clean up, and end the thread; a later call starts a new one."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_SECONDS)

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_live, args=(self._loop,), name="fedpriv", daemon=True)
                self._thread.start()
            return self._loop


def _live(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_clean_up())
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


async def _clean_up() -> None:
    """Cancel every task but this one; those that their cleaning up starts may run to their end."""
    this = asyncio.current_task()
    for task in asyncio.all_tasks() - {this}:
        task.cancel()
    async with asyncio.timeout(_STOP_SECONDS / 2):
        while others := asyncio.all_tasks() - {this}:
            await asyncio.wait(others)


runtime = Runtime()
"""The one of this process."""

atexit.register(runtime.close)
