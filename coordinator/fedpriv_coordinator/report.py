"""The report of a run: one printable HTML page without scripts and without anything to load.

Every text that came from outside (names, purposes, reasons) is escaped. The page repeats what it is given; it
verifies nothing, and says for each worker whether somebody did.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from html import escape
from shlex import quote

from fedpriv_coordinator import plots
from fedpriv_coordinator.experiment import (
    Egress,
    History,
    JobFacts,
    LedgerSummary,
    LostWorker,
    RoundFinding,
    RoundRecord,
    SumRecord,
    size_text,
)
from fedpriv_coordinator.privacy_report import PrivacyReport
from fedpriv_coordinator.telling import MORE_CLIP

__all__ = ["Egress", "JobFacts", "LedgerSummary", "ReportInput", "page"]

_STYLE = """
:root { color-scheme: light; --ink: #111827; --soft: #4b5563; --line: #e5e7eb; --good: #0f6b3c; --bad: #b42318; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 2rem 1rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft { color: var(--soft); }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
code { font: .9em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { margin: .5rem 0; padding: .75rem 1rem; background: #f3f4f6; border-radius: 4px; white-space: pre-wrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; margin: 1.5rem 0 0; }
.figures div { border-top: 2px solid var(--ink); padding-top: .4rem; }
.figures dt { color: var(--soft); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.figures dd small { display: block; color: var(--soft); font-size: .8rem; }
.facts { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .25rem 1.25rem; margin: 1rem 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.plots svg { width: 100%; height: auto; display: block; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; white-space: nowrap; } .n { text-align: right; white-space: nowrap; }
section.worker { margin: 1.25rem 0 2rem; break-inside: avoid; } section.worker h3 { margin: 0; font-size: 1rem; }
tr, .plots svg { break-inside: avoid; } thead { display: table-header-group; }
@page { margin: 16mm; }
@media print {
  body { padding: 0; max-width: none; font-size: 10pt; } h2 { margin-top: 1.5rem; break-after: avoid; }
  .wide { overflow: visible; } .wide th { white-space: normal; } .wide th, .wide td { padding-block: .12rem; }
  .plots { grid-template-columns: repeat(3, 1fr); }
}
"""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """What the page tells: the job, its rounds, each worker's ledger, who was lost, and when it was written.

    `written` is in seconds since 1970 UTC; None leaves the date out.
    """

    job: JobFacts
    history: History
    ledgers: tuple[LedgerSummary, ...] = ()
    lost: tuple[LostWorker, ...] = ()
    written: float | None = None
    privacy: PrivacyReport | None = None


def page(report: ReportInput) -> str:
    """Return the report as one HTML document."""
    title = escape(report.job.name)
    told = (*_opening(report), *_curves(report.history), *_privacy(report.privacy), *_sums(report.history))
    body = "\n".join((*told, *_findings(report.history), *_lost(report.lost), *_workers(report)))
    end = "\n".join((*_rounds(report.history), *_verify(report)))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title} - federated run</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n{end}\n</body>\n</html>\n"
    )


def _opening(report: ReportInput) -> Iterator[str]:
    """Yield the title, what came out in large figures, and what the job was."""
    job = report.job
    yield f"<header><h1>{escape(job.name)}</h1>"
    if job.purpose:
        yield f"<p>{escape(job.purpose)}</p>"
    yield '<dl class="figures">'
    for label, value, beside in _figures(report):
        small = f"<small>{escape(beside)}</small>" if beside else ""
        yield f"<div><dt>{escape(label)}</dt><dd>{escape(value)}{small}</dd></div>"
    yield '</dl></header>\n<h2>The job</h2>\n<dl class="facts">'
    written = None if report.written is None else datetime.fromtimestamp(report.written, UTC)
    facts = {
        "Written": "" if written is None else f"{written:%Y-%m-%d %H:%M} UTC",
        "Data set": job.dataset,
        "Model": f"{job.parameters:,} parameters" if job.parameters else "",
        "Training plan": job.plan and f"SHA-256 {job.plan}",
        "Workers": ", ".join(_names(report)),
    }
    for label, value in facts.items():
        if value:
            yield f"<dt>{label}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"


def _figures(report: ReportInput) -> Iterator[tuple[str, str, str]]:
    """Yield label, value and remark of each large figure."""
    rounds, baseline = report.history.rounds, report.history.baseline or {}
    last = next((record for record in reversed(rounds) if record.outcome == "complete"), None)
    if last is not None:
        for name in sorted(last.metrics, key=lambda name: (name != "accuracy", name))[:2]:
            beside = f"all rows in one place: {_number(baseline[name])}" if name in baseline else ""
            yield name.capitalize(), _number(last.metrics[name]), beside or "evaluated by the coordinator"
        if not last.metrics:
            for name, value in sorted(last.worker_metrics.items(), key=lambda each: (each[0] != "accuracy", each[0]))[
                :2
            ]:
                yield f"{name.capitalize()} at workers", _number(value), "mean over their own validation rows"
        if last.loss is not None and not (last.metrics or last.worker_metrics):
            yield "Training loss", _number(last.loss), "on the rows that it was trained on; nothing was evaluated"
    sums = (*report.history.before, *(each for record in rounds for each in record.sums))
    sizes = sorted(len(each.members) for each in sums if each.members)
    if sizes:
        least, most = sizes[0], sizes[-1]
        yield "The coordinator saw", "sums only", f"of {least if least == most else f'{least} to {most}'} workers each"
    if (privacy := report.privacy) is not None:
        yield "Epsilon", f"{privacy.epsilon:.3g}", f"delta {privacy.delta:g}, for each {privacy.unit}"
    complete = sum(record.outcome == "complete" for record in rounds)
    yield "Rounds", f"{complete}", f"{len(rounds) - complete} abandoned" if complete < len(rounds) else "all complete"
    yield (
        "Left the workers",
        size_text(_total(report)),
        "by their ledgers" if report.ledgers else "as received in rounds; ledgers have more",
    )
    if report.ledgers:
        verified = sum(ledger.verified for ledger in report.ledgers)
        yield "Ledgers verified", f"{verified} of {len(report.ledgers)}", ""


def _privacy(privacy: PrivacyReport | None) -> Iterator[str]:
    """Yield what a private run came to: in one sentence, after each round, and for each worker's data set."""
    if privacy is None:
        return
    yield f"<h2>Privacy</h2>\n<p>{escape(privacy.words)}.</p>"
    rounds = ", ".join(f"{each:.3g}" for each in privacy.rounds)
    yield f'<p class="soft">Epsilon after each round, by RDP, as budgets count it: {rounds}.</p>'
    workers = ", ".join(f"{escape(name)} {epsilon:.3g}" for name, epsilon in privacy.workers.items())
    yield (
        f'<p class="soft">Of the whole run for each data set, by {privacy.accountant}: {workers}. What each of '
        "them billed to its budget is in its own ledger.</p>"
    )


def _total(report: ReportInput) -> int:
    if report.ledgers:
        return sum(ledger.bytes for ledger in report.ledgers)
    return sum(record.bytes_in for record in report.history.rounds)


def _names(report: ReportInput) -> list[str]:
    """Return every worker's name, in the order of first appearance."""
    parts = (part.worker for record in report.history.rounds for part in record.workers)
    return list(dict.fromkeys((*(ledger.worker for ledger in report.ledgers), *parts)))


def _curves(history: History) -> Iterator[str]:
    yield "<h2>How it went</h2>"
    if not history.rounds:
        yield '<p class="soft">No round was run.</p>'
    elif plots.available():
        yield '<div class="plots">' + "\n".join(plots.svgs(history)) + "</div>"
    else:
        yield "<p class=\"soft\">The curves need matplotlib: <code>pip install 'fedpriv[plot]'</code></p>"


def _workers(report: ReportInput) -> Iterator[str]:
    """Yield one section per worker: whether its ledger was verified, and what left by kind of message."""
    yield "<h2>What left each worker</h2>"
    if not report.ledgers:
        yield '<p class="soft">No ledger was read for this report.</p>'
    for ledger in report.ledgers:
        state = '<span class="good">ledger verified</span>'
        if not ledger.verified:
            state = '<span class="bad">ledger NOT VERIFIED</span>'
        yield f'<section class="worker"><h3>{escape(ledger.worker)}: {state}</h3>'
        yield f'<p class="soft">{ledger.entries:,} entries, root <code>{escape(ledger.root)}</code></p>'
        rows = [(row.kind, f"{row.messages:,}", f"{row.bytes:,}") for row in ledger.kinds]
        rows.append(("total", f"{sum(row.messages for row in ledger.kinds):,}", f"{ledger.bytes:,}"))
        yield _table(("Kind of message", "Messages", "Bytes"), rows, numbers={1, 2}) + "</section>"


def _lost(lost: Sequence[LostWorker]) -> Iterator[str]:
    yield "<h2>Who was lost</h2>"
    if not lost:
        yield '<p class="soft">No worker was lost.</p>'
        return
    rows = [(each.worker, str(each.round), each.reason or "no reason given") for each in lost]
    yield _table(("Worker", "Round", "Why"), rows, numbers={1})


def _sums(history: History) -> Iterator[str]:
    """Yield that the coordinator saw sums alone, what each needed, and who was in which; nothing of a run in clear."""
    if not (history.before or any(record.sums for record in history.rounds)):
        return
    yield "<h2>Secure aggregation</h2>"
    yield (
        "<p>The coordinator saw sums over several workers, and nothing of any one of them: each masked what it sent, "
        "and the masks cancel in the sum of those who stayed. So many had to stay to the end, until the masks were "
        "off, and so many at least had to be in the sum, as stand under &ldquo;Needed&rdquo;.</p>"
    )
    rows = [
        (
            _range(numbers) or "before",
            each.summands,
            f"{len(each.members)}: {', '.join(each.members)}" if each.members else f"no sum: {each.reason}",
            ", ".join(name for name in each.invited if name not in each.members) or "-",
            f"{each.threshold} of {len(each.invited)} to the end, {each.minimum} in the sum",
        )
        for numbers, each in _alike(history)
    ]
    yield _table(("Rounds", "Of", "Who was in it", "Who was not", "Needed"), rows, numbers=set())
    if any(each.graph != "complete" for record in history.rounds for each in record.sums):
        yield '<p class="soft">Each worker masked with its neighbours on a Harary graph, not with all.</p>'


def _alike(history: History) -> list[tuple[list[int], SumRecord]]:
    """Return sums that differ in their session alone together, with the numbers of their rounds, in order.

    One that came before the rounds has none.
    """
    found: dict[SumRecord, list[int]] = {replace(each, sid=""): [] for each in history.before}
    for record in history.rounds:
        for each in record.sums:
            found.setdefault(replace(each, sid=""), []).append(record.number)
    return [(numbers, each) for each, numbers in found.items()]


def _range(numbers: Sequence[int]) -> str:
    """Return rising numbers with those that follow each other as a span: 1-4, 6."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _findings(history: History) -> Iterator[str]:
    """Yield who did not stay to the end of sums and why, and whether its part is in them all the same.

    What a worker signed stands in history.json beside this page.
    """
    found = [(record, finding) for record in history.rounds for finding in record.findings]
    clipped = sum(record.saturated for record in history.rounds)
    if clipped:
        yield (f'<p class="bad">{clipped:,} numbers were out of bounds in sums, and so were clipped: {MORE_CLIP}.</p>')
    if not found:
        return
    yield "<h2>Who did not stay to the end of a sum</h2>"
    yield (
        "<p>Whose masked words had arrived by then is in the sum all the same; the masks of the others were taken off "
        "with shares that those who stayed held.</p>"
    )
    rows = [
        (each.worker, str(record.number), each.summands, _part(record, each), each.explanation, _signed(each))
        for record, each in found
    ]
    headers = ("Worker", "Round", "Sum of", "Its part", "Why", "Signed by the worker")
    yield _table(headers, rows, numbers={1})


def _part(record: RoundRecord, finding: RoundFinding) -> str:
    """Return whether the worker's part is in the sum that it did not stay in to the end."""
    members = [each.members for each in record.sums if each.summands == finding.summands and each.members]
    if not members:
        return "there is no sum"
    return "is in it" if any(finding.worker in each for each in members) else "is not in it"


def _signed(finding: RoundFinding) -> str:
    return f"session {finding.sid[:16]}" if finding.signature else "-"


def _rounds(history: History) -> Iterator[str]:
    """Yield the table of rounds, with a column for every metric that any round has."""
    yield "<h2>Every round</h2>"
    metrics = [name for name in history.columns if name not in {"loss", "seconds", "bytes_in", "bytes_out"}]
    columns = {name: history.column(name) for name in metrics}
    headers = ["Round", "Training loss", *(_header(name) for name in metrics), "Workers", "Received", "Sent", "Seconds"]
    rows = [
        (
            str(record.number),
            _number(record.loss),
            *(_number(columns[name][at]) for name in metrics),
            _folded(record),
            size_text(record.bytes_in),
            size_text(record.bytes_out),
            f"{record.seconds:.2f}",
        )
        for at, record in enumerate(history.rounds)
    ]
    yield _table(headers, rows, numbers=set(range(len(headers))))
    for record in history.rounds:
        if record.outcome == "abandoned":
            yield f"<p>Round {record.number} was abandoned: {escape(record.reason or 'no reason given')}.</p>"


def _header(metric: str) -> str:
    name = metric.removeprefix("worker/")
    name = name.removeprefix("evaluation/").replace("_", " ").capitalize()
    return f"{name} at workers" if metric.startswith("worker/") else name


def _folded(record: RoundRecord) -> str:
    if record.outcome == "abandoned":
        return "abandoned"
    return f"{sum(part.status == 'folded' for part in record.workers)} of {len(record.workers)}"


def _verify(report: ReportInput) -> Iterator[str]:
    """Yield how a reader finds out without trusting this page."""
    yield "<h2>Verify it yourself</h2>"
    where = "in the folder of this page" if report.job.ledgers else "beside each worker's configuration"
    yield (
        "<p>This page is only a summary. Each owner holds the signed ledger of what left their worker. These commands, "
        f"run {where}, recompute every hash and signature from that ledger, offline; compare the root that they print "
        "with the one above.</p>"
    )
    ledgers = report.job.ledgers or "state/ledger"
    names = [ledger.worker for ledger in report.ledgers] or ["WORKER"]
    commands = dict.fromkeys(
        f"fedpriv audit verify {quote(ledgers.replace('WORKER', name))} --key KEY" for name in names
    )
    yield f"<pre><code>{escape(chr(10).join(commands))}</code></pre>"
    yield (
        "<p>KEY is the line in <code>ledger/vkey</code> of the worker's state folder, told by its owner another way "
        "than this page came: a check against a key from the same folder proves nothing of who signed.</p>"
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: set[int]) -> str:
    """Return a table; columns in `numbers` are set to the right."""

    def line(tag: str, cells: Sequence[str]) -> str:
        marks = (' class="n"' if at in numbers else "" for at in range(len(cells)))
        inside = (f"<{tag}{mark}>{escape(cell)}</{tag}>" for mark, cell in zip(marks, cells, strict=True))
        return f"<tr>{''.join(inside)}</tr>"

    body = "\n".join(line("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{line("th", headers)}</thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _number(value: float | None) -> str:
    """Return `value` with four decimals, or a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if math.isfinite(value) and abs(value) < 1e6 else f"{value:.4g}"
