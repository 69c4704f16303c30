"""The report of one or several ledgers: what left, when, to whom, and what proves it, one section for each ledger.

It writes HTML from sums and from what verification said. It reads nothing, verifies nothing, and takes every text that
came from a ledger for hostile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from fedpriv.cli.audit.markup import blank, code, facts, figures, instant, items, names, page, table, text
from fedpriv.cli.audit.meanings import FORMS, Form, by_form, meaning_of
from fedpriv.cli.audit.printing import counted, time_text
from fedpriv.cli.audit.records import accounting, article_30, rules, spending
from fedpriv.cli.audit.summing import Summary, Tally, joined
from fedpriv.cli.audit.timeline import picture, size_text
from fedpriv.ledger.reconciling import UNIDENTIFIED


@dataclass(frozen=True, slots=True)
class Proof:
    """What verification said: `failure` is "" where everything was as signed; `witnesses` are plain sentences."""

    vkey: str = ""
    pinned: bool = False
    signed: int = 0
    entries: int = 0
    root: str = ""
    witnesses: tuple[str, ...] = ()
    failure: str = ""

    @property
    def state(self) -> str:
        """One line of HTML: verified, and with whose key, or not."""
        if self.failure:
            return '<span class="bad">NOT VERIFIED</span>'
        key = "with the owner's key" if self.pinned else "with the key kept beside it"
        return f'<span class="good">verified</span> {key}'


@dataclass(frozen=True, slots=True)
class Ledger:
    """One ledger in the report: whose it is, what it adds up to, what proves it.

    `received` tells a coordinator's ledger, of what reached it, from a worker's.
    """

    keeper: str
    place: str
    summary: Summary
    proof: Proof
    received: bool = False


def document(ledgers: Sequence[Ledger], *, made: str, period: str) -> str:
    """Return the whole page; `made` says when and by what, `period` which time was asked for, "" for all."""
    one = len(ledgers) == 1
    verb = "reached" if all(ledger.received for ledger in ledgers) else "left"
    title = f"What {verb} {ledgers[0].keeper}" if one else f"What {verb} {len(ledgers)} workers"
    head = [
        f"<header><h1>{text(title)}</h1>",
        f'<p class="soft">{text(_span(ledgers))}{text(period)} Every message is counted by the signed ledger of its '
        "sender. No content of any message is in a ledger, or on this page.</p>",
        figures(_overview(ledgers)),
        "</header>",
    ]
    if not one:
        head.append(_together(ledgers))
    body = "\n".join(part for ledger in ledgers for part in _section(ledger))
    return page(title, "\n".join(head) + f"\n{body}\n<footer>{text(made)}</footer>")


def _span(ledgers: Sequence[Ledger]) -> str:
    times = [time for ledger in ledgers if ledger.summary.total.messages
             for time in (ledger.summary.total.first, ledger.summary.total.last)]  # fmt: skip
    if not times:
        return "No message is on record. "
    return f"From {time_text(min(times), fraction=False)} to {time_text(max(times), fraction=False)} UTC. "


def _overview(ledgers: Sequence[Ledger]) -> Iterator[tuple[str, str, str]]:
    summaries = [ledger.summary for ledger in ledgers]
    messages = sum(summary.total.messages for summary in summaries)
    again = sum(summary.total.again for summary in summaries)
    size = sum(summary.total.bytes for summary in summaries)
    yield "Bytes", size_text(size), f"{size:,} bytes"
    yield "Messages", f"{messages:,}", f"{again:,} of them sent again" if again else "none sent again"
    private = sum(summary.private.messages for summary in summaries)
    yield "Derived from data", f"{private:,}", size_text(sum(summary.private.bytes for summary in summaries))
    if not any(ledger.received for ledger in ledgers):
        yield "Results in clear", *_in_clear(summaries)
    yield "Data sets", f"{sum(len(summary.datasets) for summary in summaries):,}", ""
    recipients = {name for summary in summaries for name in summary.recipients} - {UNIDENTIFIED}
    yield "Recipients" if not all(ledger.received for ledger in ledgers) else "Senders", f"{len(recipients):,}", ""
    verified = sum(not ledger.proof.failure for ledger in ledgers)
    yield "Ledgers verified", f"{verified} of {len(ledgers)}", ""


def _in_clear(summaries: Sequence[Summary]) -> tuple[str, str]:
    """Return how many messages held a result of one worker in clear, and how many bytes, or what is not known of it."""
    found = [dict(by_form(summary.kinds)) for summary in summaries]
    clear, unknown = (joined(forms.get(form, Tally()) for forms in found) for form in (Form.CLEAR, Form.UNKNOWN))
    size = size_text(clear.bytes) if clear.messages else ""
    beside = f"{unknown.messages:,} of unknown kinds" if unknown.messages else size
    return f"{clear.messages:,}" if clear.messages else "none", beside


def _together(ledgers: Sequence[Ledger]) -> str:
    rows = (
        (text(ledger.keeper), f"{ledger.summary.total.messages:,}", f"{ledger.summary.total.bytes:,}",
         _recipient_names(ledger.summary), ledger.proof.state)
        for ledger in ledgers
    )  # fmt: skip  # one row
    return "<h3>By worker</h3>" + table(("Worker", "Messages", "Bytes", "Recipients", "Ledger"), rows, right=(1, 2))


def _recipient_names(summary: Summary) -> str:
    return names({name: tally.messages for name, tally in summary.recipients.items() if name != UNIDENTIFIED})


def _section(ledger: Ledger) -> Iterator[str]:
    summary = ledger.summary
    what = "reached" if ledger.received else "left"
    yield f'<section class="ledger"><h2>{text(ledger.keeper)}: {ledger.proof.state}</h2>'
    yield _proof(ledger)
    yield f"<h3>When it {what}</h3>"
    yield picture(summary.histogram) or '<p class="soft">No message is on record.</p>'
    if summary.kinds:
        if not ledger.received:
            yield f"<h3>What its recipients can read</h3>{_readable(summary)}"
        yield f"<h3>By kind of message</h3>{_kinds(summary.kinds)}"
        other = "Sender" if ledger.received else "Recipient"
        yield f"<h3>By {other.lower()}</h3>" + _tallies(other, summary.recipients)
    if not ledger.received:
        yield "<h3>By data set</h3>"
        yield (
            _tallies("Data set", summary.datasets)
            if summary.datasets
            else ('<p class="soft">Nothing that derives from a data set left.</p>')
        )
        yield f"<h3>Privacy budget</h3>{spending(summary)}<h3>Approvals used</h3>{_approvals(summary)}"
        yield "<h3>Record of processing activities (GDPR, Article 30(1))</h3>"
        yield article_30(summary, _proofs(ledger))
        yield f"<h3>Accounting of disclosures (45 CFR 164.528(b)(2))</h3>{accounting(summary)}"
        yield f"<p>{blank('addresses of the recipients, where known')}</p>"
    yield "</section>"


def _proof(ledger: Ledger) -> str:
    proof = ledger.proof
    newer = proof.entries - proof.signed
    signed = f"{proof.signed:,}" + (f", and {newer:,} newer ones that the next checkpoint signs" if newer else "")
    warning = "" if proof.pinned or proof.failure else (
        " It was kept beside the ledger: it proves who signed only once compared with the owner's, the KEY below."
    )  # fmt: skip
    command = f"fedpriv audit verify {quote(ledger.place)} --key {quote(proof.vkey) if proof.pinned else 'KEY'}"
    if proof.failure:
        wrong = f'<span class="bad">{text(proof.failure)}</span>'
        return facts([("What is wrong", wrong), ("Read from", code(ledger.place))])
    return facts(
        [
            ("Entries signed", text(signed)),
            ("Root of the tree", code(proof.root)),
            ("Key", code(proof.vkey) + text(warning)),
            ("Witnessed", items(map(text, proof.witnesses))),
            ("Check it yourself", code(command)),
        ]
    )


def _proofs(ledger: Ledger) -> list[str]:
    if ledger.proof.failure:
        return [f'The ledger is <span class="bad">NOT VERIFIED</span>: {text(ledger.proof.failure)}']
    return [f"The ledger is {ledger.proof.state}.", *map(text, ledger.proof.witnesses)]


def _tallies(what: str, tallies: dict[str, Tally]) -> str:
    rows = (
        (_named(name), *_counts(tally), rules(tally), names(tally.purposes, none="none"))
        for name, tally in _largest(tallies)
    )
    headers = (what, "Messages", "Bytes", "First (UTC)", "Last (UTC)", "Rules used", "Purposes")
    return table(headers, rows, right=(1, 2))


def _readable(summary: Summary) -> str:
    """Return in which form messages left, and first of all whether any result of this worker alone did in clear."""
    forms = dict(by_form(summary.kinds))
    rows = (
        (text(form.value), text(FORMS[form]), f"{tally.messages:,}", f"{tally.bytes:,}")
        for form, tally in forms.items()
    )
    sentences = [sentence for form in forms if (sentence := _sentence(form, forms[form]))]
    if Form.CLEAR not in forms and Form.UNKNOWN not in forms:
        nothing = "No message held an update, a metric, a statistic or any other result of this worker in clear."
        sentences.insert(0, f'<span class="good">{nothing}</span>')
    told = f"<p>{' '.join(sentences)}</p>"
    return told + table(("Form", "What that is", "Messages", "Bytes"), rows, right=(2, 3))


def _sentence(form: Form, tally: Tally) -> str:
    """Return what an officer has to know of messages of this form, as HTML; "" where the table says enough."""
    size = size_text(tally.bytes)
    match form:
        case Form.CLEAR:
            return f"<strong>{counted(tally.messages, 'message')} ({size}) left in clear.</strong>"
        case Form.UNKNOWN:
            unknown = f"{counted(tally.messages, 'message')} ({size}) of a kind that is not known"
            return f'<span class="bad">{unknown}: nothing can be said of them.</span>'
        case Form.MASKED:
            return (
                f"What was computed from its rows left masked, {counted(tally.messages, 'message')} ({size}): random "
                "numbers to whoever received them. Only the sum with those of other workers can be read."
            )
        case Form.PROTOCOL | Form.CONTROL:
            return ""


def _kinds(kinds: dict[str, Tally]) -> str:
    rows = (
        (_kind(name), text(meaning_of(name).holds), *_counts(tally))
        for form in Form
        for name, tally in _largest(kinds)
        if meaning_of(name).form is form
    )
    return table(
        ("Kind of message", "What it is", "Messages", "Bytes", "First (UTC)", "Last (UTC)"), rows, right=(2, 3)
    )


def _kind(name: str) -> str:
    """Return the name of a kind; ours never break in two."""
    return text(name) if meaning_of(name).form is Form.UNKNOWN else f'<span class="d">{text(name)}</span>'


def _named(name: str) -> str:
    before = '<br><span class="soft">before the peer proved who it is</span>' if name == UNIDENTIFIED else ""
    return text(name) + before


def _counts(tally: Tally) -> tuple[str, str, str, str]:
    again = f'<br><span class="soft">{tally.again:,} again</span>' if tally.again else ""
    return f"{tally.messages:,}{again}", f"{tally.bytes:,}", instant(tally.first), instant(tally.last)


def _approvals(summary: Summary) -> str:
    if not summary.approvals:
        return '<p class="soft">No release was made under an approval given by hand.</p>'
    rows = (
        (code(digest), f"{tally.releases:,}", f"{tally.bytes:,}", instant(tally.last))
        for digest, tally in _largest(summary.approvals)
    )
    return table(("Approval", "Releases", "Bytes", "Last (UTC)"), rows, right=(1, 2))


def _largest(tallies: dict[str, Tally]) -> list[tuple[str, Tally]]:
    return sorted(tallies.items(), key=lambda each: (-each[1].bytes, each[0]))
