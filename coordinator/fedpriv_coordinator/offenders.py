"""Who broke a round of sums, as far as that can be known: such a worker is invited to no other round of its run.

Without verifiable secret sharing a share that does not fit is its sender's fault or its holder's. So a worker counts as
an offender only when more others say so, each under its own signature, than may collude; or when no choice of shares
gives what it committed to. Holders that collude can bring about the second for an honest worker: it then misses the
rest of the run, and nothing of it is learnt.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from fedpriv.ids import WorkerName
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.server_states import Finding

BETWEEN = " -> "
"""Between sender and holder, in the subject of an abort about a share."""


def offenders(findings: Iterable[Finding], members: Iterable[WorkerName], colluding: int) -> frozenset[WorkerName]:
    """Return which of `members` broke a round, when `colluding` of them may lie about it together."""
    names, accusers, found = set(members), defaultdict(set), set()
    for finding in findings:
        if finding.abort is not None:
            accused = WorkerName(finding.abort.subject.partition(BETWEEN)[0])
            if accused in names and accused != finding.worker:
                accusers[accused].add(finding.worker)
        elif finding.reason is Reason.INCONSISTENT_SHARES and finding.holder is None:
            found.add(finding.worker)
    return frozenset(found | {accused for accused, by in accusers.items() if len(by) > colluding})
