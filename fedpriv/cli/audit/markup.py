"""The pieces of the report's HTML: escaped text, tables that become cards on a narrow page, blanks to fill in.

Nothing from a ledger reaches the page but through `text`. No script, nothing to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fedpriv.cli.audit.printing import harmless, time_text
from fedpriv.cli.audit.style import STYLE

MAXIMUM_ITEMS = 8


def text(untrusted: object) -> str:
    """Return anything as HTML text: unprintable characters marked, the rest escaped."""
    return escape(harmless(str(untrusted)))


def code(untrusted: object) -> str:
    """Return a key, digest or command as HTML."""
    return f"<code>{text(untrusted)}</code>"


def instant(milliseconds: int) -> str:
    """Return a time whose date and time of day never break in two."""
    date, _, clock = time_text(milliseconds, fraction=False).partition(" ")
    return f'<span class="d">{text(date)}</span> <span class="d">{text(clock)}</span>'


def blank(what: str) -> str:
    """Return a place that somebody has to fill in, because no ledger knows `what`."""
    return f'<span class="blank">to be filled in: {text(what)}</span>'


def items(parts: Iterable[str]) -> str:
    """Return pieces of HTML as lines below each other."""
    return '<ul class="plain">' + "".join(f"<li>{part}</li>" for part in parts) + "</ul>"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """Return a table of HTML cells under our own `headers`; the columns in `right` are numbers."""
    classes = [' class="n"' if number in set(right) else "" for number in range(len(headers))]
    labels = [f' data-label="{escape(name)}"' for name in headers]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(headers, classes, strict=True))
    body = "".join(f"<tr>{_cells(classes, labels, row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cells(classes: Sequence[str], labels: Sequence[str], row: Sequence[str]) -> str:
    return "".join(
        f"<td{kind}{label}><div>{cell}</div></td>" for kind, label, cell in zip(classes, labels, row, strict=True)
    )


def facts(found: Iterable[tuple[str, str]]) -> str:
    """Return names and their HTML as a list of definitions, leaving out what is empty."""
    return '<dl class="facts">' + "".join(f"<dt>{escape(a)}</dt><dd>{b}</dd>" for a, b in found if b) + "</dl>"


def figures(found: Iterable[tuple[str, str, str]]) -> str:
    """Return label, value and remark of each large figure, all plain text."""
    cells = "".join(
        f"<div><dt>{text(label)}</dt><dd>{text(value)}<small>{text(beside)}</small></dd></div>"
        for label, value, beside in found
    )
    return f'<dl class="figures">{cells}</dl>'


def names(counted: dict[str, int], *, none: str = "none on record") -> str:
    """Return the most frequent names as lines, the rest as a number."""
    if not counted:
        return f'<span class="soft">{escape(none)}</span>'
    most = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    lines = [text(name) for name, _ in most[:MAXIMUM_ITEMS]]
    return items([*lines, f"and {len(most) - MAXIMUM_ITEMS:,} more"] if len(most) > MAXIMUM_ITEMS else lines)


def page(title: str, body: str) -> str:
    """Return the whole document; a browser may load nothing for it and run nothing in it."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
