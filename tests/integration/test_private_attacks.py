"""A coordinator that lies about privacy, against real sessions: it gains nothing, and what it burns is bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cheating import PATIENCE_SECONDS, Cheat
from fleets import Fleet, virtual_fleet

import fedpriv as fp
from fedpriv.entropy import SystemEntropy
from fedpriv.errors import WorkerRefused
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.privacy.accountants import epsilon_by_rdp
from fedpriv.privacy.budget import epsilon_of
from fedpriv.privacy.mechanisms import Gaussian
from fedpriv.privacy.relations import Relation
from fedpriv.secagg.messages import Abort, Invite, Survivors
from fedpriv.secagg.roster import Member, Roster
from fedpriv.secagg.vector import Part, with_counts
from fedpriv.storage.rosters import new_identity
from fedpriv.transport.runtime import runtime
from fedpriv.wire.messages import Train
from fedpriv.wire.private import Private

NAMES, VICTIM = ("alice", "bob", "carol", "dave", "erin"), "bob"
MODE = fp.LocalDP(noise_multiplier=4.0)
ONCE = epsilon_by_rdp(Gaussian(4.0), 1e-5, Relation.REPLACE_ONE)
SAID = Private(MODE, 3, len(NAMES))


class PrivateCheat(Cheat):
    """A cheat whose orders are private, and whose descriptors say so."""

    said = SAID

    def order(self) -> Train:
        return replace(Cheat.order(self), privacy=self.said)

    def descriptor(self, order: Train, **changes: object):
        private = order.privacy
        assert private is not None
        return replace(Cheat.descriptor(self, order), **{"privacy": private.text(), **changes})


def fleet_of(tmp_path: Path, rule: object) -> Fleet:
    held = {}
    for at, name in enumerate(NAMES):
        features = torch.randn(40, 4, generator=torch.Generator().manual_seed(at))
        data = fp.Dataset("toy", features, features.sum(1) > 0, release=[rule], budget=fp.Budget(20.0, 1e-5))
        held[name] = [data]
    return virtual_fleet(held, tmp_path)


@pytest.fixture
def cheat_under(tmp_path: Path) -> Iterator[Callable[[object], PrivateCheat]]:
    fleets: list[Fleet] = []

    def make(rule: object) -> PrivateCheat:
        fleets.append(fleet_of(tmp_path, rule))
        return PrivateCheat(fleets[-1])

    yield make
    for fleet in fleets:
        fleet.close()


SUM = fp.SecureSum(maximum_epsilon=8.0)


def spent(cheat: Cheat, worker: str) -> float:
    return epsilon_of(cheat.fleet.journals[worker].holds.spent(DatasetName("toy")), 1e-5)


def test_an_honest_private_round_is_the_control(cheat_under: Callable[[object], PrivateCheat]) -> None:
    cheat = cheat_under(SUM)
    cheating, summed = cheat.play()
    assert summed.sum is not None
    assert cheating.aborts() == {}
    assert spent(cheat, VICTIM) == pytest.approx(ONCE, rel=1e-3)


@pytest.mark.parametrize(
    "lie",
    [
        replace(SAID, mode=replace(MODE, noise_multiplier=3.5)),
        replace(SAID, mode=replace(MODE, clip=100.0)),
        replace(SAID, workers=50),
        replace(SAID, rounds=2),
        None,
    ],
    ids=["less noise", "larger clip", "another cohort", "fewer rounds", "none at all"],
)
def test_one_worker_that_is_told_something_else_ends_its_part_and_gets_its_budget_back(
    cheat_under: Callable[[object], PrivateCheat], lie: Private | None
) -> None:
    cheat = cheat_under(SUM if lie is not None else fp.SecureSum())
    cheating, _ = cheat.play(
        alter_order=lambda worker, order: replace(order, privacy=lie) if worker == VICTIM else order
    )
    assert cheating.aborts()[VICTIM] == ("descriptor-differs", "plan")
    assert "secagg-masked" not in cheat.fleet.kinds(VICTIM)
    assert spent(cheat, VICTIM) == 0.0


def test_a_vector_in_which_workers_weigh_their_rows_is_refused_by_all(
    cheat_under: Callable[[object], PrivateCheat],
) -> None:
    cheat = cheat_under(SUM)
    right = cheat.descriptor(cheat.order()).vector
    weighed = with_counts([part for part in right.parts if isinstance(part, Part)][:-1], maximum_weight=100)
    cheating, summed = cheat.play(vector=weighed)
    assert summed.sum is None
    assert set(cheating.aborts().values()) == {("descriptor-differs", "vector")}
    assert {spent(cheat, name) for name in NAMES} == {0.0}


def test_less_noise_for_everybody_is_more_than_the_rule_allows(
    cheat_under: Callable[[object], PrivateCheat],
) -> None:
    cheat = cheat_under(SUM)
    cheat.said = replace(SAID, mode=replace(MODE, noise_multiplier=1.0))
    _, summed = cheat.play()
    assert summed.sum is None
    assert {part.code for part in summed.parts.values()} == {"RELEASE_DENIED"}
    assert {spent(cheat, name) for name in NAMES} == {0.0}


def test_rounds_that_are_aborted_once_the_words_are_there_burn_no_more_than_the_rule_says_a_day(
    cheat_under: Callable[[object], PrivateCheat],
) -> None:
    cheat = cheat_under(replace(SUM, rounds_per_day=2))
    for _ in range(2):
        _, summed = cheat.play(
            lambda _, message: None if isinstance(message, Survivors) else message, deadlines_seconds=(1.0,) * 5
        )
        assert summed.sum is None
    burnt = spent(cheat, VICTIM)
    assert ONCE < burnt < 2 * ONCE
    _, summed = cheat.play()
    assert {part.code for part in summed.parts.values()} == {"RELEASE_DENIED"}
    assert spent(cheat, VICTIM) == burnt


def test_an_order_in_clear_for_what_only_a_sum_protects_is_refused(
    cheat_under: Callable[[object], PrivateCheat],
) -> None:
    cheat = cheat_under(fp.DifferentialPrivacy(8.0))
    shared = Private(fp.DistributedDP(noise_multiplier=4.0, scale_bits=10), 3, len(NAMES), 1)
    order = replace(cheat.order(), privacy=shared)

    async def asked() -> None:
        connection = await cheat.coordinator._offering.ready(WorkerName(VICTIM), cheat.job.training)
        await connection.ask(order, timeout_seconds=PATIENCE_SECONDS)

    with pytest.raises(fp.WorkerRefused) as refusal:
        runtime.run(asked())
    assert refusal.value.code == "BAD_REQUEST"
    assert spent(cheat, VICTIM) == 0.0


def test_a_repeated_order_gets_the_same_bytes_and_is_billed_once(
    cheat_under: Callable[[object], PrivateCheat],
) -> None:
    """Two draws of noise on one update would show more of it than one."""
    cheat = cheat_under(fp.DifferentialPrivacy(8.0))
    order = cheat.order()

    async def asked():
        connection = await cheat.coordinator._offering.ready(WorkerName(VICTIM), cheat.job.training)
        return [await connection.ask(order, timeout_seconds=PATIENCE_SECONDS) for _ in range(2)]

    first, second = runtime.run(asked())
    assert first.weight == second.weight == 1.0
    for name, tensor in first.delta:
        assert torch.equal(tensor, second.delta[name])
    assert spent(cheat, VICTIM) == pytest.approx(ONCE, rel=1e-3)
    entries = [entry.draft for entry in cheat.fleet.journals[VICTIM].entries() if entry.draft.kind == "update"]
    assert [bool(draft.dp.event) for draft in entries] == [True, False]
    assert entries[1].source >= 0


def test_shared_noise_counts_on_nobody_who_may_collude_of_the_whole_roster(
    cheat_under: Callable[[object], PrivateCheat],
) -> None:
    """Of ten enrolled three may collude, and the five who are invited may be these three and two more."""
    cheat = cheat_under(fp.SecureSum(maximum_epsilon=20.0))
    own = cheat.enrolments[VICTIM]
    assert own is not None
    others = tuple(Member(WorkerName(f"other-{at}"), new_identity(SystemEntropy()).public) for at in range(5))
    roster = Roster(own.roster().federation, own.roster().version, (*own.roster().members, *others))
    cheat.fleet.workers[VICTIM].enrolment = replace(own, roster=lambda: roster)
    heard = []
    for counted in (1, 3):
        said = Private(fp.DistributedDP(noise_multiplier=8.0, scale_bits=8), 3, 5, counted)
        order = replace(cheat.order(), privacy=said)
        invite = Invite(cheat.descriptor(cheat.order(), privacy=said.text(), roster=roster.digest, threshold=5))
        heard += cheat.ask_one(VICTIM, replace(order, invite=invite))
    assert [type(each) for each in heard] == [WorkerRefused, Abort]  # the second for its vector alone
    assert heard[0].code == "BAD_REQUEST"
    assert spent(cheat, VICTIM) == 0.0
