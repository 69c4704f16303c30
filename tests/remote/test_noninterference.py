"""Two workers with different rows, the same random program: what they say is the same, byte for byte."""

from __future__ import annotations

import gc
from collections.abc import Callable

import psutil
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import MakeSite, Site, listening_site, rows, virtual_site
from torch import Tensor

from fedpriv.entropy import SeededEntropy
from fedpriv.errors import FedprivError
from fedpriv.remote.holder import Holder
from fedpriv.sealed import Envelope
from fedpriv.transport.runtime import runtime
from fedpriv_worker.bench import Bench

UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.exp, torch.relu, torch.neg, torch.sqrt, torch.log, torch.abs, torch.sign, torch.isnan, torch.zeros_like,
    torch.ones_like, lambda x: x * 0, lambda x: x.sum(), lambda x: x.mean(0), lambda x: x.t(), lambda x: x[:1],
    lambda x: x.argmax(-1), lambda x: x.to(torch.int64), lambda x: x > 0.5, lambda x: x.cumsum(0),
    lambda x: x.softmax(-1), lambda x: x.sort(-1)[0], lambda x: x.unsqueeze(0), lambda x: F.dropout(x, 0.5),
    lambda x: x.clamp(0, 1), lambda x: x.std(), lambda x: x.reshape(-1),
    lambda x: x.bool(), lambda x: x.flip(0), lambda x: x.max(-1)[1], lambda x: x.double(),
]  # fmt: skip  # one line of operations
BINARY: list[Callable[[Tensor, Tensor], Tensor]] = [
    torch.add, torch.mul, torch.div, torch.maximum, torch.where, torch.matmul, torch.pow, torch.atan2, torch.remainder,
    lambda x, y: x // y, lambda x, y: x @ y.t(), lambda x, y: torch.cat([x, y]), lambda x, y: x.copy_(y),
    lambda x, y: x.add_(y), lambda x, y: x.index_select(0, y), lambda x, y: F.embedding(y, x), lambda x, y: x[y],
    F.mse_loss, F.cross_entropy, F.binary_cross_entropy,
    lambda x, y: x.gather(0, y), lambda x, y: x.masked_fill(y > 0, 1.0),
]  # fmt: skip  # one line of operations


def heard(site: Site) -> list[tuple[str, bytes, bytes]]:
    """Record everything that the worker says from now on."""
    said: list[tuple[str, bytes, bytes]] = []

    class Recorder:
        def record(self, peer: str, kind: str, envelope: Envelope) -> None:
            said.append((kind, envelope.header, b"".join(envelope.payload)))

    site.pointed.send(torch.ones(1))
    site.pointed.values.flush()
    site.pointed.objects()
    connection = site.pointed.values.line._connection
    assert connection is not None
    runtime.run(_recorded(connection, Recorder()))
    return said


async def _recorded(connection, recorder) -> None:
    connection.record_with(recorder)


def performed(worker: Holder, program: list[tuple[int, int, int, int]]) -> list[str]:
    """Carry out a program over rows and own tensors; return what each step came to, as the caller sees it."""
    data = worker.dataset("toy")
    live: list[Tensor] = [data.features, data.target, worker.send(torch.ones(40, 4)), worker.send(torch.arange(4))]
    seen: list[str] = []
    for which, first, second, ask in program:
        left, right = live[first % len(live)], live[second % len(live)]
        try:
            operation = UNARY[which % len(UNARY)] if which % 2 else BINARY[which % len(BINARY)]
            result = operation(left) if which % 2 else operation(left, right)  # type: ignore[call-arg]
            live.append(result)
            seen.append(f"{tuple(result.shape)} {result.dtype} {sorted(each.dataset for each in result.label.origins)}")
            if ask % 5 == 0:
                seen.append(str(result.get().shape))
        except (FedprivError, RuntimeError, IndexError, ValueError, TypeError) as error:
            seen.append(type(error).__name__)
    return seen


PROGRAMS = st.lists(
    st.tuples(st.integers(0, 999), st.integers(0, 99), st.integers(0, 99), st.integers(0, 9)), max_size=25
)


def interferes(program: list[tuple[int, int, int, int]], make: Callable[..., Site]) -> bool:
    sites = [make((rows(seed),), "bob") for seed in (0, 1)]
    for site in sites:  # what is drawn at random is the same, so that only the rows differ
        site.worker._executor.bench = lambda: Bench(SeededEntropy(b"same"))  # type: ignore[method-assign]
    try:
        transcripts = []
        for site in sites:
            said = heard(site)
            seen = performed(site.pointed, program)
            gc.collect()  # what is freed when is the caller's doing, not the worker's
            site.pointed.objects()
            transcripts.append((seen, said))
        return transcripts[0] != transcripts[1]
    finally:
        for site in sites:
            site.close()


@settings(deadline=None, max_examples=25)
@given(PROGRAMS)
def test_no_program_learns_which_rows_a_worker_has(program) -> None:
    assert not interferes(program, virtual_site)


@settings(deadline=None, max_examples=5)
@given(PROGRAMS)
def test_no_program_learns_it_over_grpc_either(program) -> None:
    assert not interferes(program, listening_site)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(PROGRAMS)
def test_no_program_learns_which_rows_a_worker_has_for_long(program) -> None:
    assert not interferes(program, virtual_site)


def test_the_comparison_notices_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a worker that gives rows back is told apart."""
    from fedpriv_worker.release import Door

    monkeypatch.setattr(Door, "_permitted", lambda *_: [])
    assert interferes([(1, 0, 0, 0)], virtual_site)


def test_every_byte_of_a_session_of_values_is_in_the_ledger(make_site: MakeSite) -> None:
    site = make_site(rows())
    data = site.pointed.dataset("toy")
    own = site.pointed.send(torch.randn(300, 100))
    (own @ own.t()).get()
    ticket = data.features.sum(0).request("why")
    site.desk.approve(ticket.id, 1, 60.0)
    ticket.get()
    connection = site.pointed.values.line._connection
    assert connection is not None
    assert sum(entry.draft.bytes for entry in site.journal.entries()) == connection.bytes_in


@pytest.mark.slow
def test_a_hundred_thousand_temporaries_leave_nothing_behind(site: Site) -> None:
    pointer = site.pointed.send(torch.ones(8))

    def loop(count: int) -> None:
        value = pointer
        for _ in range(count):
            value = value * 1.0 + pointer
        value.get()

    loop(5_000)
    gc.collect()
    before = psutil.Process().memory_info().rss
    loop(50_000)
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 20 << 20
    assert len(site.pointed.objects()) == 1
