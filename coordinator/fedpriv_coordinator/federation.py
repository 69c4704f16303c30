"""A federation: workers that one process asks to train, and the model that comes of it.

Everything here is called from the researcher's thread and blocks; the network lives on the runtime's own thread, so
that this works in a notebook too. `fit` leaves the given model as it was. Ctrl-C ends a run after which everything
up to the last whole round is on disk, when the run has a folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from fedpriv.clock import SystemClock
from fedpriv.errors import PeerLost, RoundAbandoned, RoundRefused, UsageError, WireError
from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.strategies import FedAvg, Strategy
from fedpriv.remote.reach import Reachable
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.runtime import runtime
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Announcement, AskStatistics, DatasetDescription, Statistics
from fedpriv_coordinator.coordinator import Concluded, Coordinator
from fedpriv_coordinator.experiment import Egress, History, JobFacts, Result, RoundRecord
from fedpriv_coordinator.inspection import why_unusable_statistics
from fedpriv_coordinator.job import Job, Loss, agreed_schema, load_tensors, model_tensors, prepare
from fedpriv_coordinator.journal import RunFolder, Saved
from fedpriv_coordinator.lobby import Lobby
from fedpriv_coordinator.membership import Membership

Evaluate = Callable[[nn.Module], Mapping[str, float]]
MAXIMUM_ABANDONED = 3
"""So many rounds in a row may fall below the quorum before a run gives up."""
STATISTICS = ("count", "sum", "sum-of-squares")


@dataclass(frozen=True, slots=True)
class FederatedStatistics:
    """Statistics over the training rows of all workers: count, and per column mean and deviation, float64."""

    count: int
    mean: torch.Tensor = field(repr=False)
    deviation: torch.Tensor = field(repr=False)


@dataclass(frozen=True, slots=True)
class Watch:
    """What happens here after each round: the caller's evaluation and observer, and the run's folder."""

    model: nn.Module = field(repr=False)
    evaluate: Evaluate | None
    on_round: Callable[[RoundRecord], object] | None
    folder: RunFolder | None

    def measure(self, concluded: Concluded) -> dict[str, float]:
        """Return what the caller's evaluation says of the model after the round."""
        if self.evaluate is None:
            return {}
        load_tensors(self.model, concluded.model)
        return {name: float(value) for name, value in self.evaluate(self.model).items()}

    def report(self, reached: Saved, record: RoundRecord) -> None:
        """Save the round, then tell the observer: what it raises loses nothing."""
        if self.folder is not None:
            self.folder.save(reached)
        if self.on_round is not None:
            self.on_round(record)


