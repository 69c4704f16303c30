"""What workers measure of a model on their own validation rows, one by one or in a sum.

A round does not fail because a measurement does: whoever gives none is recorded with the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fedpriv.errors import PeerLost, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.plans.plan import Plan
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import ErrorCode, Evaluate, Evaluation
from fedpriv_coordinator.inspection import why_unusable_evaluation
from fedpriv_coordinator.job import Job, taken_by
from fedpriv_coordinator.offering import Offering
from fedpriv_coordinator.round_records import Measured, sums_of
from fedpriv_coordinator.secure_rounds import Asked, SecureRounds, mean_metrics

_PENDING = ErrorCode.APPROVAL_PENDING.name
_MINDED = (ErrorCode.RELEASE_DENIED.name, ErrorCode.APPROVAL_DENIED.name, _PENDING)
"""Refusals that are about what would leave, so that asking for less may help."""


class Measuring:
    """Asks the workers of a job for metrics of its models; with `secure`, what they answer is seen in sums alone."""

    def __init__(self, job: Job, offering: Offering, secure: SecureRounds | None) -> None:
        self._job = job
        self._offering = offering
        self._secure = secure

    async def measured(self, number: int, model: TensorSet, names: Sequence[WorkerName]) -> Measured:
        """Return what those of `names` that answer in time measured on their own rows, or why others did not."""
        plan, job = self._job.evaluation, self._job
        if plan is None:
            return Measured()
        order = Evaluate(
            request=0,
            job=job.id,
            round=number,
            dataset=job.dataset,
            plan=plan.digest,
            batch_size=job.local.batch_size,
            metrics=job.worker_metrics,
            purpose=job.purpose,
            model=taken_by(plan, model),
        )
        asked = ", ".join(job.worker_metrics)
        if self._secure is not None:
            what = Asked(order, (), job.quorum, job.deadline_seconds)
            summed = await self._secure.ask(what, lambda worker: self._offering.ready(worker, plan))
            sums = sums_of("metrics", summed)
            if summed.sum is None:
                return Measured(dict.fromkeys(names, f"{asked}: {summed.reason}"), {}, summed.findings, sums)
            return Measured({}, mean_metrics(summed.sum, job.worker_metrics), summed.findings, sums)
        replies = await asyncio.gather(*(self._measure(worker, order, plan) for worker in names))
        return Measured(
            {
                worker: f"{asked}: {reply}" if isinstance(reply, str) else reply
                for worker, reply in zip(names, replies, strict=True)
            }
        )

    async def _measure(self, worker: WorkerName, order: Evaluate, plan: Plan) -> Evaluation | str:
        """Return the worker's evaluation, or why there is none: a round does not fail because a measurement does."""
        job = self._job
        try:
            connection = await self._offering.ready(worker, plan)
            reply = await connection.ask(order, timeout_seconds=job.deadline_seconds)
        except WorkerRefused as refusal:
            return f"{refusal}{_remedy(refusal, job.worker_metrics)}"
        except PeerLost as loss:
            return str(loss)
        if not isinstance(reply, Evaluation):
            return f"it answered with a {type(reply).__name__}"
        unusable = why_unusable_evaluation(reply, job.worker_metrics, self._offering.announced_rows(worker))
        return reply if unusable is None else f"what it gave cannot be used: {unusable}; ask its owner"


def with_metrics(refusal: WorkerRefused, metrics: Sequence[str]) -> WorkerRefused:
    """Return `refusal` of an update, saying what was asked for beside it where that may be why."""
    if not metrics or refusal.code not in _MINDED:
        return refusal
    named = ", ".join(metrics)
    return WorkerRefused(
        f"{refusal} (it was asked for its update and, with it, {named}: without {named} in worker_metrics it is asked "
        "for the update alone)",
        code=refusal.code,
        step=refusal.step,
        operation=refusal.operation,
    )


def _remedy(refusal: WorkerRefused, metrics: Sequence[str]) -> str:
    """Return what would let metrics out, or do without them, where rules or the owner are why there are none."""
    if refusal.code not in _MINDED:
        return ""
    kinds = ", ".join(f'"{name}"' for name in metrics)
    rule = f'the rule {{ rule = "metrics", kinds = [{kinds}] }} lets them out; '
    instead = "without worker_metrics, as with evaluate, nobody is asked for them"
    return f" ({rule if refusal.code == ErrorCode.RELEASE_DENIED.name else ''}{instead})"
