"""Labels: what a value derives from.

A label is a set of origins (data set, principal). The empty label is public. Joining is set union, so a
value made from two others derives from everything either derives from. No torch here: labels are
computed from schemas and aliasing, by the session, never by what executes an operation.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedpriv.ids import DatasetName, PeerName


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """One source of private data: a data set and the principal that it belongs to."""

    dataset: DatasetName
    principal: PeerName


@dataclass(frozen=True, slots=True)
class Label:
    """The set of origins a value derives from; empty means public."""

    origins: frozenset[Origin] = frozenset()

    def __str__(self) -> str:
        return ", ".join(f"{each.dataset} of {each.principal}" for each in sorted(self.origins)) or "public"

    @property
    def is_public(self) -> bool:
        """Whether the value derives from no private data."""
        return not self.origins

    def join(self, *others: Label) -> Label:
        """Return the label of a value computed from this one and `others`."""
        return Label(self.origins.union(*(other.origins for other in others)))


PUBLIC = Label()


def private(dataset: DatasetName, principal: PeerName) -> Label:
    """Return the label of values read from `dataset`, which belongs to `principal`."""
    return Label(frozenset({Origin(dataset, principal)}))
