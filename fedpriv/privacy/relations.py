"""Which data sets count as neighbours: what a guarantee compares, and for whom, in words.

A figure of epsilon without its relation and its unit says nothing: the same noise costs more than twice as much where
a record may be replaced as where it may only be absent.
"""

from __future__ import annotations

from enum import Enum


class Relation(Enum):
    """How two neighbouring data sets differ; the values are the names that dp-accounting uses."""

    ADD_OR_REMOVE_ONE = "ADD_OR_REMOVE_ONE"
    """One unit is there or is not; the number of units is not public."""
    REPLACE_SPECIAL = "REPLACE_SPECIAL"
    """One unit is as it is, or counts as zero; the number of units is public."""
    REPLACE_ONE = "REPLACE_ONE"
    """One unit is as it is, or is any other; the number of units is public."""

    @property
    def distance(self) -> float:
        """How far a sum of contributions of norm at most 1 can move between neighbours: 2 for a replaced one."""
        return 2.0 if self is Relation.REPLACE_ONE else 1.0

    def in_words(self, unit: str) -> str:
        """Return the relation as the end of a sentence about one `unit`, such as "row" or "worker"."""
        match self:
            case Relation.ADD_OR_REMOVE_ONE:
                return f"for each {unit}: whether it is in the data at all"
            case Relation.REPLACE_SPECIAL:
                return f"for each {unit}: whether it takes part or counts as zero; how many there are is public"
            case Relation.REPLACE_ONE:
                return f"for each {unit}: whether it is this one or any other; how many there are is public"
