"""PySyft 0.2's names for pointers, so that its programs run with one line changed.

    import fedpriv.syft as sy
    hook = sy.TorchHook(torch)
    bob = sy.VirtualWorker(hook, id="bob")
    x = torch.tensor([1.0, 2.0]).send(bob)
    print((x + x).get())

It is thin: every name stands for something of `fedpriv.remote`, `fedpriv.plan` and `fedpriv.VirtualWorker`, under the
same rules. Two things differ from those: `get` takes a value away from its worker, and what a worker in this process
loaded by itself is the caller's own unless its policy says otherwise. New programs are better off without it.
"""

from __future__ import annotations

from torch import optim

from fedpriv.errors import nearest
from fedpriv.syft import averaging as utils
from fedpriv.syft import exceptions, registry
from fedpriv.syft.chains import MultiPointerTensor, PointerChain, combine_pointers
from fedpriv.syft.datasets import BaseDataset, FederatedDataset, PointerDataset
from fedpriv.syft.hook import TorchHook
from fedpriv.syft.loaders import FederatedDataLoader
from fedpriv.syft.network import PrivateGridNetwork
from fedpriv.syft.plans import Plan, PointerPlan, State, func2plan
from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.sandbox import create_sandbox
from fedpriv.syft.workers import LOCAL, BaseWorker, LocalWorker, Policy, VirtualWorker, WebsocketClientWorker

__all__ = [
    "BaseDataset",
    "BaseWorker",
    "FederatedDataLoader",
    "FederatedDataset",
    "LocalWorker",
    "MultiPointerTensor",
    "Plan",
    "PointerChain",
    "PointerDataset",
    "PointerPlan",
    "PointerTensor",
    "Policy",
    "PrivateGridNetwork",
    "State",
    "TorchHook",
    "VirtualWorker",
    "WebsocketClientWorker",
    "combine_pointers",
    "create_sandbox",
    "exceptions",
    "func2plan",
    "optim",
    "utils",
]


def __getattr__(name: str) -> BaseWorker:
    """Return `local_worker`, this process, once a hook is made."""
    if name != "local_worker":
        raise AttributeError(
            f"fedpriv.syft carries no {name!r} of PySyft 0.2{nearest(name, __all__)}; what it carries is a thin layer "
            "over fedpriv's own pointers, and `import fedpriv` has the rest"
        )
    return registry.worker(LOCAL)
