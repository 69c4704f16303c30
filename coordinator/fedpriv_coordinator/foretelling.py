"""Which workers' budgets will not pay all rounds of a private job, said before its first: by what they say is left."""

from __future__ import annotations

from collections.abc import Callable

from fedpriv.errors import PeerLost, WorkerRefused
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import AskBudget, BudgetLeft
from fedpriv_coordinator.job import Job
from fedpriv_coordinator.membership import Membership
from fedpriv_coordinator.private_job import running_out

ASK_SECONDS = 30.0
"""How long a worker may take to say what is left of its budget."""


def foretell(job: Job, members: Membership, note: Callable[[str], None]) -> None:
    """Note each budget that runs out within `job`, and in which round; one that is not told is left to the rounds."""
    if job.settled is None:
        return
    drawn = [job.chosen(number, tuple(members.connected)).workers for number in range(1, job.rounds + 1)]
    for worker, connection in members.connected.items():
        if worker not in job.settled.costs:
            continue
        try:
            left = runtime.run(connection.ask(AskBudget(0, job.dataset), timeout_seconds=ASK_SECONDS))
        except (WorkerRefused, PeerLost):
            continue
        assert isinstance(left, BudgetLeft)  # the connection accepts nothing else as an answer
        asked = [number for number, workers in enumerate(drawn, 1) if worker in workers]
        if warning := running_out(job.settled, worker, left.account, asked):
            note(warning)
