"""How long a worker takes to join, to connect, and to come back after its coordinator did: real processes on loopback.

One JSON line: seconds from `fedpriv worker join` to its "ready" (limit 5), from `fedpriv worker start` to its first
link, and from the coordinator's return to the worker's next link (limit 3 at the default pauses), each the worst of
several; and the load of the machine at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fedpriv.ids import Role
from fedpriv.transport.authority import Authority
from fedpriv.transport.listen import Listener
from fedpriv.transport.stream import StreamLink

FEDPRIV = (sys.executable, "-m", "fedpriv.cli.app")
DATASET = """
[[dataset]]
name = "toy"
path = "rows.csv"
target = "y"
"""


class Coordinator:
    """A port that takes links, leaves and comes back; `next_link` waits for the next one."""

    def __init__(self, folder: Path) -> None:
        credentials = Authority.load(folder).issue("coordinator-1", Role.COORDINATOR)
        self._credentials, self._links = credentials, asyncio.Queue[float]()
        self._listener: Listener | None = None
        self.port = 0

    async def open(self) -> None:
        self._listener = Listener(f"127.0.0.1:{self.port}", self._credentials, self._attached)
        await self._listener.start()
        self.port = self._listener.port

    async def close(self) -> None:
        assert self._listener is not None
        await self._listener.close()

    async def next_link(self) -> float:
        return await self._links.get()

    async def _attached(self, link: StreamLink) -> None:
        self._links.put_nowait(time.monotonic())
        await link.receive()
        await asyncio.Event().wait()  # a link that lives, as while a round is under way


def run(*words: str | Path) -> str:
    return subprocess.run([*FEDPRIV, *map(str, words)], check=True, capture_output=True, text=True).stdout.strip()


def joined(folder: Path, registrar: str, port: int, number: int) -> tuple[float, Path]:
    """Return how long one worker took from its token to "ready", and its configuration."""
    name = f"worker-{number}"
    token = run("certs", "join-token", "--worker", name, "--ca", folder, "--registrar", registrar)
    began = time.monotonic()
    config = Path(run("worker", "join", token, "--coordinator", f"127.0.0.1:{port}", "--folder", folder / name))
    took = time.monotonic() - began
    (config.parent / "rows.csv").write_text("a,b,y\n" + "1.0,2.0,true\n2.0,1.5,false\n" * 8)
    config.write_text(config.read_text() + DATASET)
    return took, config


async def returns(coordinator: Coordinator, config: Path, outages: Sequence[float]) -> tuple[float, list[float]]:
    """Return how long a worker took to its first link, and to the next after each outage of so many seconds."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(*FEDPRIV, "worker", "start", "--config", config, stderr=-3)
    try:
        first = await coordinator.next_link() - began
        took = []
        for seconds in outages:
            await asyncio.sleep(6)  # a link that has settled, as those are that a restart ends
            await coordinator.close()
            await asyncio.sleep(seconds)
            await coordinator.open()
            opened = time.monotonic()
            took.append(await coordinator.next_link() - opened)
        return first, took
    finally:
        process.terminate()
        await process.wait()


async def measured(joins: int, outages: Sequence[float]) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run("certs", "ca", folder)
        coordinator = Coordinator(folder)
        await coordinator.open()
        serving = await asyncio.create_subprocess_exec(
            *FEDPRIV, "certs", "serve", "--ca", folder, "--listen", "127.0.0.1:0", stderr=asyncio.subprocess.PIPE
        )
        assert serving.stderr is not None
        registrar = (await serving.stderr.readline()).decode().rpartition(" ")[2].strip()
        took = [await asyncio.to_thread(joined, folder, registrar, coordinator.port, each) for each in range(joins)]
        first, again = await returns(coordinator, took[0][1], outages)
        await coordinator.close()
        serving.terminate()
        await serving.wait()
    seconds = [each for each, _ in took]
    return {
        "join_seconds": round(max(seconds), 2), "join_limit": 5.0, "joins": joins,
        "start_to_link_seconds": round(first, 2),
        "reconnect_seconds": round(max(again), 2), "reconnect_limit": 3.0,
        "reconnects": [round(each, 2) for each in again], "outages": list(outages),
        "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
    }  # fmt: skip  # what was measured beside its limit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joins", type=int, default=3)
    parser.add_argument("--outages", type=float, nargs="+", default=[0.5, 2, 5, 10, 20], help="seconds")
    options = parser.parse_args()
    print(json.dumps(asyncio.run(measured(options.joins, options.outages))))


if __name__ == "__main__":
    main()
