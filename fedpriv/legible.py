"""Words of a peer as people may be shown them: nothing that drives a terminal, looks blank or ends a quotation.

It changes words for people alone: what is judged, compared and recorded stays as it was sent.
"""

from __future__ import annotations

import re
from typing import Final

MARK: Final = "\N{REPLACEMENT CHARACTER}"
"""What stands for every character that cannot be shown."""
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U00013441\U00013442\U00016fe4"
    "\U0001d159\U000e0100-\U000e01ef]"
)
"""Characters that Python calls printable and a screen shows as nothing: fillers, joiners, selectors, blank patterns.

Unicode 16, Default_Ignorable_Code_Point, less what `str.isprintable` refuses already; and the blanks beyond that.
"""
_QUOTATION = re.compile(
    '["\u02ba\u02dd\u02ee\u05f4\u201c-\u201f\u2033\u2036\u275d\u275e\u3003\u301d-\u301f\uff02\U0001f676-\U0001f678]'
)
"""Everything that a reader could take for the mark that ends a quotation."""


def legible(text: str) -> str:
    """Return `text` with a mark for every character that does not print, line ends included, or prints as nothing."""
    return _BLANK.sub(MARK, "".join(each if each.isprintable() else MARK for each in text))


def quoted(text: str, most: int) -> str:
    """Return a peer's words in quotation marks that only their end closes, cut after `most` characters.

    Of several spaces in a row the first stays: with the rest, words could be moved to where they seem to be ours.
    """
    shown = _QUOTATION.sub("'", legible(text[:most]))
    shown = re.sub("(?<= ) ", MARK, shown)
    return f'"{shown}{"..." if len(text) > most else ""}"'