class Federation:
    """The workers of one coordinator, as this process: connect, `fit`, `statistics`, `close`."""

    def __init__(self, workers: Sequence[Reachable], *, name: str = "me") -> None:
        self._clock = SystemClock()
        self._members = Membership([worker.name for worker in workers])
        self._lobby: Lobby | None = None
        for worker in workers:
            runtime.run(self._reach(worker, PeerName(name)))

    @classmethod
    def listen(
        cls,
        address: str,
        *,
        credentials: Credentials,
        workers: Sequence[str],
        wait_seconds: float = 300.0,
        on_note: Callable[[str], None] | None = None,
        on_listening: Callable[[str], None] | None = None,
        while_waiting: Callable[[], None] | None = None,
    ) -> Self:
        """Listen on `address` and wait until every one of `workers` has dialled in.

        `on_listening` is called with the address once it is open (port 0 lets the system pick), `on_note` with a line
        for people now and then, `while_waiting` once a second: what it raises ends the wait. Raise `UsageError` for a
        port in use, `PeerLost` naming the workers that did not come.
        """
        self = cls.__new__(cls)
        self._clock = SystemClock()
        self._members = Membership([WorkerName(name) for name in workers])
        self._lobby = lobby = Lobby(address, credentials, self._members, on_note or _silent)
        try:
            if on_listening is not None:
                on_listening(lobby.address)
            lobby.wait(wait_seconds, self._clock, while_waiting or _nothing)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def workers(self) -> tuple[WorkerName, ...]:
        """The workers that are connected now, in order of name."""
        return tuple(self._members.connected)

    def fit(
        self,
        model: nn.Module,
        *,
        dataset: str,
        loss: Loss,
        rounds: int = 10,
        local: LocalTraining | None = None,
        strategy: Strategy[Any] | None = None,
        evaluate: Evaluate | None = None,
        worker_metrics: Sequence[str] = (),
        on_round: Callable[[RoundRecord], object] | None = None,
        seed: int = 0,
        purpose: str = "",
        name: str = "",
        quorum: int | None = None,
        deadline_seconds: float = 600.0,
        run: str | Path | None = None,
        resume: bool = False,
    ) -> Result:
        """Train `model` on every worker's `dataset` and return the result.

        `loss` takes (prediction, target) and returns a scalar; `evaluate` takes the model after each round and runs
        here. A round needs `quorum` updates (default: more than half of the workers) within `deadline_seconds`.
        With `run`, every round is saved there, and `resume` goes on from the last one. Raise `UsageError` before
        anything is sent when the model, the loss or the data sets do not fit, `RoundAbandoned` when all workers refuse
        or three rounds in a row stay below the quorum.
        """
        job = prepare(
            model,
            loss,
            dataset=dataset,
            purpose=purpose,
            rounds=rounds,
            seed=seed,
            local=local or LocalTraining(),
            quorum=quorum,
            deadline_seconds=deadline_seconds,
            worker_metrics=worker_metrics,
            announced=self._announced(),
        )
        watch = Watch(copy.deepcopy(model), evaluate, on_round, None if run is None else RunFolder(Path(run)))
        start = _start(watch.folder, model_tensors(model, job.training), job.training.digest.hex(), resume=resume)
        reached = self._train(job, strategy or FedAvg(), start, watch)
        return self._result(watch, reached, JobFacts(name, purpose, dataset, plan=reached.plan))

    def statistics(self, dataset: str, *, purpose: str = "", timeout_seconds: float = 600.0) -> FederatedStatistics:
        """Return count, mean and deviation per column over all workers; every one must allow `statistics`."""
        schema = agreed_schema(DatasetName(dataset), self._announced())
        replies = runtime.run(_ask_statistics(self._members, schema, purpose, timeout_seconds))
        count = sum(float(values["count"]) for values in replies)
        total = torch.stack([values["sum"] for values in replies]).sum(0)
        squares = torch.stack([values["sum-of-squares"] for values in replies]).sum(0)
        mean = total / count
        return FederatedStatistics(round(count), mean, (squares / count - mean * mean).clamp_min(0.0).sqrt())

    def egress(self) -> tuple[Egress, ...]:
        """Return what was received from each worker so far, by kind of message."""
        received = self._members.received()
        return tuple(
            Egress(worker, kind, messages, size)
            for worker, kinds in received.items()
            for kind, (messages, size) in sorted(kinds.items())
        )

    def close(self) -> None:
        """Say goodbye to every worker and stop listening."""
        runtime.run(self._close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(self, watch: Watch, reached: Saved, facts: JobFacts) -> Result:
        load_tensors(watch.model, reached.model)
        run = None if watch.folder is None else watch.folder.folder
        return Result(watch.model, reached.history, self.egress(), run=run, lost=reached.history.lost, job=facts)

    def _train(self, job: Job, strategy: Strategy[Any], reached: Saved, watch: Watch) -> Saved:
        """Run the rounds that are left and return what was reached."""
        coordinator = Coordinator(job, self._members, strategy, reached.model, self._clock)
        for number in range(len(reached.history.rounds) + 1, job.rounds + 1):
            concluded = self._round(coordinator, number, reached, job)
            record = replace(concluded.record, metrics=watch.measure(concluded))
            reached = Saved(History((*reached.history.rounds, record)), reached.plan, concluded.model)
            watch.report(reached, record)
        return reached

    def _round(self, coordinator: Coordinator[Any], number: int, course: Saved, job: Job) -> Concluded:
        """Run one round, waiting for lost workers to come back where the quorum needs them."""
        if len(self._members.connected) < job.quorum:
            try:
                runtime.run(self._members.wait_for(job.quorum, job.deadline_seconds))
            except PeerLost as loss:
                raise RoundAbandoned(f"round {number} cannot begin: {loss}") from None
        concluded = runtime.run(coordinator.run_round(number, course.model))
        if concluded.abandoned:
            _end_if_hopeless((*course.history.rounds, concluded.record), concluded.abandoned, job)
        return concluded

    def _announced(self) -> dict[WorkerName, Announcement]:
        connected = self._members.connected
        if not connected:
            raise PeerLost(f"no worker is connected; expected {', '.join(self._members.expected)}")
        return {name: connection.announcement for name, connection in connected.items()}

    async def _reach(self, worker: Reachable, name: PeerName) -> None:
        await self._members.join(await worker.reach(name))

    async def _close(self) -> None:
        await self._members.close()
        if self._lobby is not None:
            await self._lobby.close()


async def _ask_statistics(
    members: Membership, schema: DatasetDescription, purpose: str, timeout_seconds: float
) -> list[TensorSet]:
    ask = AskStatistics(0, schema.name, STATISTICS, purpose)
    replies = []
    for worker, connection in members.connected.items():
        reply = await connection.ask(ask, timeout_seconds=timeout_seconds)
        assert isinstance(reply, Statistics)  # the connection accepts nothing else as an answer
        unusable = why_unusable_statistics(reply.values, STATISTICS, len(schema.features))
        if unusable is not None:
            raise WireError(f"the statistics of worker {worker!r} cannot be used: {unusable}; go on without it")
        replies.append(reply.values)
    return replies


def _start(folder: RunFolder | None, model: TensorSet, plan: str, *, resume: bool) -> Saved:
    """Return where to begin: the given model, or what the run folder had reached under the same plan."""
    if not resume:
        return Saved(History(), plan, model)
    if folder is None:
        raise UsageError("resume needs the folder of the run: pass run=... (or --resume RUN)")
    saved = folder.load()
    if saved.plan != plan:
        raise UsageError(
            f"{folder.folder} trained plan {saved.plan[:16]}, this job is plan {plan[:16]}: the model, loss, optimiser "
            "or schema changed; resume with what the run was started with"
        )
    return saved


def _end_if_hopeless(rounds: Sequence[RoundRecord], why: str, job: Job) -> None:
    """Raise after an abandoned round that too many refused, that followed too many others, or that was the last."""
    last, recent = rounds[-1], rounds[-MAXIMUM_ABANDONED:]
    message = f"the run ends with round {last.number}, which was abandoned because {why}: {_reasons(last)}"
    willing = sum(part.status != "refused" for part in last.workers)
    if last.workers and willing < job.quorum:
        raise RoundRefused(message)  # owners decided; asking again does not change that
    in_a_row = len(recent) == MAXIMUM_ABANDONED and all(record.outcome == "abandoned" for record in recent)
    nothing = len(rounds) == job.rounds and all(record.outcome == "abandoned" for record in rounds)
    if in_a_row or nothing:
        raise RoundAbandoned(message)


def _reasons(record: RoundRecord) -> str:
    return "; ".join(f"{part.worker}: {part.reason}" for part in record.workers if part.reason)


def _silent(note: str) -> None:
    """Say nothing."""


def _nothing() -> None:
    """Do nothing."""
