"""Who comes and goes rests, for longer each time, and never when a round needs it."""

from __future__ import annotations

from fedpriv.ids import WorkerName
from fedpriv_coordinator.experiment import RoundRecord, WorkerRound, WorkerStatus
from fedpriv_coordinator.resting import resting

A, B, C = WorkerName("a"), WorkerName("b"), WorkerName("c")
CODES: dict[str, WorkerStatus] = {"L": "lost", "F": "folded", "R": "refused"}


def history(of_a: str) -> list[RoundRecord]:
    """Return rounds in which b is folded, and a what each letter says: lost, folded, refused, or "-" for not asked."""

    def part(worker: str, status: WorkerStatus) -> WorkerRound:
        return WorkerRound(worker, status, 1.0, 0, 0, 0.0)

    return [
        RoundRecord(
            number, "complete", 0.0, None, {}, {}, 0, 0,
            (part("b", "folded"), *(() if letter == "-" else (part("a", CODES[letter]),))),
        )
        for number, letter in enumerate(of_a, 1)
    ]  # fmt: skip


def rests(of_a: str, *, needed: int = 1) -> bool:
    return A in resting(history(of_a), (A, B, C), lambda workers: workers >= needed)


def test_three_losses_in_a_row_are_followed_by_two_rounds_of_rest() -> None:
    assert not rests("LL")
    assert rests("LLL")
    assert rests("LLL-")
    assert not rests("LLL--")


def test_a_loss_after_a_rest_is_followed_by_a_longer_one() -> None:
    assert [rests("LLL--L" + "-" * rounds) for rounds in range(5)] == [True, True, True, True, False]
    assert rests("LLL--L----L" + "-" * 7)
    assert rests("LLL--L----L--------L" + "-" * 7)
    assert not rests("LLL--L----L--------L" + "-" * 8)


def test_one_round_that_is_seen_through_forgets_everything() -> None:
    assert not rests("LLFL")
    assert not rests("LLL--F")
    assert not rests("LLL--FL")
    assert not rests("LLL--FLLL--")
    assert not rests("LLRL")


def test_nobody_rests_whom_a_round_needs() -> None:
    assert not rests("LLL", needed=3)
    assert rests("LLL", needed=2)


def test_others_are_asked_as_ever() -> None:
    assert resting(history("LLLL"), (B, C), lambda _: True) == frozenset()
    assert resting([], (A, B), lambda _: True) == frozenset()
