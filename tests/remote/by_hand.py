"""A session of values spoken by hand: every message is the test's own, as a client written to cheat would send it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from sites import Site

from fedpriv.plans.calls import Layout
from fedpriv.transport.runtime import runtime
from fedpriv.updates import TensorSet
from fedpriv.wire.messages import Reply, Request
from fedpriv.wire.values import Calls, Definition, OpenDataset, OpenSession, Put, SessionOpen

MARK = b"by hand, 16 byte"
FREE = 0


def dense(dtype: str, *shape: int) -> Layout:
    return Layout.dense(dtype, shape)


class Hand:
    """One link of one session."""

    def __init__(self, site: Site, mark: bytes = MARK) -> None:
        self._site = site
        self._mark = mark
        self._connection = runtime.run(site.connect())
        opened = self.ask(OpenSession(0, mark))
        assert isinstance(opened, SessionOpen)
        self.sequence = opened.sequence

    def again(self) -> Hand:
        """Lose the link and return the next one of the same session."""
        runtime.run(self._connection._link.close())
        self.close()
        return Hand(self._site, self._mark)

    def close(self) -> None:
        runtime.run(self._connection.close())

    def ask(self, request: Request, number: int | None = None) -> Reply:
        """Return the answer to a request, under the number that we choose where we choose one."""
        if number is not None:
            self._connection._counted = number - 1
        return runtime.run(self._connection.ask(request))

    def calls(self, definitions: Sequence[Definition], *words: int) -> None:
        self.sequence += 1
        runtime.run(self._connection.tell(Calls(self.sequence, tuple(definitions), array("Q", words).tobytes())))

    def put(self, first: int, *tensors: torch.Tensor) -> None:
        self.sequence += 1
        values = TensorSet({str(at): each for at, each in enumerate(tensors)})
        runtime.run(self._connection.tell(Put(self.sequence, first, (), "", values)))

    def open(self, first: int, dataset: str = "toy") -> None:
        self.sequence += 1
        runtime.run(self._connection.tell(OpenDataset(self.sequence, first, dataset)))
