"""A federation: workers that one process asks to train, and the model that comes of it.

Everything here is called from the researcher's thread and blocks; the network lives on the runtime's own thread, so
that this works in a notebook too. `fit` leaves the given model as it was. Ctrl-C ends a run after which everything
up to the last whole round is on disk, when the run has a folder.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import nn

from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import PeerLost
from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.learning.local import LocalTraining
from fedpriv.learning.sampling import Sampling
from fedpriv.learning.strategies import Strategy, checked_strategy
from fedpriv.privacy.modes import Mode
from fedpriv.remote.connection import Connection
from fedpriv.remote.reach import Reachable
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.runtime import Running, runtime
from fedpriv.wire.messages import Announcement
from fedpriv_coordinator.coordinator import Coordinator
from fedpriv_coordinator.evidence import OnMessage, evidence_of
from fedpriv_coordinator.experiment import Egress, JobFacts, Result, RoundRecord, SumRecord
from fedpriv_coordinator.foretelling import foretell
from fedpriv_coordinator.job import Loss, agreed_schema, load_tensors, made_private, prepare
from fedpriv_coordinator.journal import RunFolder, Saved
from fedpriv_coordinator.lobby import Lobby
from fedpriv_coordinator.membership import Membership, Received
from fedpriv_coordinator.pacing import Devices
from fedpriv_coordinator.privacy_report import privacy_of
from fedpriv_coordinator.private_job import Settled
from fedpriv_coordinator.rounds import Evaluate, Watch, begin, train
from fedpriv_coordinator.secure_aggregation import SecureAggregation, asked_for
from fedpriv_coordinator.secure_rounds import RoundsOf
from fedpriv_coordinator.starting import announced_rows, fresh_start, quorum_of, setting_of
from fedpriv_coordinator.statistics import FederatedStatistics, ask_all, ask_for_sum, combined


class Federation:
    """The workers of one coordinator, as this process: connect, `fit`, `statistics`, `close`."""

    def __init__(self, workers: Sequence[Reachable], *, name: str = "me", devices: Devices | None = None) -> None:
        """Reach every one of `workers` as `name`; raise `PeerLost`, or `LedgerRefused` for a rewritten ledger.

        With `devices`, updates count at the simulated times at which these would give them: see `SimulatedDevices`.
        """
        self._clock, self._devices = SystemClock(), devices
        self._members = Membership([worker.name for worker in workers])
        self._rounds = RoundsOf(self._members, tuple(workers), self._clock)
        self._summed: tuple[SumRecord, ...] = ()
        self._lobby: Lobby | None = None
        self._looking: Running[None] | None = None
        connections = [runtime.run(worker.reach(PeerName(name))) for worker in workers]
        own_name = connections[0].own_name  # a certificate knows better than we do
        self._evidence = evidence_of(None, own_name, self._clock, _silent)
        try:
            for connection in connections:
                runtime.run(self._admit(connection))
        except BaseException:
            self.close()
            raise

    @classmethod
    def listen(
        cls,
        address: str,
        *,
        credentials: CredentialsSource,
        workers: Sequence[str],
        wait_seconds: float = 300.0,
        on_note: Callable[[str], None] | None = None,
        on_listening: Callable[[str], None] | None = None,
        while_waiting: Callable[[], None] | None = None,
        on_message: OnMessage | None = None,
        state: str | Path | None = None,
    ) -> Self:
        """Listen on `address` and wait until every one of `workers` has dialled in.

        `on_listening` is called with the address once it is open (port 0 lets the system pick), `on_note` with a line
        for people now and then, `while_waiting` once a second: what it raises ends the wait. `on_message` is told who
        sent what kind of message, on the network's thread before anything is done with it: it must neither wait nor
        raise. In the folder `state` lie the keys, the ledger of what was received and the checkpoints that were
        cosigned; without one they end with this process. Raise `UsageError` for a port in use, `StateInUse` for a
        folder in use, `PeerLost` naming the workers that did not come.
        """
        self = cls.__new__(cls)
        self._clock, self._devices = SystemClock(), None
        self._members = Membership([WorkerName(name) for name in workers], returning=True)
        self._rounds = RoundsOf(self._members, (), self._clock)
        note = on_note or _silent
        self._evidence = evidence_of(state, credentials.current().peer.name, self._clock, note)
        if on_message is not None:
            self._evidence.tell_of_messages(on_message)
        self._lobby, self._looking, self._summed = None, None, ()
        try:
            self._lobby = lobby = Lobby(address, credentials, self._members, note, self._evidence)
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
        strategy: Strategy | None = None,
        sampling: Sampling | None = None,
        secure_aggregation: SecureAggregation | None = None,
        privacy: Mode | None = None,
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
        on_note: Callable[[str], None] | None = None,
    ) -> Result:
        """Train `model` on every worker's `dataset` and return the result.

        `loss` takes (prediction, target), `evaluate` the model after each round, here. A round asks whom `sampling`
        draws (all) and needs `quorum` updates (most) in `deadline_seconds`; under `secure_aggregation` only sums show.
        `on_note` hears of waits and budgets that end. `run` is a new folder for the rounds, where `resume` goes on.
        """
        chosen, secure, announced = checked_strategy(strategy), asked_for(secure_aggregation), self._announced()
        job = prepare(
            model, loss, dataset=dataset, purpose=purpose, rounds=rounds, seed=seed, sampling=sampling, privacy=privacy,
            local=chosen.prepare(local or LocalTraining()), deadline_seconds=deadline_seconds, workers=len(announced),
            worker_metrics=worker_metrics, schema=agreed_schema(DatasetName(dataset), announced),
            quorum=quorum_of(chosen, quorum, len(announced)),
        )  # fmt: skip  # one line of terms
        job = made_private(job, privacy, announced, chosen, secure, _instance(run), resume=resume)
        setting, sums = setting_of(job, chosen, announced_rows(job, announced)), self._rounds.of(secure, chosen, job)
        watch, before = _watch(model, evaluate, on_round, run, on_note), self._members.received()
        start = begin(watch.folder, fresh_start(job, chosen, setting, model, self._summed), resume=resume)
        coordinator = Coordinator(job, self._members, chosen, self._clock, sums, self._devices, start.history)
        foretell(job, self._members, watch.note)
        reached = train(coordinator, self._members, job, setting, start, watch, self._after_round)
        return self._result(watch, reached, JobFacts(name, purpose, dataset, plan=reached.plan), job.settled, before)

    def statistics(
        self,
        dataset: str,
        *,
        purpose: str = "",
        timeout_seconds: float = 600.0,
        secure_aggregation: SecureAggregation | None = None,
    ) -> FederatedStatistics:
        """Return count, mean and deviation per column over all workers; every one must allow `statistics`.

        With `secure_aggregation` this process sees the sums over all workers that answer, and nothing of one.
        """
        schema = agreed_schema(DatasetName(dataset), self._announced())
        if (secure := self._rounds.of(asked_for(secure_aggregation))) is not None:
            asked = ask_for_sum(secure, self._members, schema, purpose, timeout_seconds)
            total, sums = runtime.run(asked)
            self._summed += sums
            return combined([total])
        return combined(runtime.run(ask_all(self._members, schema, purpose, timeout_seconds)))

    def egress(self) -> tuple[Egress, ...]:
        """Return what was received from each worker so far, by kind of message; a result has that of its run alone."""
        return _egress(self._members.received(), {})

    def close(self) -> None:
        """Cosign the workers' ledgers once more, say goodbye to every one, and stop listening."""
        try:
            self._seen()
        finally:
            try:
                runtime.run(self._close())
            finally:
                self._evidence.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(
        self, watch: Watch, reached: Saved, facts: JobFacts, settled: Settled | None, before: Received
    ) -> Result:
        load_tensors(watch.model, reached.model)
        run = None if watch.folder is None else watch.folder.folder
        return Result(
            watch.model,
            reached.history,
            _egress(self._members.received(), before),
            privacy=None if settled is None else privacy_of(settled, facts.dataset, reached.history),
            run=run,
            lost=reached.history.lost,
            job=facts,
            evidence=self._evidence,
        )

    def _after_round(self) -> None:
        """Have what was received on record, and cosign the workers' ledgers while the next round goes on."""
        self._evidence.ingress.drain()
        if self._looking is None or self._looking.done():
            self._seen()
            self._looking = runtime.start(self._evidence.look(self._members))

    def _seen(self) -> None:
        """Wait for the last look at the workers' ledgers, and raise what it raised."""
        if self._looking is not None:
            self._looking.result()

    def _announced(self) -> dict[WorkerName, Announcement]:
        connected = self._members.connected
        if not connected:
            raise PeerLost(f"no worker is connected; missing: {self._members.absent}")
        return {name: connection.announcement for name, connection in connected.items()}

    async def _admit(self, connection: Connection) -> None:
        self._members.check(connection.name)
        await self._evidence.meet(connection)
        await self._members.join(connection)

    async def _close(self) -> None:
        await self._evidence.look(self._members, last=True)
        await self._members.close()
        if self._lobby is not None:
            await self._lobby.close()


def _watch(
    model: nn.Module,
    evaluate: Evaluate | None,
    on_round: Callable[[RoundRecord], object] | None,
    run: str | Path | None,
    on_note: Callable[[str], None] | None,
) -> Watch:
    folder = None if run is None else RunFolder(Path(run))
    return Watch(copy.deepcopy(model), evaluate, on_round, folder, on_note or _silent)


def _egress(received: Received, before: Received) -> tuple[Egress, ...]:
    """Return what was received from each worker, by kind, less what had been `before`."""
    counted = (
        (worker, kind, now, before.get(worker, {}).get(kind, (0, 0)))
        for worker, kinds in received.items()
        for kind, now in sorted(kinds.items())
    )
    return tuple(
        Egress(worker, kind, now[0] - then[0], now[1] - then[1]) for worker, kind, now, then in counted if now != then
    )


def _instance(run: str | Path | None) -> str:
    """Return what tells one run of a private job from another: where it is kept, so that it can be resumed."""
    return SystemEntropy().random_bytes(16).hex() if run is None else str(Path(run).resolve())


def _silent(note: str) -> None:
    """Say nothing."""


def _nothing() -> None:
    """Do nothing."""
