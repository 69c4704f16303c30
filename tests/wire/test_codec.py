"""Every message survives the wire; nothing else does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import WireError
from fedpriv.ids import DatasetName, JobId, PlanDigest
from fedpriv.plans.calls import Call, Layout
from fedpriv.plans.plan import Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.privacy.budget import ORDERS, Account, Budget
from fedpriv.sealed import Envelope
from fedpriv.updates import DTYPES, TensorSet
from fedpriv.wire import messages as m
from fedpriv.wire import values as v
from fedpriv.wire.bodies import KINDS
from fedpriv.wire.codec import decode, encode
from fedpriv.wire.v1 import pointer_pb2, session_pb2, tensor_pb2

MODEL = TensorSet({"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor(1.5), "none": torch.empty(0, 4)})
DIGEST = PlanDigest(bytes(range(32)))
NAME, JOB = DatasetName("rows"), JobId("job-1")
PLAN = Plan(
    inputs=(Input("weight", InputRole.STATE, "float32", (3,)),),
    outputs=(Output("weight", OutputRole.STATE, 1),),
    constants=(),
    steps=(Step("aten.mul.Tensor", (Slot(0), 0.5)),),
    torch_version="2.13",
)
LAYOUT = Layout("float32", (3, 1), (1, 3))
STEP = Step("aten.add.Tensor", (Slot(0), Slot(0)), (("alpha", Slot(1)),))
EXAMPLES: list[m.Message] = [
    m.Hello((b"leaf", b"issuer"), bytes(32), 1, "fedpriv 0.1"),
    m.HelloProof(b"signature"),
    m.Announcement("2.13.0", ()),
    m.Announcement(
        "2.13.0",
        (
            m.DatasetDescription(
                NAME,
                (m.Column("age", "float"),),
                (1,),
                "float32",
                m.Column("ill", "bool"),
                "float32",
                ("no", "yes"),
                ("#t",),
                0,
            ),
            m.DatasetDescription(NAME, (), (3, 8, 8), "float32", m.Column("c", "category"), "int64", (), (), None),
        ),
    ),
    m.OfferPlan(7, PLAN),
    m.Train(1, JOB, 2, NAME, DIGEST, 3, 32, True, False, -5, {"lr": 0.1, "mu": -0.0}, ("loss",), "why", MODEL),
    m.Evaluate(1, JOB, 2, NAME, DIGEST, 32, ("loss", "accuracy"), "why", MODEL),
    m.AskStatistics(2**40, NAME, ("count", "sum"), "protocol"),
    m.CloseRound(JOB, 4),
    m.PlanAccepted(3, DIGEST),
    m.Update(1, 2, 99.0, {"loss": math.inf}, MODEL),
    m.Update(1, 2, 0.0, {}, TensorSet()),
    m.Update(1, 2, 0.0, {}, TensorSet(), m.Memory.ANEW),
    m.Evaluation(1, 2, 3.0, {"loss": 0.25}),
    m.Statistics(9, MODEL),
    m.Failure(1, m.ErrorCode.STEP_FAILED, 0, "aten.addmm.default"),
    m.Failure(1, m.ErrorCode.OVER_QUOTA),
    m.Goodbye(),
    *map(m.Goodbye, m.Parting),
    m.AskCheckpoint(5, "o\n1\nr\n\n— o s\n".encode()),
    m.AskCheckpoint(5, b""),
    m.AskBudget(6, DatasetName("rows")),
    m.BudgetLeft(6, None),
    m.BudgetLeft(6, Account(Budget(8.0, 1e-5, "patient"), (0.5,) * len(ORDERS))),
    m.Checkpoint(5, b"note", (bytes(32), bytes(range(32))), "fedpriv.ledger/bob+0a0b0c0d+AQ=="),
    m.Checkpoint(5, b"x" * 65_536, (bytes(32),) * 64, ""),
    m.Cosigned("fedpriv.witness/me+0a0b0c0d+BA==", "— fedpriv.witness/me c2ln".encode()),
    m.AskMock(6, NAME),
    m.Mock(6, TensorSet({"features": torch.ones(4, 2), "target": torch.zeros(4)})),
    v.OpenSession(1, bytes(range(16))),
    v.SessionOpen(1, 2**40, v.Granted(2**32, 10**6, 10**13)),
    v.Calls(1, (v.PlanUse(DIGEST, (LAYOUT, LAYOUT)), Call(STEP, (LAYOUT,), 1, writes=True)), bytes(range(24))),
    v.Calls(2, (), b""),
    v.Put(3, 2**62, ("#x", "#y"), "toy", MODEL),
    v.OpenDataset(4, 5, NAME),
    v.Fetch(9, 2**63 - 1),
    v.Value(9, TensorSet({"value": torch.arange(3)})),
    v.AskObjects(10),
    v.Objects(10, (v.HeldObject(5, LAYOUT, ("#x",), "toy"), v.HeldObject(7, Layout("bool", (), ()), (), ""))),
    v.AskRelease(11, 5, "appendix B"),
    v.Ticket(11, "0123456789abcdef"),
    v.Collect(12, "0123456789abcdef", 3600.0),
]


def same(ours: object, theirs: object) -> bool:
    """Compare messages field by field, tensors bit by bit."""
    if type(ours) is not type(theirs):
        return False
    for name in type(ours).__dataclass_fields__:
        left, right = getattr(ours, name), getattr(theirs, name)
        if isinstance(left, TensorSet):
            if left.specs != right.specs or not all(torch.equal(tensor, right[key]) for key, tensor in left):
                return False
        elif left != right:
            return False
    return True


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_every_message_comes_back_as_it_was_sent(message: m.Message) -> None:
    assert same(message, decode(encode(message)))


def test_the_examples_cover_every_message_type() -> None:
    assert {type(message) for message in EXAMPLES} == set(KINDS)


def test_every_error_code_travels() -> None:
    assert [decode(encode(m.Failure(1, code))).code for code in m.ErrorCode] == list(m.ErrorCode)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (4, 3)], ids=str)
def test_every_dtype_comes_back_bit_by_bit(dtype: str, shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape).remainder(2).to(DTYPES[dtype])
    back = decode(encode(m.Statistics(1, TensorSet({"t": tensor})))).values["t"]
    assert back.dtype is tensor.dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_a_nan_keeps_its_bits_because_cleaning_is_the_doors_business() -> None:
    odd = torch.tensor([0x7FC0_1234], dtype=torch.int32).view(torch.float32)
    back = decode(encode(m.Statistics(1, TensorSet({"t": odd})))).values["t"]
    assert back.view(torch.int32).item() == 0x7FC0_1234


def test_a_view_ships_its_own_bytes_and_not_its_storage() -> None:
    table = torch.arange(100_000.0)
    envelope = encode(m.Statistics(1, TensorSet({"two": table[40_000:40_002]})))
    assert envelope.payload_bytes == 8
    assert b"".join(envelope.payload) == table[40_000:40_002].numpy().tobytes()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(12.0).reshape(3, 4)[:, 1:3],
        torch.tensor([3.0]).expand(5),
        torch.tensor([1 + 2j, 3 - 4j]).conj(),
        torch.tensor([1 + 2j, 3 - 4j]).conj().imag,
        torch.nn.Parameter(torch.ones(2, 2)),
    ],
    ids=["transposed", "columns", "expanded", "conjugated", "negated", "parameter"],
)
def test_what_is_not_plain_memory_is_made_plain_first(tensor: torch.Tensor) -> None:
    back = decode(encode(m.Statistics(1, TensorSet({"t": tensor})))).values["t"]
    assert torch.equal(back, tensor.detach())
    assert back.is_contiguous()
    assert not back.requires_grad
    assert not back.is_conj()


def test_contiguous_tensors_are_not_copied_on_either_side() -> None:
    tensor = torch.arange(1000.0)
    back = decode(encode(m.Statistics(1, TensorSet({"t": tensor})))).values["t"]
    assert back.data_ptr() == tensor.data_ptr()


def test_a_payload_cut_anywhere_and_misaligned_is_read_all_the_same() -> None:
    tensors = TensorSet(
        {"a": torch.ones(3, dtype=torch.uint8), "b": torch.arange(5, dtype=torch.int64), "c": torch.tensor(2.0)}
    )
    envelope = encode(m.Statistics(1, tensors))
    raw = b"".join(envelope.payload)
    for cut in range(1, len(raw)):
        parts = (memoryview(bytearray(raw[:cut])), memoryview(b""), memoryview(raw[cut:]))
        assert same(m.Statistics(1, tensors), decode(Envelope(envelope.header, parts)))


@pytest.mark.parametrize(
    "tensor",
    [torch.empty(3, device="meta"), torch.ones(2, 2).to_sparse(), torch.zeros(1, dtype=torch.uint16)],
    ids=["meta", "sparse", "uint16"],
)
def test_tensors_without_plain_values_are_refused_by_the_sender(tensor: torch.Tensor) -> None:
    with pytest.raises(WireError):
        encode(m.Statistics(1, TensorSet({"t": tensor})))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_a_number_that_does_not_fit_is_refused_by_the_sender(number: int) -> None:
    with pytest.raises(WireError, match="PlanAccepted"):
        encode(m.PlanAccepted(number, DIGEST))


def statistics_header(*specs: tensor_pb2.TensorSpec) -> bytes:
    body = session_pb2.Statistics(request=1, values=tensor_pb2.TensorSet(tensors=specs))
    return session_pb2.Header(statistics=body).SerializeToString()


def spec(shape: tuple[int, ...], dtype: int = 3, name: str = "t") -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(name=name, dtype=dtype, shape=shape)


PAYLOAD = (memoryview(bytearray(8)),)


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (b"", ()),
        (b"\xff\xff", ()),
        (statistics_header(spec((3,))), PAYLOAD),
        (statistics_header(spec((1,))), PAYLOAD),
        (statistics_header(spec((2**62, 4))), PAYLOAD),
        (statistics_header(spec((2**32, 2**32))), ()),
        (statistics_header(spec((0, 2**62))), ()),
        (statistics_header(spec((2**63,))), ()),
        (statistics_header(spec((1,) * 65)), PAYLOAD),
        (statistics_header(spec((2,), dtype=0)), PAYLOAD),
        (statistics_header(spec((2,), dtype=99)), PAYLOAD),
        (statistics_header(spec((1,)), spec((1,))), PAYLOAD),
        (statistics_header(spec((2,), name="x" * 513)), PAYLOAD),
        (statistics_header(*(spec((0,), name=str(i)) for i in range(65_537))), ()),
        (session_pb2.Header(goodbye=session_pb2.Goodbye()).SerializeToString(), PAYLOAD),
        (session_pb2.Header(goodbye=session_pb2.Goodbye()).SerializeToString() + b"\xa0\x06\x01", ()),
        (session_pb2.Header(goodbye=session_pb2.Goodbye()).SerializeToString() * 2, ()),
        (session_pb2.Header(goodbye=session_pb2.Goodbye(reason=9)).SerializeToString(), ()),
        (session_pb2.Header(failure=session_pb2.Failure(code=0)).SerializeToString(), ()),
        (session_pb2.Header(failure=session_pb2.Failure(code=99)).SerializeToString(), ()),
        (session_pb2.Header(hello=session_pb2.Hello(nonce=bytes(32))).SerializeToString(), ()),
        (session_pb2.Header(hello=session_pb2.Hello(certificates=[b"c"], nonce=bytes(31))).SerializeToString(), ()),
        (session_pb2.Header(hello=session_pb2.Hello(certificates=[b"c"] * 5, nonce=bytes(32))).SerializeToString(), ()),
        (session_pb2.Header(hello_proof=session_pb2.HelloProof(signature=bytes(257))).SerializeToString(), ()),
        (session_pb2.Header(plan_accepted=session_pb2.PlanAccepted(plan=b"short")).SerializeToString(), ()),
        (session_pb2.Header(ask_statistics=session_pb2.AskStatistics(purpose="x" * 1025)).SerializeToString(), ()),
        (session_pb2.Header(train=session_pb2.Train(purpose="\u00e9" * 513, plan=bytes(32))).SerializeToString(), ()),
        (session_pb2.Header(evaluate=session_pb2.Evaluate(purpose="x" * 1025, plan=bytes(32))).SerializeToString(), ()),
        (session_pb2.Header(ask_release=pointer_pb2.AskRelease(reason="x" * 1025)).SerializeToString(), ()),
        (session_pb2.Header(ask_statistics=session_pb2.AskStatistics(kinds=["x"] * 17)).SerializeToString(), ()),
        (session_pb2.Header(ask_statistics=session_pb2.AskStatistics(kinds=["x" * 65])).SerializeToString(), ()),
        (session_pb2.Header(train=session_pb2.Train(metrics=["x"] * 17, plan=bytes(32))).SerializeToString(), ()),
        (session_pb2.Header(evaluate=session_pb2.Evaluate(metrics=["x" * 65], plan=bytes(32))).SerializeToString(), ()),
        (
            session_pb2.Header(
                evaluation=session_pb2.Evaluation(metrics=[session_pb2.NamedNumber(name="a")] * 2)
            ).SerializeToString(),
            (),
        ),
        (
            session_pb2.Header(
                announcement=session_pb2.Announcement(datasets=[session_pb2.DatasetDescription(feature_dtype="object")])
            ).SerializeToString(),
            (),
        ),
        (session_pb2.Header(ask_checkpoint=session_pb2.AskCheckpoint(held=bytes(65_537))).SerializeToString(), ()),
        (session_pb2.Header(checkpoint=session_pb2.Checkpoint(note=bytes(65_537))).SerializeToString(), ()),
        (session_pb2.Header(checkpoint=session_pb2.Checkpoint(proof=[bytes(31)])).SerializeToString(), ()),
        (session_pb2.Header(checkpoint=session_pb2.Checkpoint(proof=[bytes(33)])).SerializeToString(), ()),
        (session_pb2.Header(checkpoint=session_pb2.Checkpoint(proof=[bytes(32)] * 65)).SerializeToString(), ()),
        (session_pb2.Header(checkpoint=session_pb2.Checkpoint(vkey="a\nb")).SerializeToString(), ()),
        (session_pb2.Header(cosigned=session_pb2.Cosigned(signature=bytes(1025))).SerializeToString(), ()),
        (session_pb2.Header(cosigned=session_pb2.Cosigned(vkey="x" * 4097)).SerializeToString(), ()),
        (session_pb2.Header(ask_mock=session_pb2.AskMock(dataset="\x1b[2J")).SerializeToString(), ()),
        (session_pb2.Header(mock=session_pb2.Mock()).SerializeToString(), PAYLOAD),
        (session_pb2.Header(offer_plan=session_pb2.OfferPlan(plan=b"\xff\xff")).SerializeToString(), ()),
    ],
)
def test_what_encode_could_not_have_made_is_refused(header: bytes, payload: tuple[memoryview, ...]) -> None:
    with pytest.raises(WireError):
        decode(Envelope(header, payload))


def test_a_bool_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(WireError, match="bool"):
        decode(Envelope(statistics_header(spec((2,), dtype=12)), (memoryview(bytearray(b"\x01\x02")),)))


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_mutated_bytes_are_a_message_or_a_wire_error(data: st.DataObject) -> None:
    envelope = encode(data.draw(st.sampled_from(EXAMPLES)))
    header = bytearray(envelope.header)
    payload = bytearray(b"".join(envelope.payload))
    for part in (header, payload):
        for _ in range(data.draw(st.integers(0, 4))):
            position = data.draw(st.integers(0, len(part)))
            part[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        message = decode(Envelope(bytes(header), (memoryview(payload),)))
    except WireError:
        return
    assert type(message) in KINDS


@settings(max_examples=200, deadline=None)
@given(header=st.binary(max_size=200), payload=st.binary(max_size=50))
def test_random_bytes_are_a_message_or_a_wire_error(header: bytes, payload: bytes) -> None:
    try:
        message = decode(Envelope(header, (memoryview(payload),)))
    except WireError:
        return
    assert type(message) in KINDS


@pytest.mark.parametrize(
    "message",
    [
        m.AskStatistics(1, NAME, ("count",) * 17, ""),
        m.AskStatistics(1, NAME, ("x" * 65,), ""),
        m.AskStatistics(1, NAME, ("count",), "\N{GRINNING FACE}" * 257),
        v.AskRelease(1, 5, "x" * 1025),
    ],
)
def test_more_than_an_owner_would_read_is_not_even_sent(message: m.Message) -> None:
    with pytest.raises(WireError, match="at most are accepted"):
        encode(message)


def test_as_much_as_an_owner_would_read_is_sent() -> None:
    most = m.AskStatistics(1, NAME, tuple(f"{n:064}" for n in range(16)), "\N{GRINNING FACE}" * 256)
    assert same(most, decode(encode(most)))
