"""What an owner may know of each of its data sets without reading a row: rules, budget, sizes; and what rules say.

A holding is made from a loaded data set or from its declaration alone; what only the rows can say is then None.
`judge` asks the owner's rules about a request that is on record, exactly as the door would. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fedpriv.ids import DatasetName, PeerName, WorkerName
from fedpriv.labels import Label, private
from fedpriv.policy.decision import Ask, Permit, Protection, Release, Standing, decide
from fedpriv.policy.requests import Grant, ReleaseRequest
from fedpriv.policy.rules import Approval, Rule, cite
from fedpriv.privacy.budget import Budget
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv_worker.config import DatasetConfig
from fedpriv_worker.datasets import Dataset, announced_rows
from fedpriv_worker.promises import RowCount

RELEASES: tuple[Release, ...] = ("update", "metrics", "statistics", "mock", "value")
_WITH_KINDS = ("metrics", "statistics")


@dataclass(frozen=True, slots=True)
class Holding:
    """One data set as its owner knows it; `rows` and `features` are None where the rows are not loaded.

    `told` is how much of the row count peers are told, `stand_in` what a mock holds.
    """

    name: DatasetName
    rules: tuple[Rule, ...]
    told: RowCount
    budget: Budget | None = None
    rows: int | None = None
    features: int | None = None
    stand_in: tuple[TensorSpec, ...] = ()

    @property
    def announced(self) -> int | None:
        """The number of rows that peers are told, or None where they are told nothing or it is not known."""
        return None if self.rows is None else announced_rows(self.rows, self.told)

    def label(self, worker: WorkerName) -> Label:
        """Return the label of the rows."""
        return private(self.name, PeerName(worker))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say now of one part of a request: the permit, or why each rule does not let it out.

    `pending` says that an approval is all that is missing.
    """

    release: Release
    permit: Permit | None
    reasons: tuple[str, ...] = ()
    pending: bool = False


def holding_of(dataset: Dataset) -> Holding:
    """Return the holding of a data set whose rows are loaded."""
    mock = dataset.mock
    specs = () if mock is None else TensorSet({"features": mock.features, "target": mock.target}).specs
    features = dataset.features.shape[1] if dataset.features.dim() == 2 else 0
    return Holding(dataset.name, dataset.release, dataset.rows, dataset.budget, len(dataset), features, specs)


def declared(config: DatasetConfig) -> Holding:
    """Return the holding of a data set that is declared and not loaded."""
    return Holding(DatasetName(config.name), config.release, config.rows, config.budget)


def judge(
    request: ReleaseRequest, worker: WorkerName, rules: Sequence[Rule], standing: Standing
) -> tuple[Verdict, ...]:
    """Return what `rules` say of each part of `request`, were it carried out as it asks: in clear, or in a sum."""
    label = private(request.dataset, PeerName(worker))
    hidden = Protection(request.masked_among, request.epsilon)
    verdicts = []
    for release in RELEASES:
        if release in request.releases:
            kinds = request.kinds if release in _WITH_KINDS else ()
            ask = Ask(release, label, request.recipient, kinds, request.purpose, request, hidden)
            found = decide(ask, {request.dataset: tuple(rules)}, standing)
            if isinstance(found, Permit):
                verdicts.append(Verdict(release, found))
            else:
                verdicts.append(Verdict(release, None, found.reasons, found.pending))
    return tuple(verdicts)


def permitting(request: ReleaseRequest, worker: WorkerName, rules: Sequence[Rule], standing: Standing) -> Rule | None:
    """Return a rule under which `request` leaves as things stand, or None."""
    permits = [verdict.permit for verdict in judge(request, worker, rules, standing)]
    return permits[0].rule if permits and permits[0] is not None and None not in permits else None


def usable_approval(
    request: ReleaseRequest, worker: WorkerName, rules: Sequence[Rule], now: float
) -> tuple[Approval | None, tuple[str, ...]]:
    """Return the first approval rule under which a yes of the owner would let `request` out, or why none would.

    What was used up today does not matter: an approval lasts longer than a day.
    """
    reasons: list[str] = []
    for rule in rules:
        if isinstance(rule, Approval):
            standing = Standing(now, (Grant(request, cite(rule), 1, now + 1),), {})
            verdicts = judge(request, worker, rules, standing)
            refused = [reason for verdict in verdicts if verdict.permit is None for reason in verdict.reasons]
            if verdicts and not refused:
                return rule, ()
            reasons += refused
    return None, tuple(dict.fromkeys(reasons))
