"""What a hook changes of torch: it adds names."""

from __future__ import annotations

import io

import pytest
import torch
from places import BEFORE, behaviour, names
from torch import nn

import fedpriv.syft as sy
from fedpriv.errors import UsageError

TENSORS = {
    "send", "send_", "get", "get_", "move", "copy", "remote_get", "create_pointer", "combine", "tag", "describe",
    "private_tensor", "allow", "id", "tags", "description", "owner", "is_wrapper",
}  # fmt: skip  # a list of names
MODULES = {"send", "get", "move", "copy", "location"}


def test_torch_computes_prints_and_refuses_what_it_did_before(hook: sy.TorchHook) -> None:
    assert behaviour() == BEFORE[0]


def test_names_are_added_and_none_is_taken_away(hook: sy.TorchHook) -> None:
    added = {kind: now - BEFORE[1][kind] for kind, now in names().items()}
    assert added == {
        torch.Tensor: TENSORS,
        nn.Parameter: TENSORS,
        nn.Module: MODULES,
        torch.utils.data.Dataset: {"federate"},
    }
    assert all(before <= names()[kind] for kind, before in BEFORE[1].items())


def test_a_second_hook_is_harmless(hook: sy.TorchHook) -> None:
    before = dict(vars(torch.Tensor))
    again = sy.TorchHook(torch, verbose=True)
    assert dict(vars(torch.Tensor)) == before
    assert again.local_worker == hook.local_worker
    assert again.local_worker.id == "me"


def test_a_hook_of_something_else_is_refused(hook: sy.TorchHook) -> None:
    with pytest.raises(UsageError, match="torch itself"):
        sy.TorchHook(io)


def test_what_a_program_calls_its_own_goes_first(hook: sy.TorchHook) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.location = nn.Linear(2, 3)
            self.register_parameter("move", nn.Parameter(torch.ones(1)))
            self.register_buffer("send", torch.zeros(2))
            self.add_module("copy", nn.ReLU())

        def get(self) -> str:
            return "its own"

    net = Net()
    assert isinstance(net.location, nn.Linear)
    assert isinstance(net.move, nn.Parameter)
    assert torch.equal(net.send, torch.zeros(2))
    assert isinstance(net.copy, nn.ReLU)
    assert net.get() == "its own"
    x = torch.ones(2)
    x.tags = "mine"
    assert x.tags == "mine"


def test_an_id_is_kept_and_a_copy_has_another(hook: sy.TorchHook) -> None:
    import copy

    x = torch.ones(2).tag("#a").describe("ones")
    assert x.id == x.id
    other = copy.deepcopy(x)
    assert other.id != x.id
    assert (other.tags, other.description) == ({"#a"}, "ones")
    assert x.clone().id not in (x.id, other.id)


def test_a_tensor_with_an_id_is_saved_and_loaded_as_any_other(hook: sy.TorchHook) -> None:
    x = torch.arange(3.0).tag("#a")
    assert x.id
    file = io.BytesIO()
    torch.save({"x": x}, file)
    file.seek(0)
    loaded = getattr(torch, "load")(file)["x"]  # noqa: B009  what is loaded is this test's own
    assert torch.equal(loaded, x)
