"""The one narrow way to the rows: carry out a request, return an outcome.

An executor holds the data sets and the compiled plans. It reports no label and decides no release; it is given a
request that the session permitted, and answers with numbers or with a code. Nothing that torch says about a
failure goes further than this file, because torch's messages quote values.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from fedpriv.entropy import Entropy, SystemEntropy, fresh_seed
from fedpriv.errors import PlanRefused
from fedpriv.ids import DatasetName, PlanDigest
from fedpriv.plans.interpreter import Program
from fedpriv.plans.plan import InputRole, Plan
from fedpriv.plans.validation import Quota, validate
from fedpriv.privacy.noises import ExampleNoise
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import AskMock, AskStatistics, ErrorCode, Evaluate, Memory, OfferPlan, Train
from fedpriv_worker import private_training, training
from fedpriv_worker.actions import (
    Broken,
    Loaded,
    Nothing,
    Outcome,
    StoodIn,
    Summed,
)
from fedpriv_worker.bench import Bench
from fedpriv_worker.datasets import Dataset, Rows
from fedpriv_worker.definitions import code_of
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.keeping import Keeping
from fedpriv_worker.orders import Order, masked_among
from fedpriv_worker.pricing import Price
from fedpriv_worker.rehearsal import rehearsed

log = logging.getLogger("fedpriv.worker")

MAXIMUM_PROGRAMS = 256
MAXIMUM_PROGRAM_STEPS = 400_000
"""Steps of all compiled plans together."""
MAXIMUM_BY_ROWS = 8
"""Loss plans whose gradients of single rows are kept ready."""


class Executor(Protocol):
    """Carries out one request at a time; never raises and never blocks on a peer."""

    def carry_out(
        self, request: OfferPlan | Order, plan: Plan | None, stopped: Callable[[], bool], peer: str
    ) -> Outcome:
        """Return what `request` of `peer` came to, run with `plan`; give up soon after nobody waits (`stopped`)."""
        ...

    def train_privately(self, order: Train, plan: Plan, price: Price, stopped: Callable[[], bool]) -> Outcome:
        """Return what a private order came to: what `price` says was executed, and nothing else."""
        ...

    def bench(self) -> Bench:
        """Return an empty place for one session's values."""
        ...

    def program(self, plan: Plan) -> Program:
        """Return `plan` validated and compiled."""
        ...

    def rows(self, dataset: DatasetName, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and target of the first `count` rows."""
        ...


class Programs:
    """Compiled plans by digest: the ones used last, at most `MAXIMUM_PROGRAMS`; executors of one process may share."""

    def __init__(self, quota: Quota | None = None) -> None:
        self._quota = quota or Quota()
        self._programs: OrderedDict[PlanDigest, Program] = OrderedDict()
        self._by_rows: OrderedDict[PlanDigest, ExampleGradients] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, plan: Plan | None) -> Program:
        """Return `plan` validated and compiled, now or before; raise `PlanRefused`."""
        assert plan is not None  # the session executes no training without one
        with self._lock:
            if plan.digest not in self._programs:
                self._programs[plan.digest] = Program(validate(plan, self._quota))
                while len(self._programs) > 1 and self._are_too_many():
                    self._programs.popitem(last=False)
            self._programs.move_to_end(plan.digest)
            return self._programs[plan.digest]

    def by_rows(self, plan: Plan) -> ExampleGradients:
        """Return what differentiates single rows of a loss plan, rehearsed; raise `PlanRefused` where nothing does."""
        program = self.of(plan)
        with self._lock:
            if plan.digest not in self._by_rows:
                self._by_rows[plan.digest] = rehearsed(program.checked)
                while len(self._by_rows) > MAXIMUM_BY_ROWS:
                    self._by_rows.popitem(last=False)
            self._by_rows.move_to_end(plan.digest)
            return self._by_rows[plan.digest]

    def _are_too_many(self) -> bool:
        steps = sum(len(each.plan.steps) for each in self._programs.values())
        return len(self._programs) > MAXIMUM_PROGRAMS or steps > MAXIMUM_PROGRAM_STEPS


def stand_in(mock: Rows) -> TensorSet:
    """Return the stand-in rows as they travel."""
    return TensorSet({"features": mock.features, "target": mock.target})


class InProcessExecutor:
    """Runs plans in this process, over data sets that this process loaded."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        programs: Programs | None = None,
        *,
        threads: Callable[[], int] | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        """Hold `datasets`; use as many of torch's threads as `threads` says, or leave them as they are.

        Samples and noise come from `entropy`, the operating system's unless a test gives another.
        """
        self._datasets: dict[DatasetName, Dataset] = {dataset.name: dataset for dataset in datasets}
        self._programs = programs or Programs()
        self._threads = threads
        self._entropy = entropy or SystemEntropy()
        self._keeping = Keeping()

    def carry_out(
        self, request: OfferPlan | Order, plan: Plan | None, stopped: Callable[[], bool], peer: str
    ) -> Outcome:
        """Return what `request` came to; every failure is a code."""
        return self._guarded(request, lambda: self._outcome(request, plan, stopped, peer))

    def train_privately(self, order: Train, plan: Plan, price: Price, stopped: Callable[[], bool]) -> Outcome:
        """Return what a private order came to; every failure is a code."""
        if stopped():
            return Broken(ErrorCode.SHUTTING_DOWN)
        rows = self._datasets[order.dataset].training

        def trained() -> Outcome:
            if isinstance(price.noise, ExampleNoise):
                by_rows = private_training.ready(lambda: self._programs.by_rows(plan))
                return private_training.by_rows(by_rows, plan, rows, order, price, self._entropy, stopped)
            return private_training.as_a_whole(self._programs.of(plan), rows, order, price, self._entropy, stopped)

        return self._guarded(order, trained)

    def _guarded(self, request: OfferPlan | Order, work: Callable[[], Outcome]) -> Outcome:
        """Do `work`; every failure is a code, and one on rows nothing at all where a sum is asked for.

        The thread takes denormals for zero from here on, and so do those that torch starts for it: with them,
        arithmetic takes as long as values say, and a peer could read rows off a clock.
        """
        torch.set_flush_denormal(True)
        if self._threads is not None and torch.get_num_threads() != (threads := self._threads()):
            torch.set_num_threads(threads)
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever torch raises, its text quotes values and stays here
            broken = _broken(request, error)
            log.info("request %d failed: %s, %s", request.request, broken.code.name, type(error).__name__)
            return Nothing() if broken.on_values and _in_a_sum(request) else broken

    def bench(self) -> Bench:
        """Return an empty place for one session's values."""
        return Bench(SystemEntropy())

    def program(self, plan: Plan) -> Program:
        """Return `plan` validated and compiled."""
        return self._programs.of(plan)

    def rows(self, dataset: DatasetName, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and target of the first `count` rows."""
        held = self._datasets[dataset]
        return held.features[:count], held.target[:count]

    def _outcome(
        self, request: OfferPlan | Order, plan: Plan | None, stopped: Callable[[], bool], peer: str
    ) -> Outcome:
        if stopped():
            raise training.Stopped
        match request:
            case OfferPlan():
                self._programs.of(plan)
                return Loaded()
            case Train():
                rows = self._datasets[request.dataset].training
                program = self._programs.of(plan)
                seed = request.seed if request.invite is None else fresh_seed(self._entropy)
                keeps = bool(program.plan.inputs_of(InputRole.KEPT))
                kept = self._keeping.before(peer, request) if keeps else {}
                trained, left = training.train(program, rows, request, seed, stopped, kept)
                self._keeping.after(peer, request, left)
                found = Memory.FOUND if kept else Memory.ANEW
                return replace(trained, memory=found if keeps else Memory.NONE)
            case Evaluate():
                program, rows = self._programs.of(plan), self._datasets[request.dataset].evaluation
                kept = self._keeping.beside(peer, request) if program.plan.inputs_of(InputRole.KEPT) else {}
                return training.evaluate(program, rows, request, kept)
            case AskStatistics():
                return Summed(training.statistics(self._datasets[request.dataset].training, request.kinds))
            case AskMock():
                mock = self._datasets[request.dataset].mock
                assert mock is not None  # the session knows which data sets have a stand-in
                return StoodIn(stand_in(mock))


def _in_a_sum(request: OfferPlan | Order) -> bool:
    """Return whether zeros can stand in for the answer: in a sum, and where they would not have to be noised."""
    private = isinstance(request, Train) and request.privacy is not None
    return not isinstance(request, OfferPlan) and masked_among(request) > 0 and not private


def _broken(request: OfferPlan | Order, error: Exception) -> Broken:
    """Return what a peer hears of `error`: a code alone of whatever may depend on the rows.

    Even a refusal of a plan may: the last batch of a pass has as many rows as are left over.
    """
    match error:
        case training.Unfit():
            return Broken(error.code, error.step, error.operation)
        case training.Stopped():
            return Broken(ErrorCode.SHUTTING_DOWN, begun=isinstance(request, Train) and request.privacy is not None)
        case PlanRefused() if isinstance(request, OfferPlan):
            return Broken(code_of(error), error.step, error.operation)
    return Broken(ErrorCode.STEP_FAILED, on_values=True)
