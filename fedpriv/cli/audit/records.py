"""What the law asks an owner to keep, as far as a ledger knows it: GDPR Article 30(1), 45 CFR 164.528(b)(2).

What no ledger can know (who the controller is, whose data it is, for how long) is left as a marked blank. It states
facts and gives no legal advice: whether something was a disclosure of personal data is for its owner to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedpriv.cli.audit.markup import blank, code, items, names, table, text
from fedpriv.cli.audit.meanings import meaning_of
from fedpriv.cli.audit.printing import counted, time_text
from fedpriv.cli.audit.summing import Disclosure, Summary, Tally
from fedpriv.cli.audit.timeline import size_text

MASKED = "secagg-masked"


def article_30(summary: Summary, proofs: list[str]) -> str:
    """Return the record of processing activities; `proofs` are lines of HTML on how the ledger was verified."""
    legal = names(summary.legal_bases) if summary.legal_bases else ""
    rows = [
        ("(a)", "Controller", blank("name and contact details of the controller, of any joint controller and "
                                    "representative, and of the data protection officer")),
        ("(b)", "Purposes", names(summary.private.purposes, none="no purpose is on record")
                            + (f"<p>Legal basis as recorded: {legal}</p>" if legal else "")),
        ("(c)", "Categories of data subjects and of personal data", _datasets(summary)
                + blank("whose data these are, and of which categories")),
        ("(d)", "Recipients", names(_private_recipients(summary), none="nobody received anything derived from data")
                + blank("categories of these recipients")),
        ("(e)", "Transfers to third countries", blank("countries or international organisations, and safeguards; a "
                                                      "ledger holds names of recipients, not places")),
        ("(f)", "Time limits for erasure", blank("envisaged time limits for each category of data")),
        ("(g)", "Security measures", items([*_measures(summary), *proofs])
                + blank("access control, encryption, organisational measures; Article 32(1)")),
    ]  # fmt: skip  # one row of the record
    return table(("Point", "What it asks", "What is on record"), rows)


def accounting(summary: Summary) -> str:
    """Return what left, as an accounting of disclosures lists it; day by day, or summed up where that is too long."""
    if not summary.disclosures:
        return '<p class="soft">Nothing that derives from a data set left in this time.</p>'
    rows = (
        (_when(key, tally), text(key.recipient), _description(key, tally), text(key.purpose) or blank("purpose"))
        for key, tally in sorted(summary.disclosures.items(), key=lambda each: (each[1].first, each[0]))
    )
    long = (
        ""
        if summary.by_day
        else (
            '<p class="soft">There were too many days to list: a row stands for a series, with the date of its first '
            f"and last disclosure and their number. Each one alone: {code('fedpriv audit export --format csv')}.</p>"
        )
    )
    return long + table(("Date", "Recipient", "Brief description", "Purpose"), rows)


def rule_name(citation: str) -> str:
    """Return "plain-update" and the digest of its conditions, small."""
    name, _, conditions = citation.partition(":")
    return text(name) + (f' <span class="soft">{code(conditions)}</span>' if conditions else "")


def rules(tally: Tally, most: int = 8) -> str:
    """Return the rules that were used, most used first."""
    found = sorted(tally.rules.items(), key=lambda each: (-each[1], each[0]))
    lines = [rule_name(citation) for citation, _ in found[:most]]
    return items([*lines, *([f"and {len(found) - most:,} more"] if len(found) > most else [])]) if lines else "none"


def spending(summary: Summary) -> str:
    """Return epsilon spent and left of each data set, or that nothing was released under differential privacy."""
    if not summary.spends:
        return '<p class="soft">No release under differential privacy.</p>'
    rows = (
        (text(name), text(spend.spent), text(spend.limit) or "none", _left(spend.left, over=spend.over),
         text(spend.relation))
        for name, spend in sorted(summary.spends.items())
    )  # fmt: skip  # one row
    return table(("Data set", "Epsilon spent", "Owner's limit", "Left", "Protects"), rows, right=(1, 2, 3))


def _left(left: str, *, over: bool) -> str:
    return '<span class="bad">overspent</span>' if over else text(left)


def _datasets(summary: Summary) -> str:
    return names({name: tally.messages for name, tally in summary.datasets.items()}, none="no data set was used")


def _private_recipients(summary: Summary) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, tally in summary.disclosures.items():
        found[key.recipient] = found.get(key.recipient, 0) + tally.messages
    return found


def _measures(summary: Summary) -> Iterator[str]:
    messages, releases = summary.total.messages, summary.private.releases
    if messages:
        were = "message; it was" if messages == 1 else "messages; each was"
        yield f"{messages:,} {were} recorded in an append-only ledger before the first byte was sent."
    if releases:
        those = counted(len(summary.private.rules), "rule")
        yield f"{counted(releases, 'release')} derived from data, under {those} of the owner."
    if masked := summary.kinds.get(MASKED):
        yield (
            f"{counted(masked.releases, 'result')} left under secure aggregation: masked, and readable in the sum over "
            "several workers alone."
        )
    if summary.unruled:
        yield f'<span class="bad">{counted(summary.unruled, "message")} derived from data under no rule.</span>'
    noised = counted(summary.noised, "release") if summary.noised else "No release"
    yield f"{noised} under differential privacy."
    approved = sum(tally.releases for tally in summary.approvals.values())
    yield f"{counted(approved, 'release') if approved else 'No release'} under an approval given by hand."


def _when(key: Disclosure, tally: Tally) -> str:
    first, last = (time_text(time, fraction=False)[:10] for time in (tally.first, tally.last))
    if key.day >= 0 or first == last:
        return f'<span class="d">{text(first)}</span>'
    return f'<span class="d">{text(first)}</span> to <span class="d">{text(last)}</span>'


def _description(key: Disclosure, tally: Tally) -> str:
    kinds = sorted(tally.kinds.items(), key=lambda each: (-each[1], each[0]))
    parts = ", ".join(meaning_of(name).counted(times) for name, times in kinds)
    return f"{text(parts)} derived from {text(', '.join(key.datasets))}; {size_text(tally.bytes)}"
