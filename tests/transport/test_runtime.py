"""One thread owns the loop; everybody else blocks on it and gets results, errors or a clean end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from fedpriv.errors import PeerLost, UsageError
from fedpriv.transport.runtime import Runtime


@pytest.fixture
def runtime():
    made = Runtime()
    yield made
    made.close()


async def where() -> str:
    return threading.current_thread().name


async def fails() -> None:
    raise ValueError("as told")


def test_coroutines_run_on_the_one_thread(runtime: Runtime) -> None:
    assert {runtime.run(where()) for _ in range(3)} == {"fedpriv"}


def test_errors_come_back_to_the_caller(runtime: Runtime) -> None:
    with pytest.raises(ValueError, match="as told"):
        runtime.run(fails())


def test_a_timeout_of_the_coroutine_itself_stays_what_it_is(runtime: Runtime) -> None:
    async def own() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        runtime.run(own(), timeout_seconds=5)


def test_it_works_beside_a_running_loop(runtime: Runtime) -> None:
    async def notebook() -> str:
        return runtime.run(where())

    assert asyncio.run(notebook()) == "fedpriv"


def test_blocking_calls_from_its_own_thread_are_refused(runtime: Runtime) -> None:
    async def inner() -> str:
        return runtime.run(where())

    with pytest.raises(UsageError, match="own thread"):
        runtime.run(inner())


def test_a_call_that_takes_too_long_is_cancelled_and_cleans_up(runtime: Runtime) -> None:
    cleaned = threading.Event()

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    with pytest.raises(PeerLost, match=r"within 0\.01 s"):
        runtime.run(forever(), timeout_seconds=0.01)
    assert cleaned.is_set()


def test_an_interrupted_wait_cancels_the_work_first(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    started = threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cleaned up")

    task = runtime.start(work())
    started.wait(5)
    task.cancel()
    events.append("cancelled")
    assert events == ["cleaned up", "cancelled"]
    assert task.done()


def test_closing_lets_everything_clean_up_and_a_later_call_starts_anew(runtime: Runtime) -> None:
    cleaned = threading.Event()

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async def spawn() -> None:
        asyncio.get_running_loop().create_task(background()).set_name("background")
        await asyncio.sleep(0)

    runtime.run(spawn())
    runtime.close()
    runtime.close()
    assert cleaned.is_set()
    assert runtime.run(where()) == "fedpriv"


@pytest.mark.slow
def test_a_process_ends_quietly_with_links_still_open() -> None:
    program = """
import asyncio
from fedpriv.transport.authority import Authority
from fedpriv.transport.dial import dial
from fedpriv.transport.listen import Listener
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Role
authority = Authority.create()
async def attached(link):
    await link.receive()
listener = Listener("127.0.0.1:0", authority.issue("w", Role.WORKER), attached)
runtime.run(listener.start())
link = runtime.run(dial(listener.address, authority.issue("c", Role.COORDINATOR)))
waiting = runtime.start(link.receive())
idle = runtime.run(dial(listener.address, authority.issue("d", Role.COORDINATOR)))
print("ready")
"""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ready\n", "")
