"""`fedpriv demo`: the whole promise in one command, on 569 real patients.

Every worker is a process of its own that dials the coordinator over mutual TLS, holds its own share of the rows, and
lets out what its `worker.toml` says: sums over the workers, or, with `--plain`, each update. At the end each ledger is
verified from its files, as a stranger would.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from shlex import quote

import torch
import torch.nn.functional as F
from torch import nn

from fedpriv.cli.demo_data import DATASET, Share, central_baseline, enrol, network, shares, test_rows, write_worker
from fedpriv.cli.display import RoundDisplay, egress_table
from fedpriv.cli.killing import Kill, Killer, parse_kill
from fedpriv.errors import PeerLost, UsageError, VerificationFailed
from fedpriv.learning.local import SGD, LocalTraining
from fedpriv.learning.standardize import Standardize
from fedpriv.secagg.thresholds import LEAST_WORKERS, advice
from fedpriv.storage.verification import read_entries, verify_ledger
from fedpriv.transport.authority import Authority
from fedpriv.wire.messages import Role
from fedpriv_coordinator.experiment import Egress, LedgerSummary, Result, RoundRecord
from fedpriv_coordinator.federation import Federation
from fedpriv_coordinator.journal import RunFolder
from fedpriv_coordinator.secure_aggregation import SecureAggregation
from fedpriv_coordinator.telling import OUTSIDE_ROUNDS

COORDINATOR = "coordinator"
NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi")
STOP_SECONDS = 15.0
LOCAL = LocalTraining(epochs=2, batch_size=16, optimizer=SGD(lr=0.1))


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked for on the command line, checked."""

    folder: Path
    names: tuple[str, ...]
    rounds: int
    kill: Kill | None
    quorum: int | None
    seed: int
    secure: SecureAggregation | None = None
    administrator: str = ""


