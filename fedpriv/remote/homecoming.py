"""A module that was trained on somebody's rows, asked back from their owner as a whole, with one request.

What is asked for is one vector of all its numbers in the order of its parameters and buffers; the owner reads how it
came about and answers once. Until then, and if the owner says no, the module stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedpriv.errors import UsageError
from fedpriv.remote.modules import move_module, swap, tensors_of
from fedpriv.remote.pointer import RemoteTensor
from fedpriv.remote.ticket import WAIT_SECONDS, Ticket


class ModuleTicket:
    """One module that an owner was asked for."""

    def __init__(self, module: nn.Module, ticket: Ticket) -> None:
        self.id = ticket.id
        """What the owner sees in `fedpriv worker requests`."""
        self._module = module
        self._ticket = ticket
        self._shapes = [(each.shape, each.dtype) for each in tensors_of(module)]

    def wait(self, timeout: float = WAIT_SECONDS) -> ModuleTicket:
        """Wait up to `timeout` seconds until the owner said yes; raise `ReleaseDenied` for a no, or for no answer."""
        self._ticket.wait(timeout)
        return self

    def get(self, *, exchange: Callable[[Tensor, Tensor], None] = swap) -> nn.Module:
        """Bring the module here, in place, as it was when it was asked for, and return it; gradients are left behind.

        Raise `ReleaseDenied` if the owner has not said yes, `UsageError` if the module has other parameters by now.
        """
        held = list(tensors_of(self._module))
        if [(each.shape, each.dtype) for each in held] != self._shapes:
            raise UsageError("the module has other parameters than when it was asked for; ask for it again")
        parts = torch.split(self._ticket.get(), [each.numel() for each in held])
        here = {id(each): part.view(each.shape).to(each.dtype) for each, part in zip(held, parts, strict=True)}
        self._module.zero_grad(set_to_none=True)
        return move_module(self._module, lambda tensor: here[id(tensor)], exchange)

    def __repr__(self) -> str:
        return f"<ModuleTicket {self.id} at {self._ticket.worker}>"


def request_module(module: nn.Module, reason: str) -> ModuleTicket:
    """Ask the owner whose rows are in `module` to let all of its parameters and buffers out once, as they are now.

    Raise `UsageError` for a module that is not at one worker, and what `RemoteTensor.request` raises.
    """
    held = list(tensors_of(module))
    if not held or not all(isinstance(each, RemoteTensor) for each in held):
        raise UsageError("request_module takes a module that send_module sent; get_module brings your own back")
    kinds = {each.dtype for each in held}
    dtype = kinds.pop() if len(kinds) == 1 else torch.float64  # which holds every float32, and counts up to 2**53
    with torch.no_grad():
        whole = torch.cat([each.detach().reshape(-1).to(dtype) for each in held])
    assert isinstance(whole, RemoteTensor)
    return ModuleTicket(module, whole.request(reason))
