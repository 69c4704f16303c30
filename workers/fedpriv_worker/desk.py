"""The owner's desk: what was asked of this worker, what it means, and the owner's yes or no.

Questions come as JSON objects from the control socket, or from the command line where no worker runs; they are checked
here and answered with values that JSON holds. An approval is given only where it would let the request out: where a
rule of the data set waits for one, or where it takes back a denial; it names the whole id, and says again what it is
for. A denial stops this exact request whatever rules say. What a peer wrote is cut in lists, so that none can make them
too long to be answered. What leaves is decided by the door, every time: the desk lets nothing out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedpriv.errors import UsageError, nearest
from fedpriv.ids import DatasetName, WorkerName
from fedpriv.policy.decision import Standing, wrong_time
from fedpriv.policy.requests import ID_DIGITS
from fedpriv.policy.rules import Rule, cite, in_words
from fedpriv.storage.requests import MAXIMUM_WHY, Recorded
from fedpriv_worker.explain import NO_RULES, Explanation, explain, facts, grant_facts, same_in_ledger, standing_of
from fedpriv_worker.holdings import Holding, judge, permitting, usable_approval
from fedpriv_worker.records import Records
from fedpriv_worker.spending import spending
from fedpriv_worker.wording import in_text, moment, quoted

MAXIMUM_RELEASES = 1_000_000
LONGEST_SECONDS = 365 * 86_400.0
LISTED_WORDS, LISTED_KINDS, LISTED_KIND = 80, 4, 40
"""Characters of a purpose or a reason in a list, kinds of a request, and characters of each."""


class Desk:
    """One worker's records and holdings, as its owner asks about them; as safe between threads as the records are.

    `holdings` is None where no worker.toml is known, and with it no rule: then nothing is said about rules.
    """

    def __init__(self, worker: WorkerName, holdings: Sequence[Holding] | None, records: Records) -> None:
        self.worker = worker
        self._rules_known = holdings is not None
        self._holdings: Mapping[DatasetName, Holding] = {holding.name: holding for holding in holdings or ()}
        self._records = records

    def answer(self, request: Mapping[str, object]) -> object:
        """Return the answer to {"ask": what, ...}; raise `UsageError` for a question that the desk does not know."""
        answers: dict[str, tuple[Callable[..., object], dict[str, type]]] = {
            "status": (self.status, {}),
            "requests": (self.requests, {}),
            "datasets": (self.datasets, {}),
            "budget": (self.budget, {}),
            "show": (self.show, {"id": str}),
            "explain": (self.explain, {"id": str}),
            "approve": (self.approve, {"id": str, "releases": int, "expires_seconds": float, "again": bool}),
            "deny": (self.deny, {"id": str, "why": str}),
            "deny-all": (self.deny_all, {"peer": str, "dataset": str, "why": str}),
        }
        given = dict(request)
        what = given.pop("ask", None)
        if not isinstance(what, str) or what not in answers:
            raise UsageError(f"a desk is not asked {what!r:.40}; ask {', '.join(answers)}")
        method, wanted = answers[what]
        if given.keys() != wanted.keys():
            raise UsageError(
                f"{what!r} takes {', '.join(wanted) or 'nothing else'}, not {', '.join(given) or 'nothing'}"
            )
        return method(*(_checked(what, name, given[name], kind) for name, kind in wanted.items()))

    def status(self) -> dict[str, Any]:
        """Return the worker's name, how many requests stand where, and how many wait for the owner."""
        found = [each["standing"] for each in self._summaries()]
        return {
            "worker": self.worker,
            "datasets": list(self._holdings),
            "requests": {each: found.count(each) for each in sorted(set(found))},
            "waiting": found.count("waiting"),
        }

    def requests(self) -> list[dict[str, Any]]:
        """Return every request in a few values each, those that wait for the owner first, then the latest.

        "cut" names what is longer than a list shows it; `show` has all of it.
        """
        return sorted(map(_listed, self._summaries()), key=lambda each: each["standing"] != "waiting")

    def show(self, prefix: str) -> dict[str, Any]:
        """Return one request in a few values; `prefix` begins its id."""
        return self._summary(self._records.requests.find(prefix))

    def explain(self, prefix: str) -> dict[str, Any]:
        """Return one request explained: "text" for the owner and "facts" for a program."""
        explanation = self._explained(self._records.requests.find(prefix))
        return {"text": in_text(explanation), "facts": facts(explanation)}

    def approve(
        self,
        identity: str,
        releases: int,
        expires_seconds: float,
        again: bool = False,  # noqa: FBT001, FBT002 - a question's values come by position
    ) -> dict[str, Any]:
        """Approve a request for so many releases within so many seconds from now; return the approval and its order.

        `identity` is the whole id: whoever gives it has seen it beside what it stands for. `again` takes back a denial:
        without it, a request that was denied stays denied.
        """
        _check_measure(releases, expires_seconds)
        recorded = self._records.requests.find(identity)
        request = recorded.request
        _check_read(recorded, identity)
        if recorded.state == "denied" and not again:
            raise UsageError(
                f"{_denial(recorded)}; to approve it after all, say so with --again (in Python, again=True)"
            )
        standing = self._records.standing(request.dataset)
        rule = self._rule_for(recorded, standing)
        expires = standing.now - standing.behind + expires_seconds
        grant = self._records.requests.approve(
            request.id, rule=cite(rule), releases=releases, expires=expires, now=standing.now
        )
        return {
            "id": request.id,
            "approval": grant.digest,
            "rule": in_words(rule),
            "releases": grant.releases,
            "expires": grant.expires,
            "reverses": _denial(recorded) if recorded.state == "denied" else "",
            "recipient": request.recipient.name,
            "dataset": request.dataset,
            "asked": {
                "releases": list(request.releases),
                "kinds": list(request.kinds),
                "plan": request.plan,
                "purpose": request.purpose,
                "epochs": request.epochs,
                "batch_size": request.batch_size,
            },
        }

    def deny(self, prefix: str, why: str) -> dict[str, Any]:
        """Deny a request, withdraw its approval, keep the reason for the owner's own records; return the request."""
        _check_reason(why)
        recorded = self._records.requests.find(prefix)
        (denied,) = self._records.requests.deny(recorded.request.id, why=why, now=self._records.now())
        return self._summary(denied)

    def deny_all(self, peer: str, dataset: str, why: str) -> list[dict[str, Any]]:
        """Deny all that `peer` ("" for anybody) asked for so far of `dataset` ("" for any); return it as in a list."""
        _check_reason(why)
        recorded = self._records.requests.all(plans=False)
        chosen = _chosen([each for each in recorded if each.state != "denied"], peer, dataset)
        now = self._records.now()
        return [_listed(self._summary(each)) for each in self._records.requests.deny(*chosen, why=why, now=now)]

    def datasets(self) -> list[dict[str, Any]]:
        """Return what is held: each data set with its rows as the owner sees them, its rules in words, its budget."""
        budgets = {each["dataset"]: each for each in self.budget()}
        return [
            {
                "name": holding.name,
                "rows": holding.rows,
                "announced_rows": holding.announced,
                "told": holding.told,
                "rules": [{"rule": cite(rule), "words": in_words(rule)} for rule in holding.rules],
                "budget": budgets[holding.name],
            }
            for holding in self._holdings.values()
        ]

    def budget(self) -> list[dict[str, Any]]:
        """Return what was spent of each data set, by whom, and how often each rule was used in the last day."""
        return spending(self.worker, tuple(self._holdings.values()), self._records)

    def _summaries(self) -> list[dict[str, Any]]:
        recorded = self._records.requests.all(plans=False)
        names = {each.request.dataset for each in recorded}
        standings = {name: self._records.standing(name) for name in names}  # counted once, however many requests
        return [self._summary(each, standings[each.request.dataset]) for each in recorded]

    def _summary(self, recorded: Recorded, standing: Standing | None = None) -> dict[str, Any]:
        standing = standing or self._records.standing(recorded.request.dataset)
        request = recorded.request
        holding = self._holdings.get(request.dataset)
        rules = () if holding is None else holding.rules
        verdicts = judge(request, self.worker, rules, standing) if self._rules_known else None
        used = 0 if recorded.grant is None else standing.used.get(recorded.grant.digest, 0)
        return {
            "id": request.id,
            "standing": standing_of(recorded, verdicts, used),
            "state": recorded.state,
            "recipient": request.recipient.name,
            "role": request.recipient.role,
            "dataset": request.dataset,
            "releases": list(request.releases),
            "kinds": list(request.kinds),
            "plan": request.plan,
            "purpose": request.purpose,
            "epochs": request.epochs,
            "batch_size": request.batch_size,
            "first": recorded.first,
            "last": recorded.last,
            "times": recorded.times,
            "approval": grant_facts(recorded, used),
            "why": recorded.why,
        }

    def _explained(self, recorded: Recorded) -> Explanation:
        records, request = self._records, recorded.request
        siblings = [other for other in records.requests.all() if same_in_ledger(other.request, request)]
        holding = self._holdings.get(request.dataset)
        standing, entries = records.standing(request.dataset), records.entries()
        return explain(recorded, holding, self.worker, standing, entries, siblings, rules_known=self._rules_known)

    def _rule_for(self, recorded: Recorded, standing: Standing) -> Rule:
        """Return the rule that an approval would be given under; raise `UsageError` where none is needed or helps.

        A rule that is used up for today lets nothing out now, so that an approval helps: the peer hears the same.
        """
        if not self._rules_known:
            raise UsageError(f"an approval is given under a rule, and {NO_RULES}")
        request, holding = recorded.request, _holding(self._holdings, recorded.request.dataset)
        if wrong := wrong_time(standing):
            raise UsageError(f"no approval can be given: {wrong}")
        denied = recorded.state == "denied"
        reasons: tuple[str, ...] = ()
        without = replace(standing, grants=(), refused=frozenset())
        rule: Rule | None = permitting(request, self.worker, holding.rules, without)
        if rule is not None and not denied:
            raise UsageError(f"request {request.id} needs no approval: {in_words(rule)}; deny it to stop it")
        if rule is None:
            rule, reasons = usable_approval(request, self.worker, holding.rules, standing.now)
        if rule is None and denied:
            rule = permitting(request, self.worker, holding.rules, Standing(standing.now))
        if rule is None:
            why = "; ".join(reasons) or "it has no rule that waits for one"
            raise UsageError(
                f"an approval would let nothing out: data set {holding.name!r}: {why}; to be able to approve it, put "
                '{ rule = "approval" } into its release list in worker.toml and start the worker again'
            )
        return rule


