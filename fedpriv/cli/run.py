"""`fedpriv run JOB.toml`: coordinate one job from a file."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from fedpriv.cli.display import RoundDisplay
from fedpriv.clock import SystemClock
from fedpriv.errors import UsageError
from fedpriv.transport.credentials import Credentials
from fedpriv_coordinator.config import load_code, load_job
from fedpriv_coordinator.experiment import HISTORY, Result
from fedpriv_coordinator.federation import Federation
from fedpriv_coordinator.journal import RunFolder


def run(job: Path, resume: Path | None, as_json: bool) -> None:  # noqa: FBT001 - the command line's own flags
    """Train as JOB.toml says and save the run; with `resume`, go on after the last whole round of that folder."""
    config = load_job(job)
    code = load_code(config)
    credentials = Credentials.from_files(ca=config.tls.ca, certificate=config.tls.certificate, key=config.tls.key)
    folder = config.run_folder(SystemClock().now()) if resume is None else resume
    if resume is None and (folder / HISTORY).exists():
        raise UsageError(f"{folder} holds a finished run; choose another folder with run = in {job}")
    with RoundDisplay(config.rounds, title=config.name) as display:
        federation = Federation.listen(
            config.listen, credentials=credentials, workers=config.workers.names, on_note=display.note
        )
        with federation:
            result = federation.fit(
                code.model,
                dataset=config.dataset,
                loss=code.loss,
                rounds=config.rounds,
                local=config.local,
                strategy=config.strategy.make(),
                evaluate=code.evaluate,
                worker_metrics=config.worker_metrics,
                on_round=display.on_round,
                seed=config.seed,
                purpose=config.purpose,
                name=config.name,
                quorum=config.workers.quorum,
                deadline_seconds=config.workers.deadline_seconds,
                run=folder,
                resume=resume is not None,
            )
    result.save(folder)
    RunFolder(folder).finish()
    _report(result, folder, as_json=as_json)


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
            "lost": [{"worker": lost.worker, "round": lost.round} for lost in result.lost],
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write(f"{replace(result, run=folder)!r}\n")
