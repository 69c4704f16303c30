"""What a recorded run let out, as whoever attacks it sees it; and the rows, by which an attack is scored.

`Recording.load` reads the files of `fedpriv_worker.payloads` through the decoder that every peer's bytes take. What is
released is told apart by who can see it: an update of one worker, the masked words of one, or what a sum gives away,
which is the next model minus the one that was sent: every worker and the coordinator see that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from fedpriv.errors import UsageError
from fedpriv.ids import PlanDigest, WorkerName
from fedpriv.plans.plan import OutputRole, Plan
from fedpriv.sealed import Envelope
from fedpriv.secagg.messages import Masked
from fedpriv.updates import TensorSet
from fedpriv.wire import codec
from fedpriv.wire.messages import Message, OfferPlan, Train, Update
from fedpriv_worker.datasets import Rows
from fedpriv_worker.payloads import FOLDER, LENGTH_BYTES, RECEIVED, ROWS, SENT, name_of

MODEL = "model.safetensors"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What crossed one worker's links, in order, as (direction, message), and the rows that it had."""

    worker: WorkerName
    messages: tuple[tuple[str, Message], ...] = field(repr=False)
    held: Mapping[str, torch.Tensor] = field(repr=False)

    def rows(self, order: Train, part: str = "training") -> Rows:
        """Return the rows that an order was about; `part` is "training" or "evaluation"."""
        features, target = (self.held[name_of(order.dataset, part, what)] for what in ("features", "target"))
        return Rows(features, target)

    def orders(self) -> Iterator[Train]:
        """Yield the orders to train, in order."""
        yield from (each for way, each in self.messages if way == RECEIVED and isinstance(each, Train))

    def masked(self) -> Iterator[Masked]:
        """Yield the masked words."""
        yield from (each for way, each in self.messages if way == SENT and isinstance(each, Masked))

    def plan(self, digest: PlanDigest) -> Plan:
        """Return the plan of that digest."""
        offered = (each.plan for way, each in self.messages if way == RECEIVED and isinstance(each, OfferPlan))
        return next(each for each in offered if each.digest == digest)


@dataclass(frozen=True, slots=True)
class Released:
    """One thing that can be attacked: what changed in a model, by tensor, of `workers`, on the order that they got."""

    kind: str
    """"update" of one worker, "sum" of several, or "masked": one worker's words, read as if they were an update."""
    workers: tuple[Recorded, ...]
    order: Train = field(repr=False)
    plan: Plan = field(repr=False)
    changed: Mapping[str, Array] = field(repr=False)

    def rows(self) -> Rows:
        """Return all training rows behind it."""
        return _together([each.rows(self.order) for each in self.workers])


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded run: its workers, and the model that it ended with, where that was saved."""

    workers: tuple[Recorded, ...]
    model: Mapping[str, torch.Tensor] | None = field(repr=False)

    @classmethod
    def load(cls, run: Path) -> Recording:
        """Return what was recorded in the folder of a run; raise `UsageError` where nothing was, naming the switch."""
        folders = sorted(each.parent for each in (run / FOLDER).glob(f"*/{ROWS}"))
        if not folders:
            raise UsageError(
                f"{run} holds no recorded payloads; run it again on simulated data with "
                "VirtualWorker(..., record_payloads=RUN), or record_payloads = true in worker.toml"
            )
        saved = run / MODEL
        model = load_file(saved) if saved.is_file() else None
        return cls(tuple(map(_recorded, folders)), model)

    def released(self) -> tuple[Released, ...]:
        """Return everything that can be attacked, round by round: updates, masked words, and what each sum gives."""
        found = [each for worker in self.workers for each in _of_one(worker)]
        rounds: dict[int, list[tuple[Recorded, Train]]] = {}
        for worker in self.workers:
            for order in worker.orders():
                rounds.setdefault(order.round, []).append((worker, order))
        numbers = sorted(rounds)
        for number, after in zip(numbers, [*numbers[1:], None], strict=True):
            following = self.model if after is None else rounds[after][0][1].model.tensors
            workers, order = tuple(worker for worker, _ in rounds[number]), rounds[number][0][1]
            if following is not None and len(workers) > 1:
                plan = workers[0].plan(order.plan)
                found.append(Released("sum", workers, order, plan, _difference(plan, following, order)))
        return tuple(found)

    def last(self) -> tuple[Train, Plan, TensorSet, Rows, Rows] | None:
        """Return the last order, its plan, the model that came of it, and all workers' rows, trained on and held out.

        None where no order was followed by a model.
        """
        orders = [(worker, order) for worker in self.workers for order in worker.orders()]
        if not orders or self.model is None:
            return None
        worker, order = max(orders, key=lambda each: each[1].round)
        asked = [each for each in self.workers if any(each.orders())]
        members, others = (_together([each.rows(order, part) for each in asked]) for part in ("training", "evaluation"))
        whole = TensorSet({name: self.model.get(name, each) for name, each in order.model})
        return order, worker.plan(order.plan), whole, members, others


def _together(parts: Sequence[Rows]) -> Rows:
    return Rows(torch.cat([each.features for each in parts]), torch.cat([each.target for each in parts]))


def _recorded(folder: Path) -> Recorded:
    messages = []
    for path in sorted([*folder.glob(f"*.{SENT}"), *folder.glob(f"*.{RECEIVED}")]):
        content = path.read_bytes()
        end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
        payload = bytearray(content[end:])  # tensors share it, so it is writable
        envelope = Envelope(content[LENGTH_BYTES:end], (memoryview(payload),) if payload else ())
        messages.append((path.suffix.removeprefix("."), codec.decode(envelope)))
    return Recorded(WorkerName(folder.name), tuple(messages), load_file(folder / ROWS))


def _of_one(worker: Recorded) -> Iterator[Released]:
    """Yield what one worker alone released, with the order that it answers: the last before it."""
    order: Train | None = None
    for _, message in worker.messages:
        if isinstance(message, Train):
            order = message
        elif order is not None and isinstance(message, Update):
            changed = {name: _array(tensor) for name, tensor in message.delta}
            yield Released("update", (worker,), order, worker.plan(order.plan), changed)
        elif order is not None and isinstance(message, Masked):
            plan = worker.plan(order.plan)
            yield Released("masked", (worker,), order, plan, _read_as_update(message, plan, order))


def _read_as_update(masked: Masked, plan: Plan, order: Train) -> dict[str, Array]:
    """Return masked words as numbers around 0, cut into the tensors that they would be without masks."""
    words = masked.words
    signed = words.view(words.dtype.str.replace("u", "i"))
    scale = float(np.iinfo(signed.dtype).max)
    changed, start = {}, 0
    for name in _trained(plan):
        shape = tuple(order.model[name].shape)
        end = start + order.model[name].numel()
        changed[name], start = (signed[start:end] / scale).reshape(shape), end
    return changed


def _difference(plan: Plan, after: Mapping[str, torch.Tensor], order: Train) -> dict[str, Array]:
    return {name: _array(after[name]) - _array(order.model[name]) for name in _trained(plan)}


def _trained(plan: Plan) -> tuple[str, ...]:
    return tuple(each.name for each in plan.outputs_of(OutputRole.PARAMETER))


def _array(tensor: torch.Tensor) -> Array:
    found: Array = tensor.detach().to(torch.float64).numpy()
    return found
