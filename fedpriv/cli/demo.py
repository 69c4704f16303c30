"""`fedpriv demo`: the whole promise in one command, on 569 real patients.

Every worker is a process of its own that dials the coordinator over mutual TLS, holds its own share of the rows, and
lets out what its `worker.toml` says. At the end each ledger is verified from its files, as a stranger would.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from fedpriv.cli.demo_data import DATASET, Share, central_baseline, network, shares, test_rows, write_worker
from fedpriv.cli.display import RoundDisplay, egress_table
from fedpriv.errors import UsageError, VerificationFailed, nearest
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.standardize import Standardize
from fedpriv.storage.verification import verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role
from fedpriv_coordinator.experiment import Egress, LedgerSummary, Result, RoundRecord
from fedpriv_coordinator.federation import Federation

COORDINATOR = "coordinator"
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
STOP_SECONDS = 15.0
LOCAL = LocalTraining(epochs=2, batch_size=16, optimizer=SGD(lr=0.1))


@dataclass(frozen=True, slots=True)
class Kill:
    """End this worker's process in that round."""

    worker: str
    round: int


@dataclass(slots=True)
class Fleet:
    """The worker processes of one demo; none outlives it."""

    processes: dict[str, subprocess.Popen[bytes]]

    def kill_in(self, kill: Kill) -> Callable[[RoundRecord], None]:
        """Return an observer of rounds that kills the worker in the middle of its round.

        Stopped before the round begins, it is asked and cannot answer; killed a moment later, it is lost.
        """

        def observe(record: RoundRecord) -> None:
            if record.number == kill.round - 1:
                self.stop(kill.worker)

        return observe

    def stop(self, worker: str) -> None:
        """Freeze a worker now and kill it shortly."""
        process = self.processes[worker]
        process.send_signal(signal.SIGSTOP)
        threading.Timer(0.3, process.kill).start()

    def close(self) -> None:
        """Ask every process to stop, and make those stop that do not."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def demo(
    *,
    plain: bool,
    workers: int,
    rounds: int,
    kill: str | None,
    quorum: int | None,
    as_json: bool,
    run: Path | None,
    seed: int,
) -> None:
    """Run the demo and print what left each worker; `plain` is the only mode of this version."""
    started = time.monotonic()
    folder = run or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-demo"
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder with --run")
    names = [NAMES[index] if index < len(NAMES) else f"worker-{index + 1}" for index in range(workers)]
    killing = None if kill is None else _parse_kill(kill, names, rounds)
    held = shares(workers, seed=seed)
    with RoundDisplay(rounds, title="demo") as display:
        _explain(display.note, names, held, plain=plain)
        result, baseline = _train(folder, names, held, display, rounds, killing, quorum, seed)
    ledgers = tuple(_verified(folder / "workers" / name / "state" / "ledger", name) for name in names)
    history = replace(result.history, baseline=baseline)
    result = replace(result, history=history, ledgers=ledgers, run=folder)
    result.save(folder)
    _report(result, baseline, time.monotonic() - started, as_json=as_json)


def _train(
    folder: Path,
    names: Sequence[str],
    held: Sequence[Share],
    display: RoundDisplay,
    rounds: int,
    kill: Kill | None,
    quorum: int | None,
    seed: int,
) -> tuple[Result, dict[str, float]]:
    authority = Authority.create()
    credentials = authority.issue(COORDINATOR, Role.COORDINATOR)
    fleet = Fleet({})

    def start_workers(address: str) -> None:
        for name, share in zip(names, held, strict=True):
            config = write_worker(folder, name, share, address, authority, COORDINATOR)
            fleet.processes[name] = _start(config)

    with ExitStack() as stack:
        stack.callback(fleet.close)
        federation = stack.enter_context(
            Federation.listen(
                "127.0.0.1:0", credentials=credentials, workers=names, on_note=display.note, on_listening=start_workers
            )
        )
        found = federation.statistics(DATASET, purpose="demo")
        standardize = Standardize(found.mean, found.deviation)
        features, target = test_rows(seed=seed)

        def evaluate(model: nn.Module) -> dict[str, float]:
            return measure(model, features, target)

        observers: list[Callable[[RoundRecord], None]] = [display.on_round]
        if kill is not None:
            if kill.round == 1:
                fleet.stop(kill.worker)
            observers.append(fleet.kill_in(kill))
        result = federation.fit(
            network(standardize, seed=seed),
            dataset=DATASET,
            loss=F.binary_cross_entropy_with_logits,
            rounds=rounds,
            local=LOCAL,
            evaluate=evaluate,
            worker_metrics=("loss", "accuracy"),
            on_round=lambda record: [observe(record) for observe in observers],
            seed=seed,
            purpose="demo",
            name="demo",
            quorum=quorum or max(1, len(names) - 1),
            deadline_seconds=60.0,
            run=folder,
        )
    baseline = measure(central_baseline(standardize, held, rounds, LOCAL, seed=seed), features, target)
    return result, baseline


def measure(model: nn.Module, features: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Return loss and accuracy of `model` on raw columns."""
    model.eval()
    with torch.inference_mode():
        prediction = model(features)
        loss = float(F.binary_cross_entropy_with_logits(prediction, target))
        return {"loss": loss, "accuracy": float(((prediction > 0).float() == target).float().mean())}


