"""Orders, and what they ask for: the requests whose answer derives from a data set.

An order is known again by its digest: the same peer, number, job, round, data set, plan, settings and model. What it
would let out is asked of the owner's rules twice, once from the order before anything runs and once from the
message that is about to leave. Nothing is decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fedpriv import canonical
from fedpriv.errors import ReleaseDenied
from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.labels import Label
from fedpriv.policy.decision import Ask, Protection, Recipient, Release
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.storage.hashing import tensors_digest
from fedpriv.updates import DTYPES, TensorSpec
from fedpriv.wire.messages import (
    AskMock,
    AskStatistics,
    Evaluate,
    Evaluation,
    Mock,
    Statistics,
    Train,
    Update,
)
from fedpriv.wire.rounds import computation
from fedpriv.wire.tensors import tensor_bytes
from fedpriv.wire.values import Value
from fedpriv_worker.pricing import Price


@dataclass(frozen=True, slots=True)
class Claim:
    """A value of a session that its owner was asked for: `plan` says how it came about, and is never the same twice."""

    request: int
    dataset: DatasetName
    plan: PlanDigest
    purpose: str
    spec: TensorSpec


Order: TypeAlias = Train | Evaluate | AskStatistics | AskMock
Owed: TypeAlias = Order | Claim
Answer: TypeAlias = Update | Evaluation | Statistics | Mock | Value
_Parts: TypeAlias = tuple[tuple[Release, tuple[str, ...]], ...]
NO_JOB = JobId("")
NO_ROUND = -1


@dataclass(frozen=True, slots=True)
class Place:
    """Where an order stands: its job, round and plan (hexadecimal), as the ledger says them; empty where it has none.

    `round` is -1 outside a round.
    """

    job: JobId
    round: int
    plan: str
    purpose: str


def place_of(order: Owed) -> Place:
    """Return where `order` stands."""
    match order:
        case Train() | Evaluate():
            return Place(order.job, order.round, order.plan.hex(), order.purpose)
        case AskStatistics():
            return Place(NO_JOB, NO_ROUND, "", order.purpose)
        case Claim():
            return Place(NO_JOB, NO_ROUND, order.plan.hex(), order.purpose)
        case AskMock():
            return Place(NO_JOB, NO_ROUND, "", "")


def masked_among(order: Owed) -> int:
    """Return the least number of workers in whose sum the answer leaves, 0 where it leaves in clear.

    It is no claim of the coordinator's: with fewer, this worker's own part in the protocol (`secagg.checks`) ends.
    """
    invite = order.invite if isinstance(order, Train | Evaluate | AskStatistics) else None
    return 0 if invite is None else invite.descriptor.least


def request_of(order: Owed, recipient: Recipient, price: Price | None = None) -> ReleaseRequest:
    """Return what `order` asks to be let out, as its owner is shown it: the same in every round of a job.

    `price` is that of an order that is private.
    """
    place = place_of(order)
    match order:
        case Train():
            releases, kinds = (("update", "metrics") if order.metrics else ("update",)), order.metrics
        case Evaluate():
            releases, kinds = ("metrics",), order.metrics
        case AskStatistics():
            releases, kinds = ("statistics",), order.kinds
        case AskMock():
            releases, kinds = ("mock",), ()
        case Claim():
            releases, kinds = ("value",), (kind_of_value(order.spec),)
    epochs = order.epochs if isinstance(order, Train) else 0
    batch_size = order.batch_size if isinstance(order, Train | Evaluate) else 0
    private = ("", None) if price is None else (price.words, price.epsilon)
    return ReleaseRequest(
        recipient, order.dataset, releases, kinds, place.plan, place.purpose, epochs, batch_size, masked_among(order),
        *private,
    )  # fmt: skip  # one line of fields


def kind_of_value(spec: TensorSpec) -> str:
    """Return what a value is, as its owner reads it: "float32" for one number, "float32 3 x 4" for twelve."""
    return f"{spec.dtype} {' x '.join(map(str, spec.shape))}".rstrip()


def spec_of_value(kind: str) -> TensorSpec:
    """Return what `kind_of_value` named; raise `ReleaseDenied` for any other text."""
    dtype, _, sizes = kind.partition(" ")
    try:
        spec = TensorSpec("value", dtype, tuple(map(int, sizes.split(" x "))) if sizes else ())
    except ValueError:
        spec = None
    if spec is None or dtype not in DTYPES or kind_of_value(spec) != kind:
        raise ReleaseDenied(f"{kind!r:.80} is no value that could be let out")
    return spec


def asks_of(order: Owed, label: Label, recipient: Recipient, price: Price | None = None) -> tuple[Ask, ...]:
    """Return every permission that carrying out `order` needs; `price` says what its noise comes to."""
    match order:
        case Train(metrics=metrics):
            parts: _Parts = (("update", ()), ("metrics", metrics)) if metrics else (("update", ()),)
        case Evaluate(metrics=metrics):
            parts = (("metrics", metrics),)
        case AskStatistics(kinds=kinds):
            parts = (("statistics", kinds),)
        case AskMock():
            parts = (("mock", ()),)
        case Claim(spec=spec):
            parts = (("value", (kind_of_value(spec),)),)
    return _asks(parts, order, label, recipient, masked_among(order), price)


def asks_in(
    message: Answer, order: Owed, label: Label, recipient: Recipient, price: Price | None = None
) -> tuple[Ask, ...]:
    """Return every permission that sending `message` in answer to `order` needs, read from the message itself.

    It goes in clear, whatever was ordered.
    """
    match message:
        case Update(metrics=metrics):
            parts: _Parts = (("update", ()), ("metrics", tuple(metrics))) if metrics else (("update", ()),)
        case Evaluation(metrics=metrics):
            parts = (("metrics", tuple(metrics)),)
        case Statistics(values=values):
            parts = (("statistics", tuple(name for name, _ in values)),)
        case Mock():
            parts = (("mock", ()),)
        case Value(values=values):
            parts = (("value", tuple(map(kind_of_value, values.specs))),)
    return _asks(parts, order, label, recipient, 0, price)


def _asks(
    parts: _Parts, order: Owed, label: Label, recipient: Recipient, among: int, price: Price | None
) -> tuple[Ask, ...]:
    request = request_of(order, recipient, price)
    hidden = Protection(among, None if price is None else price.epsilon)
    return tuple(Ask(release, label, recipient, kinds, request.purpose, request, hidden) for release, kinds in parts)


def model_digest(order: Owed) -> bytes:
    """Return the digest, 32 bytes, of the model that came with `order`; empty where none did."""
    if not isinstance(order, Train | Evaluate):
        return b""
    return tensors_digest(order.model.specs, [tensor_bytes(tensor) for _, tensor in order.model])


def order_digest(order: Owed, recipient: Recipient, model: bytes) -> bytes:
    """Return the digest, 32 bytes, that `order` is known again by, when a peer that lost the answer asks once more."""
    where: list[canonical.Field] = [recipient.name, recipient.role, type(order).__name__, order.request, order.dataset]
    match order:
        case Train() | Evaluate() | AskStatistics():
            invited = b"" if order.invite is None else order.invite.sid
            what: list[canonical.Field] = [computation(order), invited, order.seed if isinstance(order, Train) else 0]
        case AskMock() | Claim():
            place = place_of(order)
            what = [place.plan, place.purpose]
    return canonical.digest("fedpriv/order/v1", where, what, model)
