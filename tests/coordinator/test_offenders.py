"""Who broke a round of sums."""

from __future__ import annotations

from fedpriv.secagg.messages import Abort
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.server_states import Finding
from fedpriv_coordinator.offenders import offenders

NAMES = ("alice", "bob", "carol", "dave", "erin")


def says(worker: str, subject: str) -> Finding:
    abort = Abort(b"s" * 32, 2, Reason.UNDECIPHERABLE_SHARE, subject, b"")
    return Finding(worker, abort.reason, "it stopped", abort)


def test_one_more_accuser_than_may_collude_is_enough() -> None:
    by_one = [says("alice", "dave -> alice")]
    assert offenders(by_one, NAMES, 1) == set()
    assert offenders([*by_one, says("bob", "dave -> bob")], NAMES, 1) == {"dave"}
    assert offenders(by_one, NAMES, 0) == {"dave"}


def test_one_who_says_it_twice_is_one() -> None:
    assert offenders([says("alice", "dave -> alice"), says("alice", "dave -> alice")], NAMES, 1) == set()


def test_nobody_is_accused_of_a_field_or_by_itself() -> None:
    findings = [says("alice", "minimum_cohort"), says("bob", "minimum_cohort"), says("dave", "dave"), says("erin", "")]
    assert offenders(findings, NAMES, 0) == set()


def test_whose_shares_never_fit_broke_the_round_and_one_share_that_does_not_fit_is_no_proof() -> None:
    whole = Finding("dave", Reason.INCONSISTENT_SHARES, "the shares do not give what it published")
    one = Finding("carol", Reason.INCONSISTENT_SHARES, "one share did not fit", holder="erin")
    assert offenders([whole, one, Finding("bob", None, "went away")], NAMES, 1) == {"dave"}
