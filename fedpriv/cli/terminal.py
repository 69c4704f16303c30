"""What a terminal may be given: text that prints, and nothing that it could take for an instruction.

It imports next to nothing, so that every command can use it, the failing ones included.
"""

from __future__ import annotations

from fedpriv.legible import legible


def harmless(text: str) -> str:
    """Return `text` with every character that does not print, line ends included, or that looks blank, as a mark."""
    return legible(text)