def _start(config: Path) -> subprocess.Popen[bytes]:
    """Start one worker process; what it says goes to worker.log beside its configuration."""
    with (config.parent / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fedpriv.cli.app", "worker", "start", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )


def _verified(ledger: Path, worker: str) -> LedgerSummary:
    """Verify a ledger from its files and sum up what it says."""
    try:
        report = verify_ledger(ledger, key=None)
    except VerificationFailed as failure:
        sys.stderr.write(f"ledger of {worker}: {failure}\n")
        return LedgerSummary(worker, verified=False, entries=0, bytes=0, root="", kinds=())
    kinds = tuple(Egress(worker, kind, total.messages, total.bytes) for kind, total in sorted(report.totals.items()))
    size = sum(kind.bytes for kind in kinds)
    return LedgerSummary(worker, verified=True, entries=report.entries, bytes=size, root=report.root.hex(), kinds=kinds)


def _parse_kill(text: str, names: Sequence[str], rounds: int) -> Kill:
    name, _, number = text.partition("@")
    if name not in names:
        raise UsageError(f"--kill {text}: no worker {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    if not number.isdecimal() or not 1 <= int(number) <= rounds:
        raise UsageError(f"--kill {text}: write NAME@ROUND with a round from 1 to {rounds}, such as {names[0]}@5")
    return Kill(name, int(number))


def _explain(note: Callable[[str], None], names: Sequence[str], held: Sequence[Share], *, plain: bool) -> None:
    rows = ", ".join(f"{name} {len(share.target)}" for name, share in zip(names, held, strict=True))
    note(f"{len(names)} workers hold rows of 569 real patients: {rows}; the rest is for evaluation only")
    if not plain:
        note("this version has no secure aggregation yet: running as --plain")
    note("in this demo the coordinator sees each update: every worker.toml allows it plain-update, statistics, metrics")


def _report(result: Result, baseline: dict[str, float], seconds: float, *, as_json: bool) -> None:
    accuracy = result.history.rounds[-1].metrics["accuracy"]
    if as_json:
        document = {
            "accuracy": accuracy,
            "centralised_accuracy": baseline["accuracy"],
            "rounds": len(result.history.rounds),
            "seconds": round(seconds, 2),
            "workers": [
                {
                    "name": ledger.worker,
                    "egress_bytes": ledger.bytes,
                    "messages": ledger.entries,
                    "ledger_verified": ledger.verified,
                }
                for ledger in result.ledgers
            ],
            "lost": [{"name": lost.worker, "round": lost.round} for lost in result.lost],
            "run": str(result.run),
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return
    egress_table(result.ledgers)
    for lost in result.lost:
        sys.stdout.write(f"lost: {lost.worker} in round {lost.round} ({lost.reason})\n")
    sys.stdout.write(
        f"accuracy {accuracy:.4f} on held-out patients; {baseline['accuracy']:.4f} with all rows in one place\n"
        f"{seconds:.1f} s; everything is in {result.run}: open report.html, or\n"
        f"  fedpriv audit show {result.run}\n  fedpriv audit verify {result.run}\n"
    )
