"""What torch offers as one operation and a worker as several, and what is said where neither has it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from sites import virtual_site

from fedpriv.errors import OperationNotAllowed, UsageError
from fedpriv.remote.holder import Holder

Send = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def bob() -> Iterator[Holder]:
    site = virtual_site((), "bob")
    yield site.pointed
    site.close()


def _given() -> torch.Tensor:
    return torch.linspace(-2.0, 2.0, 12).reshape(3, 4)


def _assigned(send: Send, put: object) -> torch.Tensor:
    target = send(_given())
    target[target < 0] = put if not isinstance(put, torch.Tensor) else send(put)
    return target


def _by_rows(send: Send) -> torch.Tensor:
    target = send(_given())
    target[send(torch.tensor([True, False, True]))] = send(torch.arange(4.0))
    return target


def _resized(send: Send) -> torch.Tensor:
    target = send(_given())
    target.t_().unsqueeze_(0)
    target.add_(1)
    return target


@pytest.mark.parametrize(
    "do",
    [
        lambda send: _assigned(send, 0.0),
        lambda send: _assigned(send, torch.arange(6.0)),
        _by_rows,
        _resized,
        lambda send: 2 - send(torch.arange(3)),
        lambda send: send(_given()).pow_(2),
        lambda send: send(_given()).view(-1, 2),
        lambda send: send(_given().reshape(1, 3, 2, 2)).to(memory_format=torch.channels_last),
        lambda send: F.pad(send(torch.tensor([True, True])), (1, 1)),
        lambda send: send(_given()).new_empty_strided((2, 3), (1, 2)).add_(1).sub_(1).mul(0),
        lambda send: torch.div(send(torch.tensor([7, -7])), send(torch.tensor([2, 3])), rounding_mode="floor"),
        lambda send: torch.add(send(_given()), 1, out=send(torch.zeros(3, 4))),
        lambda send: send(torch.zeros(2, 0)).amax(0),
    ],
)
def test_what_is_done_in_several_steps_is_what_local_torch_does(
    bob: Holder, do: Callable[[Send], torch.Tensor]
) -> None:
    ours, theirs = do(bob.send), do(lambda given: given)
    assert ours.stride() == theirs.stride()
    torch.testing.assert_close(ours.get().nan_to_num(), theirs.nan_to_num(), check_stride=False)


@pytest.mark.parametrize(
    "do",
    [
        lambda x, y: torch.bitwise_and(x, x),
        lambda x, y: torch.mm(x, x.double()),
        lambda x, y: torch.mm(x, x),
        lambda x, y: x.gather(0, x),
        lambda x, y: torch.sort(x, dim=5),
        lambda x, y: F.cross_entropy(x, y[:2]),
        lambda x, y: F.conv2d(x, x),
        lambda x, y: torch.cat([x, x[:, :2]]),
        lambda x, y: F.embedding(x, x),
        lambda x, y: x.index_select(0, x[0]),
        lambda x, y: y.add_(0.5),
    ],
)
def test_what_does_not_fit_raises_what_local_torch_raises(bob: Holder, do: Callable[..., object]) -> None:
    given = _given(), torch.arange(3)
    with pytest.raises(Exception) as theirs:  # noqa: PT011  whatever it is
        do(*given)
    with pytest.raises(type(theirs.value)) as ours:
        do(*map(bob.send, given))
    assert type(ours.value) is type(theirs.value)


@pytest.mark.parametrize(
    "do", [lambda here, there: here.copy_(there), lambda here, there: torch.add(there, there, out=here)]
)
def test_a_tensor_of_this_process_is_never_written_as_if_it_had_been_sent(
    bob: Holder, do: Callable[..., object]
) -> None:
    here = torch.zeros(3, 4)
    with pytest.raises(UsageError, match="into a tensor of this process"):
        do(here, bob.send(_given()))


@pytest.mark.parametrize(
    ("do", "why"),
    [
        (lambda x: x[x > 0], "a boolean index has a shape that depends on values"),
        (lambda x: x.to(torch.complex32), "an argument that no worker takes"),
        (torch.linalg.svd, "fails on values"),
        (lambda x: x.to_sparse(), "makes a sparse tensor"),
        (lambda x: torch.special.chebyshev_polynomial_t(x, x), "takes as long as a value says"),
    ],
)
def test_what_no_worker_runs_says_which_and_why(bob: Holder, do: Callable[..., object], why: str) -> None:
    with pytest.raises(OperationNotAllowed, match=rf"no worker runs \w+ \(aten\..*{why}"):
        do(bob.send(_given()))


@pytest.mark.parametrize(
    "given", [torch.zeros(2).to_sparse(), torch.zeros(2, device="meta"), torch.zeros(1).to(torch.uint16)]
)
def test_what_does_not_travel_is_refused_at_the_line_and_costs_nothing(bob: Holder, given: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="does not travel"):
        bob.send(given)
    assert torch.equal(bob.send(torch.ones(1).expand(1)).get(), torch.ones(1))


def test_threads_do_not_take_each_others_operations_for_their_own(bob: Holder) -> None:
    pointer, index, failed = bob.send(_given()), bob.send(torch.tensor([1])), list[Exception]()

    def run() -> None:
        try:
            for _ in range(50):
                torch.take(pointer, index)
        except Exception as failure:  # noqa: BLE001  told to the test
            failed.append(failure)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not failed