@dataclass(slots=True)
class Fleet:
    """The worker processes of one demo; none outlives it."""

    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str, config: Path) -> None:
        """Start one worker; what it says goes to worker.log beside its configuration."""
        with (config.parent / "worker.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "fedpriv.cli.app", "worker", "start", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def check(self) -> None:
        """Raise `PeerLost` when a worker ended although nobody asked it to."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise PeerLost(f"worker {name!r} ended with code {process.returncode}; its worker.log says why")

    def killer(self, kill: Kill | None) -> Killer | None:
        """Return what ends a worker's process as `kill` says, if anything is to."""
        return None if kill is None else Killer(kill, partial(self._send, kill.worker))

    def _send(self, name: str, sent: signal.Signals) -> None:
        self.processes[name].send_signal(sent)

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
    """Run the demo and print what left each worker; unless `plain`, the coordinator sees sums alone."""
    started = time.monotonic()
    folder = run or Path("runs") / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-demo"
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; name a new folder with --run")
    names = tuple(NAMES[index] if index < len(NAMES) else f"worker-{index + 1}" for index in range(workers))
    if quorum is not None and quorum > workers:
        raise UsageError(f"--quorum {quorum} is more than the {workers} workers; use 1 to {workers}")
    if not plain and workers < LEAST_WORKERS:
        raise UsageError(f"{advice(workers)}, or --plain, where the coordinator sees each update")
    killed = None if kill is None else parse_kill(kill, names, rounds, plain=plain)
    terms = Terms(folder, names, rounds, killed, quorum, seed)
    held = shares(workers, seed=seed)
    if not plain:
        signed, key = enrol(folder, names)
        terms = replace(terms, secure=SecureAggregation(roster=signed), administrator=key)
    with RoundDisplay(rounds, title="demo") as display:
        _explain(display.note, names, held, plain=plain)
        result, baseline = _train(terms, held, display)
    ledgers = tuple(_verified(folder / "workers" / name / "state" / "ledger", name) for name in names)
    history = replace(result.history, baseline=baseline)
    result = replace(result, history=history, ledgers=ledgers, run=folder)
    result.save(folder)
    RunFolder(folder).finish()
    _report(result, baseline, _received(folder / "ingress"), time.monotonic() - started, as_json=as_json)


def _train(terms: Terms, held: Sequence[Share], display: RoundDisplay) -> tuple[Result, dict[str, float]]:
    """Start the workers, train with them, stop them; return the result and what central training reaches."""
    authority = Authority.create()
    fleet = Fleet({})
    killer = fleet.killer(terms.kill)

    def start_workers(address: str) -> None:
        for name, share in zip(terms.names, held, strict=True):
            fleet.start(name, _configured(terms, name, share, address, authority))

    with ExitStack() as stack:
        stack.callback(fleet.close)
        federation = stack.enter_context(
            Federation.listen(
                "127.0.0.1:0",
                credentials=authority.issue(COORDINATOR, Role.COORDINATOR),
                workers=terms.names,
                on_note=display.note,
                on_listening=start_workers,
                while_waiting=fleet.check,
                on_message=None if killer is None else killer.heard,
                state=terms.folder / "coordinator",
            )
        )
        found = federation.statistics(DATASET, purpose="demo", secure_aggregation=terms.secure)
        standardize = Standardize(found.mean, found.deviation)
        return _fit(federation, standardize, terms, held, killer, display)


def _configured(terms: Terms, name: str, share: Share, address: str, authority: Authority) -> Path:
    return write_worker(terms.folder, name, share, address, authority, COORDINATOR, terms.administrator)


def _fit(
    federation: Federation,
    standardize: Standardize,
    terms: Terms,
    held: Sequence[Share],
    killer: Killer | None,
    display: RoundDisplay,
) -> tuple[Result, dict[str, float]]:
    features, target = test_rows(seed=terms.seed)

    def on_round(record: RoundRecord) -> None:
        display.on_round(record)
        if killer is not None:
            killer.round_begins(record.number + 1)

    if killer is not None:
        killer.round_begins(1)
    result = federation.fit(
        network(standardize, seed=terms.seed),
        dataset=DATASET,
        loss=F.binary_cross_entropy_with_logits,
        rounds=terms.rounds,
        local=LOCAL,
        secure_aggregation=terms.secure,
        evaluate=lambda model: measure(model, features, target),
        worker_metrics=("loss", "accuracy"),
        on_round=on_round,
        seed=terms.seed,
        purpose="demo",
        name="demo",
        quorum=terms.quorum or max(1, len(terms.names) - 1),
        deadline_seconds=60.0,
        run=terms.folder,
    )
    central = central_baseline(standardize, held, terms.rounds, LOCAL, seed=terms.seed)
    return result, measure(central, features, target)


def measure(model: nn.Module, features: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Return loss and accuracy of `model` on raw columns."""
    model.eval()
    with torch.inference_mode():
        prediction = model(features)
        loss = float(F.binary_cross_entropy_with_logits(prediction, target))
        return {"loss": loss, "accuracy": float(((prediction > 0).float() == target).float().mean())}


def _verified(ledger: Path, worker: str) -> LedgerSummary:
    """Verify a ledger from its files and sum up what it says."""
    try:
        report = verify_ledger(ledger, key=None)
    except VerificationFailed as failure:
        sys.stderr.write(f"ledger of {worker}: {failure}\n")
        return LedgerSummary(worker, verified=False, entries=0, bytes=0, root="", kinds=())
    messages, size = Counter[str](), Counter[str]()
    for entry in read_entries(ledger):
        messages[entry.draft.kind] += 1
        size[entry.draft.kind] += entry.draft.bytes
    kinds = tuple(Egress(worker, kind, messages[kind], size[kind]) for kind in sorted(messages))
    return LedgerSummary(
        worker,
        verified=True,
        entries=report.entries,
        bytes=report.message_bytes,
        root=report.root.hex(),
        kinds=kinds,
    )


def _received(ingress: Path) -> Counter[str]:
    """Return how many bytes came from each worker, by the coordinator's own ledger."""
    verify_ledger(ingress, key=None)
    received = Counter[str]()
    for entry in read_entries(ingress):
        received[entry.draft.peer] += entry.draft.bytes
    return received


def _explain(note: Callable[[str], None], names: Sequence[str], held: Sequence[Share], *, plain: bool) -> None:
    rows = ", ".join(f"{name} {len(share.target)}" for name, share in zip(names, held, strict=True))
    note(f"{len(names)} workers hold rows of 569 real patients: {rows}; the rest is for evaluation only")
    if plain:
        note("every worker.toml of this demo allows the coordinator plain-update, statistics and metrics")
    else:
        note(
            "every worker.toml allows the coordinator sums over three workers or more, and nothing of one (secure-sum)"
        )
        note("the roster of who is in them is signed by an administrator that this demo made up")


def _report(
    result: Result, baseline: dict[str, float], received: Counter[str], seconds: float, *, as_json: bool
) -> None:
    accuracy = result.history.rounds[-1].metrics["accuracy"]
    # what a worker recorded last may never have arrived; what arrived must be recorded
    unaccounted = sum(max(0, received[ledger.worker] - ledger.bytes) for ledger in result.ledgers)
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
                    "received_bytes": received[ledger.worker],
                    "messages": ledger.entries,
                    "ledger_verified": ledger.verified,
                }
                for ledger in result.ledgers
            ],
            "unaccounted_bytes": unaccounted,
            "lost": [{"name": lost.worker, "round": lost.round} for lost in result.lost],
            "run": str(result.run),
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return
    egress_table(result.ledgers)
    run = quote(str(result.run))
    for lost in result.lost:
        sys.stdout.write(f"lost: {lost.worker} in round {lost.round} ({lost.reason})\n")
    sys.stdout.write(f"unaccounted bytes: {unaccounted}, of {received.total():,} that came from the workers\n")
    rounds = sum(record.bytes_in for record in result.history.rounds)
    sys.stdout.write(f"rounds add up to {rounds:,} of them: {OUTSIDE_ROUNDS}\n")
    sys.stdout.write(
        f"accuracy {accuracy:.4f} on held-out patients; {baseline['accuracy']:.4f} with all rows in one place\n"
        f"{seconds:.1f} s; everything is in {result.run}: open report.html, or\n"
        f"  {_command()} audit show {run}\n  {_command()} audit verify {run}\n"
    )


def _command() -> str:
    """Return how to call `fedpriv` from the shell that this runs in."""
    if shutil.which("fedpriv"):
        return "fedpriv"
    beside = Path(sys.executable).with_name("fedpriv")
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
