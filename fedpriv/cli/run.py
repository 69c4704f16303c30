"""`fedpriv run JOB.toml`: coordinate one job from a file.

Where the run is kept is said once something lies there, and at the end; what ends it early says how to go on. A
folder that cannot be resumed or written is refused before anything listens.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedpriv.cli.display import RoundDisplay
from fedpriv.cli.stopping import TERMINATED, Terminated
from fedpriv.cli.watching import watched_run
from fedpriv.clock import Clock, SystemClock
from fedpriv.errors import FedprivError, UsageError
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.renewal import kept_fresh
from fedpriv.transport.rotation import CredentialFiles, CredentialPaths
from fedpriv_coordinator.config import Code, JobConfig, load_code, load_job
from fedpriv_coordinator.experiment import Result, RoundRecord
from fedpriv_coordinator.federation import Federation
from fedpriv_coordinator.journal import FINISHED, RunFolder

REMIND_SECONDS = 15.0
INTERRUPTED = 130
_CONNECTED = ("worker ", " is connected")


class Interrupted(FedprivError):
    """Somebody pressed Ctrl-C, or sent SIGTERM; says what was saved and how to go on."""

    def __init__(self, message: str, exit_code: int = INTERRUPTED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Missing:
    """Which of the expected workers did not dial in yet; says so every `REMIND_SECONDS` while we wait."""

    def __init__(self, config: JobConfig, say: Callable[[str], None], clock: Clock) -> None:
        self._config = config
        self._missing = dict.fromkeys(sorted(config.workers.names))
        self._say = say
        self._clock = clock
        self._began = clock.monotonic()
        self._next = self._began + REMIND_SECONDS

    def note(self, text: str) -> None:
        """Pass a note on; learn from it who is there."""
        before, after = _CONNECTED
        if text.startswith(before) and text.endswith(after):
            self._missing.pop(text.removeprefix(before).removesuffix(after), None)
        self._say(text)

    def remind(self) -> None:
        """Say who is still missing, for how long, and what to check there, if it is time to."""
        now, config = self._clock.monotonic(), self._config
        if now < self._next:
            return
        self._next = now + REMIND_SECONDS
        who = ", ".join(self._missing) or "a worker that went away again"
        waited = f"{now - self._began:.0f} s of {config.workers.wait_seconds:g}"
        self._say(
            f"still waiting for {who} ({waited}): check there that the worker runs under that very name, that [dial] "
            f"address leads to {_reached_at(config.listen)}, and that its certificate is of the authority in "
            f"{config.tls.ca}; its own output says what fails"
        )


def _reached_at(listen: str) -> str:
    """Return what a worker's address has to lead to, in words."""
    host, _, port = listen.rpartition(":")
    return f"port {port} of this machine" if host in {"0.0.0.0", "[::]"} else listen  # noqa: S104 - read, not bound


class Progress:
    """How far a run is: the rounds that are whole, for whoever interrupts it."""

    def __init__(self, display: RoundDisplay, folder: Path, reached: int) -> None:
        self._display = display
        self._folder = folder
        self._first = True
        self.reached = reached

    def on_round(self, record: RoundRecord) -> None:
        """Show a round that is on disk now; before the first, where: a start that fails leaves no folder."""
        if self._first and not self.reached:
            self._display.note(f"the run is kept in {self._folder}")
        self._first = False
        self.reached = record.number
        self._display.on_round(record)


def run(job: Path, resume: Path | None, as_json: bool) -> None:  # noqa: FBT001 - the command line's own flags
    """Train as JOB.toml says and save the run; with `resume`, go on after the last whole round of that folder."""
    config = load_job(job)
    code = load_code(config)
    credentials = CredentialFiles(CredentialPaths(config.tls.ca, config.tls.certificate, config.tls.key))
    folder = config.run_folder(SystemClock().now()) if resume is None else resume
    reached = _checked(folder, job, resuming=resume is not None)
    beside = kept_fresh(credentials, config.tls.registrar), watched_run(config.operations, config.state, credentials)
    with beside[0], beside[1], RoundDisplay(config.rounds, title=config.name) as display:
        if reached:
            display.note(f"the run is kept in {folder}; going on after round {reached}")
        progress = Progress(display, folder, reached)
        try:
            result = _train(config, code, credentials, folder, display, progress, resuming=resume is not None)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted {_how_to_go_on(job, folder, progress.reached)}") from None
        except Terminated:
            raise Interrupted(f"terminated {_how_to_go_on(job, folder, progress.reached)}", TERMINATED) from None
    result.save(folder)
    RunFolder(folder).finish()
    _report(result, folder, as_json=as_json)
    _tell_auditors(result, folder)
    sys.stderr.write(f"saved in {folder}\n")


