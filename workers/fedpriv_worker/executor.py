"""The one narrow way to the rows: carry out a request, return an outcome.

An executor holds the data sets and the compiled plans. It reports no label and decides no release; it is given a
request that the session permitted, and answers with numbers or with a code. Nothing that torch says about a
failure goes further than this file, because torch's messages quote values.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import torch
from fedpriv.plans.interpreter import Program

from fedpriv.errors import OperationNotAllowed, PlanRefused, QuotaExceeded, StepFailed, TorchVersionMismatch
from fedpriv.ids import DatasetName, PlanDigest
from fedpriv.plans.validation import Quota, validate
from fedpriv.wire.messages import AskStatistics, ErrorCode, Evaluate, OfferPlan, Request, Train
from fedpriv_worker import training
from fedpriv_worker.datasets import Dataset
from fedpriv_worker.session import Broken, Loaded, Outcome, Summed

log = logging.getLogger("fedpriv.worker")


class Executor(Protocol):
    """Carries out one request at a time; never raises, never blocks on a peer, keeps plans until it is dropped."""

    def carry_out(self, request: Request) -> Outcome:
        """Return what `request` came to."""
        ...


class InProcessExecutor:
    """Runs plans in this process, over data sets that this process loaded."""

    def __init__(self, datasets: Sequence[Dataset], quota: Quota | None = None, *, threads: int | None = None) -> None:
        """Hold `datasets`; use `threads` of torch's threads in whichever thread calls, or leave them as they are."""
        self._datasets: dict[DatasetName, Dataset] = {dataset.name: dataset for dataset in datasets}
        self._programs: dict[PlanDigest, Program] = {}
        self._quota = quota or Quota()
        self._threads = threads

    def carry_out(self, request: Request) -> Outcome:
        """Return what `request` came to; every failure is a code."""
        if self._threads is not None and torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        try:
            return self._outcome(request)
        except training.Unfit as unfit:
            return Broken(unfit.code)
        except StepFailed as failure:
            return Broken(ErrorCode.STEP_FAILED, failure.step, failure.operation, on_values=True)
        except PlanRefused as refusal:
            return Broken(_code(refusal), refusal.step, refusal.operation)
        except Exception as error:  # noqa: BLE001 - whatever torch raises, its text quotes values and stays here
            log.error("request %d failed: %s", request.request, type(error).__name__)  # noqa: TRY400 - no traceback
            return Broken(ErrorCode.STEP_FAILED, on_values=True)

    def _outcome(self, request: Request) -> Outcome:
        match request:
            case OfferPlan(plan=plan):
                if plan.digest not in self._programs:
                    self._programs[plan.digest] = Program(validate(plan, self._quota))
                return Loaded()
            case Train():
                rows = self._datasets[request.dataset].training
                return training.train(self._programs[request.plan], rows, request)
            case Evaluate():
                rows = self._datasets[request.dataset].evaluation
                return training.evaluate(self._programs[request.plan], rows, request)
            case AskStatistics():
                return Summed(training.statistics(self._datasets[request.dataset].training, request.kinds))


def _code(refusal: PlanRefused) -> ErrorCode:
    match refusal:
        case OperationNotAllowed():
            return ErrorCode.OPERATION_NOT_ALLOWED
        case QuotaExceeded():
            return ErrorCode.OVER_QUOTA
        case TorchVersionMismatch():
            return ErrorCode.TORCH_VERSION
        case _:
            return ErrorCode.PLAN_REFUSED
