"""Everything to try things out with, in one call: workers, a grid of them, and toy data."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any

import torch

from fedpriv.syft.hook import TorchHook
from fedpriv.syft.network import PrivateGridNetwork
from fedpriv.syft.workers import VirtualWorker

WORKERS = ("bob", "theo", "jason", "alice", "andy", "jon")
_BUNDLED = ("iris", "wine", "breast_cancer", "diabetes", "digits")


def create_sandbox(gbs: MutableMapping[str, Any], *, verbose: bool = True, download_data: bool = True) -> None:
    """Put a hook, six workers and a grid of them into `gbs`, such as globals(); with toy data where there is any.

    The data are scikit-learn's bundled sets, cut into six parts with the tags "#data" and "#target"; nothing is
    downloaded. Without scikit-learn there are none.
    """
    hook = TorchHook(torch)
    workers = [VirtualWorker(hook, name) for name in WORKERS]
    if download_data:
        for name, data, targets in _toys():
            for worker, rows, labels in zip(
                workers, data.chunk(len(WORKERS)), targets.chunk(len(WORKERS)), strict=False
            ):
                worker.load_data([rows.tag(f"#{name}", "#data"), labels.tag(f"#{name}", "#target")])  # type: ignore[attr-defined]  # the hook adds it
    gbs.update({worker.id: worker for worker in workers})
    gbs.update({"hook": hook, "me": hook.local_worker, "torch": torch, "workers": workers})
    gbs["grid"] = PrivateGridNetwork(*workers)
    if verbose:
        print(f"Sandbox with the workers {', '.join(WORKERS)}: try grid.search('#iris', '#data')")  # noqa: T201  as 0.2


def _toys() -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    try:
        toys = importlib.import_module("sklearn.datasets")
    except ImportError:
        return
    for name in _BUNDLED:
        data, targets = getattr(toys, f"load_{name}")(return_X_y=True)
        yield name, torch.as_tensor(data, dtype=torch.float32), torch.as_tensor(targets)
