"""Durable entries a second through a worker's journal beside bare write+fsync, and how fast a ledger verifies.

Prints one JSON line. Appends: medians of interleaved runs on the same disk, of one thread that writes entry-sized
records to one file and flushes each, of one writer through the journal, and of 64 threads through it; `ratio` is to
the bare file. Each message is an update of a small model, as a worker encodes it, 31 numbers and 100 kB in turn for
the 64 threads. Verification: seconds and peak memory of a child process over a ledger that is built first.

    python benchmarks/ledger.py --json [--quick] [--entries N] [--folder WHERE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import Checkpoint, SigningKey, origin_of, sign_checkpoint
from fedpriv.ledger.entries import Draft, Entry, encode_entry
from fedpriv.ledger.log import Log
from fedpriv.sealed import Envelope
from fedpriv.storage.tiles import TileFolder
from fedpriv.updates import TensorSet
from fedpriv.wire.codec import encode
from fedpriv.wire.messages import Update
from fedpriv_worker.journal import Journal

WORKER = WorkerName("st-elsewhere")
THREADS = 64
MB = 1_000_000
VERIFY = """
import json, sys, time
from pathlib import Path
from fedpriv.storage.verification import verify_ledger
begun = time.perf_counter()
report = verify_ledger(Path(sys.argv[1]), key=sys.argv[2])
seconds = time.perf_counter() - begun
lines = Path("/proc/self/status").read_text().splitlines()  # getrusage would count the parent's pages as well
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
print(json.dumps({"entries": report.entries, "seconds": seconds, "peak": peak}))
"""


def update(numbers: int) -> Envelope:
    """Return an update of a linear model with `numbers` parameters, encoded."""
    tensors = TensorSet({"weight": torch.ones(1, numbers - 1), "bias": torch.ones(1)})
    return encode(Update(7, 3, 120.0, {"loss": 0.25, "accuracy": 0.96}, tensors))


def draft(envelope: Envelope, number: int) -> Draft:
    """Return the record of an update as the door writes it."""
    return Draft(
        peer="coordinator-1",
        method="Attach",
        kind="update",
        bytes=len(envelope.header) + envelope.payload_bytes,
        labels=("breast-cancer/st-elsewhere",),
        policy="plain-update:0123456789abcdef metrics:fedcba9876543210",
        plan="5a" * 32,
        model="c3" * 32,
        round=number,
        purpose="benchmark",
    )


# --- appends ----------------------------------------------------------------------------------------------------------


def per_second(count: int, work: Callable[[], None]) -> float:
    """Return how many of `count` pieces of `work` were done a second."""
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def bare(folder: Path, record: bytes, count: int) -> float:
    """Append `record` to one file and flush it, `count` times over."""

    def work() -> None:
        with (folder / "bare").open("ab", buffering=0) as file:
            for _ in range(count):
                file.write(record)
                os.fsync(file.fileno())

    return per_second(count, work)


def sequential(journal: Journal, envelope: Envelope, count: int) -> float:
    """Append from one thread."""

    def work() -> None:
        for number in range(count):
            journal.append(draft(envelope, number), envelope.header, envelope.payload)

    return per_second(count, work)


def concurrent(journal: Journal, envelope: Envelope, each: int) -> float:
    """Append from 64 threads that wait for nobody but the disk, `each` times per thread."""
    start = threading.Barrier(THREADS + 1)

    def work() -> None:
        start.wait()
        for number in range(each):
            journal.append(draft(envelope, number), envelope.header, envelope.payload)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()

    def together() -> None:
        start.wait()
        for thread in threads:
            thread.join()

    return per_second(THREADS * each, together)


def appends(folder: Path, repeats: int, count: int) -> dict[str, float]:
    """Return medians of interleaved runs, and their ratios to the bare file."""
    journal = Journal.open(folder / "state", worker=WORKER, clock=SystemClock(), entropy=SystemEntropy())
    small, large = update(31), update(25_000)
    try:
        receipt = journal.append(draft(small, 0), small.header, small.payload)
        record = encode_entry(receipt.entry)
        rates: dict[str, list[float]] = {key: [] for key in ("bare", "one_writer", "64_writers", "64_writers_100kB")}
        for _ in range(repeats):
            rates["bare"].append(bare(folder, record, count))
            rates["one_writer"].append(sequential(journal, small, count))
            rates["64_writers"].append(concurrent(journal, small, max(4, count // 16)))
            rates["64_writers_100kB"].append(concurrent(journal, large, max(4, count // 16)))
    finally:
        journal.close()
    medians = {key: statistics.median(values) for key, values in rates.items()}
    ratios = {f"ratio_{key}": round(rate / medians["bare"], 3) for key, rate in medians.items() if key != "bare"}
    return {
        "entry_bytes": len(record),
        **{f"{key}_per_second": round(rate) for key, rate in medians.items()},
        **ratios,
    }


# --- verification -----------------------------------------------------------------------------------------------------


def entries(count: int) -> Iterator[bytes]:
    """Yield canonical entries, no two alike."""
    envelope = update(31)
    for seq in range(count):
        yield encode_entry(Entry(draft(envelope, seq // 10), WORKER, seq, 1_767_225_600_000 + seq, f"{seq:064x}"))


def verification(folder: Path, count: int) -> dict[str, float]:
    """Build a ledger of `count` entries and verify it in a process of its own."""
    key = SigningKey(origin_of(WORKER), SystemEntropy().random_bytes(32))
    files, log = TileFolder(folder / "built", durable=False), Log()
    begun = time.perf_counter()
    files.create(str(key.verifier))
    files.extend(log, entries(count), [])
    files.publish(sign_checkpoint(Checkpoint(key.name, log.size, log.root()), key))
    built = time.perf_counter() - begun
    command = [sys.executable, "-c", VERIFY, str(files.path), str(key.verifier)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {
        "entries": found["entries"],
        "build_seconds": round(built, 2),
        "verify_seconds": round(found["seconds"], 2),
        "verify_peak_mb": round(found["peak"] / MB, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line (the default is the same)")
    parser.add_argument("--quick", action="store_true", help="20,000 entries and three short runs")
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries to verify; 0 leaves that out")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--count", type=int, default=400, help="appends of one writer in each run")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a real disk, not memory")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.entries, arguments.repeats, arguments.count = min(arguments.entries, 20_000), 3, 100
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        figures = appends(Path(folder), arguments.repeats, arguments.count)
        if arguments.entries:
            figures |= verification(Path(folder), arguments.entries)
    print(json.dumps({"benchmark": "ledger", "cores": os.cpu_count(), **figures}))


if __name__ == "__main__":
    main()