def _checked(folder: Path, job: Path, *, resuming: bool) -> int:
    """Return how many rounds `folder` holds; raise `UsageError` when this run cannot be kept there."""
    kept = RunFolder(folder)
    if resuming:
        if kept.holds == FINISHED:
            raise UsageError(f"{folder}: this run is finished; start another with fedpriv run {job}")
        return len(kept.load().history.rounds)
    if holds := kept.holds:
        go_on = "" if holds == FINISHED else f"{_resumption(job, folder)}, or "
        raise UsageError(f"{folder} holds a run {holds}; {go_on}choose another folder with run = in {job}")
    return 0


def _train(
    config: JobConfig,
    code: Code,
    credentials: CredentialsSource,
    folder: Path,
    display: RoundDisplay,
    progress: Progress,
    *,
    resuming: bool,
) -> Result:
    missing = Missing(config, display.note, SystemClock())
    federation = Federation.listen(
        config.listen,
        credentials=credentials,
        workers=config.workers.names,
        on_note=missing.note,
        while_waiting=missing.remind,
        wait_seconds=config.workers.wait_seconds,
        state=config.state,
    )
    with federation:
        return federation.fit(
            code.model,
            dataset=config.dataset,
            loss=code.loss,
            rounds=config.rounds,
            local=config.local,
            strategy=config.strategy,
            sampling=config.sampling,
            secure_aggregation=config.secure_aggregation,
            privacy=config.privacy,
            evaluate=code.evaluate,
            worker_metrics=config.worker_metrics,
            on_round=progress.on_round,
            seed=config.seed,
            purpose=config.purpose,
            name=config.name,
            quorum=config.workers.quorum,
            deadline_seconds=config.workers.deadline_seconds,
            run=folder,
            resume=resuming,
            on_note=display.note,
        )


def _how_to_go_on(job: Path, folder: Path, reached: int) -> str:
    if reached == 0:
        return (
            "before the first round was whole, so nothing was saved; start again with: "
            f"fedpriv run {shlex.quote(str(job))}"
        )
    return f"after round {reached}: model and history up to there are saved in {folder}; {_resumption(job, folder)}"


def _resumption(job: Path, folder: Path) -> str:
    return f"go on with: fedpriv run {shlex.quote(str(job))} --resume {shlex.quote(str(folder))}"


def _tell_auditors(result: Result, folder: Path) -> None:
    """Say on stderr with which commands and keys others verify what was received and cosigned here."""
    if (evidence := result.evidence) is not None:
        run = shlex.quote(str(folder))
        sys.stderr.write(
            "for auditors, who have a worker's LEDGER and the KEY that its owner gave them:\n"
            f"  fedpriv audit verify LEDGER --key KEY --holds {run}/witness/WORKER.checkpoint "
            f"--witness {shlex.quote(evidence.witness.vkey)}\n"
            f"  fedpriv audit reconcile LEDGER {run} --key KEY "
            f"--coordinator-key {shlex.quote(evidence.ingress.vkey)}\n"
        )


def _report(result: Result, folder: Path, *, as_json: bool) -> None:
    if as_json:
        last = result.history.rounds[-1]
        document = {
            "run": str(folder),
            "rounds": len(result.history.rounds),
            "metrics": dict(last.metrics),
            "worker_metrics": dict(last.worker_metrics),
            "egress": [
                {"worker": row.worker, "kind": row.kind, "messages": row.messages, "bytes": row.bytes}
                for row in result.egress
            ],
            "unmeasured": {part.worker: part.unmeasured for part in last.workers if part.unmeasured},
            "lost": [{"worker": lost.worker, "round": lost.round} for lost in result.lost],
            "privacy": None if result.privacy is None else result.privacy.document(),
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(f"{replace(result, run=folder)!r}\n")
