"""Our values at one worker: what is done to them without an answer, and what is asked.

Operations cost no answer: they are collected and sent by the batch. A value is freed when nothing here refers to it any
more. Safe to use from any thread but fedpriv's own.
"""

from __future__ import annotations

import threading
from array import array
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch

from fedpriv.errors import UsageError, WireError
from fedpriv.ids import DatasetName, PeerName, PlanDigest
from fedpriv.plans.plan import Plan
from fedpriv.remote.line import Line
from fedpriv.remote.reach import Reachable
from fedpriv.updates import TensorSet, TensorSpec
from fedpriv.wire.messages import (
    OfferPlan,
    Reply,
    Request,
)
from fedpriv.wire.values import (
    MAXIMUM_PUT_BYTES,
    AskObjects,
    AskRelease,
    Calls,
    Collect,
    Definition,
    Fetch,
    HeldObject,
    Objects,
    OpenDataset,
    Put,
    Ticket,
    Value,
)

FIRST_WORDS = 64
BATCH_WORDS = 1024
"""Words that are collected before they are sent: few at first, so that the worker begins, then twice as many each time.

After an answer was waited for the worker has nothing to do, and it is few again.
"""
SLACK_SECONDS = 30.0
"""How much longer than the worker itself we wait for its answer."""
_FREE = 0


class Usable(Protocol):
    """Something that defines an operation, the same object whenever it is the same operation."""

    @property
    def definition(self) -> Definition:
        """What the worker is told."""
        ...


class Values:
    """One session of values with one worker."""

    def __init__(self, worker: Reachable, name: PeerName) -> None:
        self.worker = worker
        self.line = Line(worker, name)
        self._lock = threading.RLock()
        self._words: list[int] = []
        self._new: list[Definition] = []
        self._known: dict[Usable, int] = {}
        self._offered: set[PlanDigest] = set()
        self._freed: deque[int] = deque()
        self._next = 1
        self._enough = FIRST_WORDS

    @property
    def round_trips(self) -> int:
        """How often an answer was waited for."""
        return self.line.round_trips

    # --- from any thread: what happens without an answer ---

    def use(self, recipe: Usable, operands: Sequence[int], numbers: Sequence[float], results: int) -> int:
        """Carry out what `recipe` defines; return the id of the first of `results` values."""
        with self._lock:
            number = self._known.get(recipe)
            if number is None:
                number = self._known[recipe] = len(self._known) + 1
                self._new.append(recipe.definition)
            words = self._words
            while self._freed:
                words.append(_FREE)
                words.append(self._freed.popleft())
            words.append(number)
            words.extend(operands)
            if numbers:
                words.extend(array("Q", array("d", numbers).tobytes()))
            first = self._next if results else 0
            self._next += results
            words.append(first)
            if len(words) >= self._enough:
                self._enough = min(2 * self._enough, BATCH_WORDS)
                self._flush()
            return first

    def put(self, tensors: Sequence[torch.Tensor], tags: Sequence[str] = (), description: str = "") -> int:
        """Send copies of `tensors`; return the id of the first; raise `UsageError` for more than a message holds."""
        size = sum(each.nbytes for each in tensors)
        if size > MAXIMUM_PUT_BYTES:
            raise UsageError(
                f"{size:,} bytes in one tensor; a worker takes {MAXIMUM_PUT_BYTES:,} at most, send it in parts"
            )
        values = TensorSet(
            {str(at): each.detach().clone(memory_format=torch.contiguous_format) for at, each in enumerate(tensors)}
        )
        with self._lock:
            self._flush()
            first, self._next = self._next, self._next + len(tensors)
            self.line.post(lambda number: Put(number, first, tuple(tags), description, values), values.nbytes)
            return first

    def open(self, dataset: DatasetName) -> int:
        """Return the id that stands for the features of `dataset`; the target has the next."""
        with self._lock:
            self._flush()
            first, self._next = self._next, self._next + 2
            self.line.post(lambda number: OpenDataset(number, first, dataset), 0)
            return first

    def free(self, number: int) -> None:
        """Let a value go, after everything that was asked of it so far; safe where objects are destroyed."""
        self._freed.append(number)

    # --- from any thread: what waits for an answer ---

    def ask(self, request: Request) -> Reply:
        """Return the answer to `request`, after everything that was done before."""
        self.flush()
        self._enough = FIRST_WORDS
        return self.line.ask(request)

    def fetch(self, number: int, spec: TensorSpec) -> torch.Tensor:
        """Return the value of `spec`; raise `WorkerRefused` where it is missing or private, `WireError` for another."""
        return _value(self.ask(Fetch(0, number)), spec)

    def objects(self) -> tuple[HeldObject, ...]:
        """Return what the worker holds for us in this session."""
        reply = self.ask(AskObjects(0))
        assert isinstance(reply, Objects)
        return reply.objects

    def ask_release(self, number: int, reason: str) -> str:
        """Ask the owner for a value; return the ticket."""
        reply = self.ask(AskRelease(0, number, reason))
        assert isinstance(reply, Ticket)
        return reply.ticket

    def collect(self, ticket: str, spec: TensorSpec, wait_seconds: float) -> torch.Tensor:
        """Return what a ticket stands for, waiting so long for the owner; raise `WorkerRefused` with the code."""
        return _value(self.line.ask_beside(Collect(0, ticket, wait_seconds), wait_seconds + SLACK_SECONDS), spec)

    def offer(self, plan: Plan) -> None:
        """Give the worker a plan, once."""
        if plan.digest not in self._offered:
            self.ask(OfferPlan(0, plan))
            self._offered.add(plan.digest)

    def flush(self) -> None:
        """Send what was collected."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """Send what was collected and close the link; the worker frees the values after a while."""
        if not self.line.lost:
            self.flush()
        self.line.close()

    def _flush(self) -> None:
        while self._freed:
            self._words += (_FREE, self._freed.popleft())
        if not self._words:
            return
        words = array("Q", self._words).tobytes()
        definitions = tuple(self._new)
        self._words.clear()
        self._new.clear()
        self.line.post(lambda number: Calls(number, definitions, words), len(words))


def _value(reply: Reply, spec: TensorSpec) -> torch.Tensor:
    """Return a copy of the one value in `reply`; raise `WireError` where it is not what was asked for."""
    assert isinstance(reply, Value)
    if reply.values.specs != (spec,):
        raise WireError(f"a worker sent {reply.values.specs} where {spec} was asked for; it is not to be believed")
    return reply.values["value"].clone()