def _holding(holdings: Mapping[DatasetName, Holding], name: DatasetName) -> Holding:
    if name not in holdings:
        known = ", ".join(holdings) or "none"
        raise UsageError(f"this worker has no data set {name!r}{nearest(name, holdings)}; it has {known}")
    return holdings[name]


def _chosen(recorded: Sequence[Recorded], peer: str, dataset: str) -> list[str]:
    """Return the ids of the requests of `peer` about `dataset`; raise `UsageError` where there is none."""
    if not (peer or dataset):
        raise UsageError("whose requests, or about which data set? Give a peer, a data set, or both")
    found = [
        each.request.id
        for each in recorded
        if peer in ("", each.request.recipient.name) and dataset in ("", each.request.dataset)
    ]
    if not found:
        asked = sorted({f"{each.request.recipient.name} for {each.request.dataset}" for each in recorded})
        those = ", ".join(asked[:LISTED_KINDS]) or "nobody"
        of = f"of {peer!r} " if peer else ""
        about = f"about {dataset!r} " if dataset else ""
        raise UsageError(
            f"no request {of}{about}is left to deny; asked have {those}{', ...' * (len(asked) > LISTED_KINDS)}"
        )
    return found


def _check_reason(why: str) -> None:
    """Raise `UsageError` unless `why` is a reason of one line."""
    if not why.strip() or len(why) > MAXIMUM_WHY or not why.isprintable():
        raise UsageError(f"a reason is one line of 1 to {MAXIMUM_WHY} characters; it stays in your own records")


def _check_measure(releases: int, expires_seconds: float) -> None:
    """Raise `UsageError` for an approval of no releases or too many, for no time or too long."""
    if not 1 <= releases <= MAXIMUM_RELEASES:
        raise UsageError(f"{releases} releases; approve 1 to {MAXIMUM_RELEASES:,}, one for each round of a job")
    if not (math.isfinite(expires_seconds) and 1 <= expires_seconds <= LONGEST_SECONDS):
        raise UsageError(f"an approval for {expires_seconds:g} s; give at least a second and at most 365 days")


def _check_read(recorded: Recorded, identity: str) -> None:
    """Raise `UsageError` unless `identity` is the whole id, and the plan that it is about can still be read."""
    request = recorded.request
    if identity.lower() != request.id:
        raise UsageError(
            f"an approval is for one order, so it takes the whole id, {ID_DIGITS} digits; copy it from "
            f"`fedpriv worker explain {identity}` once you have read that"
        )
    if request.plan and not recorded.plan:
        raise UsageError(
            f"the plan of request {request.id} made room after you denied it, so nobody could read what you approve; "
            "let its sender ask again with another purpose"
        )


def _denial(recorded: Recorded) -> str:
    """Return what was denied, when and why."""
    when = "" if recorded.decided is None else f" on {moment(recorded.decided)}"
    return f"you denied request {recorded.request.id}{when}: {quoted(recorded.why)}"


def _listed(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a request as a list shows it."""
    shown: dict[str, Any] = {name: summary[name][:LISTED_WORDS] for name in ("purpose", "why")}
    shown["kinds"] = [each[:LISTED_KIND] for each in summary["kinds"][:LISTED_KINDS]]
    return {**summary, **shown, "cut": [name for name in shown if shown[name] != summary[name]]}


def _checked(what: str, name: str, value: object, kind: type) -> object:
    """Return `value` as a `kind`; raise `UsageError` for another type."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LONGEST_SECONDS:
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool) is not (kind is bool):
        raise UsageError(f"{name!r} of {what!r} is a {kind.__name__}, not {value!r:.40}")
    return value
