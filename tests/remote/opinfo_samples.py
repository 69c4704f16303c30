"""torch's own samples of its operations, run on pointers and here, and compared.

An entry of torch's database passes if every sample does: shapes, dtypes and values of results, and of gradients, are
those of local torch; of what is drawn at random, shapes and dtypes. What is refused is refused for one of `REASONS`.
"""

from __future__ import annotations

import csv
import random
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from fedpriv.errors import PlanRefused, ReleaseDenied, UsageError
from fedpriv.plans.operations import denied, table
from fedpriv.remote.holder import Holder
from fedpriv.remote.pointer import RemoteTensor

HERE = Path(__file__).parent
DTYPES = {
    "forward": (torch.float32, torch.float64, torch.int64, torch.bool),
    "backward": (torch.float32, torch.float64),
}
DRAWN = frozenset({
    "bernoulli", "cauchy", "empty", "empty_like", "empty_permuted", "empty_strided", "exponential", "geometric",
    "log_normal", "multinomial", "new_empty", "new_empty_strided", "nn.functional.alpha_dropout",
    "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
    "nn.functional.feature_alpha_dropout.with_train", "nn.functional.fractional_max_pool2d",
    "nn.functional.fractional_max_pool3d", "nn.functional.multi_head_attention_forward", "nn.functional.rrelu",
    "nn.functional.scaled_dot_product_attention", "normal", "normal.in_place", "normal.number_mean", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "uniform",
})  # fmt: skip
"""Entries whose values torch draws, or leaves unwritten: two runs of local torch differ too."""
LAID_OUT_OTHERWISE = frozenset({"fft.hfft2", "fft.hfftn", "fft.rfft2", "fft.rfftn"})
"""Entries whose results a kernel lays out otherwise than torch itself foresees."""
_OF_DENIED = {
    "turns a value into control flow": "value to control",
    "output shape depends on values": "value-dependent shape",
    "fails on values": "fails on values",
    "reads or writes outside its tensor": "memory outside the tensor",
    "reaches files": "file access",
    "takes as long as a value says": "time by value",
    "takes memory that no shape bounds": "memory that no shape bounds",
    "makes a sparse tensor": "dtype or layout not carried",
    "is not reviewed": "not on the allow-list: not reviewed",
    "is not reviewed: a LAPACK kernel": "not on the allow-list: LAPACK",
}
_OF_GUARDS = {
    "has a shape that depends on values": "value-dependent shape",
    "n must be 0 or 1": "time by value",
    "floating point": "dtype or layout not carried",
    "must hold numbers": "dtype or layout not carried",
    "an argument that no worker takes": "dtype or layout not carried",
    "too small": "not on the allow-list: such an argument",
    "beyond 2**40": "not on the allow-list: such an argument",
    "sorter must be left out": "memory outside the tensor",
}
REASONS = {*_OF_DENIED.values(), *_OF_GUARDS.values(), "not on the allow-list: not one of torch's own"}


@dataclass
class Outcome:
    """What became of the samples of one entry in one direction."""

    passed: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Reason and operation, one for each sample that was refused."""
    wrong: list[str] = field(default_factory=list)
    """What differs, or failed for no reason of ours."""

    @property
    def passes(self) -> bool:
        return self.passed > 0 and not self.refused and not self.wrong


@cache
def entries() -> Mapping[str, Any]:
    """Return torch's database of operations by name."""
    from torch.testing._internal.common_methods_invocations import op_db

    return {entry.full_name: entry for entry in op_db}


def committed(name: str) -> list[dict[str, str]]:
    """Return the rows of a table beside this file."""
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def outcome(entry: Any, direction: str, bob: Holder, limit: int, without: Set[torch.dtype] = frozenset()) -> Outcome:
    """Run at most `limit` samples of each dtype of an entry, `without` some of the dtypes."""
    found = Outcome()
    back = direction == "backward"
    supported = entry.supported_backward_dtypes("cpu") if back else entry.supported_dtypes("cpu")
    if back and not entry.supports_autograd:
        return found
    for dtype in DTYPES[direction]:
        if dtype in supported - without:
            for sample in _samples(entry, dtype, limit, back=back):
                _run(entry, sample, bob, found, back=back)
    return found


def _samples(entry: Any, dtype: torch.dtype, limit: int, *, back: bool) -> Iterator[Any]:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    for _, sample in zip(range(limit), entry.sample_inputs("cpu", dtype, requires_grad=back), strict=False):
        yield sample


def _run(entry: Any, sample: Any, bob: Holder, found: Outcome, *, back: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        local = sample.transform(lambda each: _copy(each) if isinstance(each, Tensor) else each)
        try:
            expected = _called(entry, local)
        except Exception:  # noqa: BLE001  what local torch does not do on a CPU cannot be compared
            return
        try:
            remote = sample.transform(lambda each: bob.send(_copy(each)) if isinstance(each, Tensor) else each)
            given = _called(entry, remote)
            _compare(entry.full_name, expected, given)
            if back and not _gradients(entry.full_name, (local, remote), expected, given, bob):
                return
        except AssertionError as difference:
            found.wrong.append(f"{sample.summary()[:200]}: {str(difference)[:200]}")
        except Exception as failure:  # noqa: BLE001  whatever torch or we raise: sorted by `reason_of`
            reason = reason_of(failure)
            if reason is None:
                found.wrong.append(f"{type(failure).__name__}: {str(failure)[:200]}")
            else:
                found.refused.append((reason, getattr(failure, "operation", "")))
        else:
            found.passed += 1


def _copy(given: Tensor) -> Tensor:
    if given.layout is not torch.strided:
        return given
    return given.detach().clone(memory_format=torch.contiguous_format).requires_grad_(given.requires_grad)


def _called(entry: Any, sample: Any) -> list[Tensor]:
    result = sample.output_process_fn_grad(entry(sample.input, *sample.args, **sample.kwargs))
    return [each for each in tree_leaves(result) if isinstance(each, Tensor)]


def _compare(entry: str, expected: list[Tensor], given: list[Tensor]) -> None:
    assert len(expected) == len(given), f"{len(given)} results, not {len(expected)}"
    for theirs, ours in zip(expected, given, strict=True):
        value = ours.get() if isinstance(ours, RemoteTensor) else ours.detach()
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), f"{ours.dtype} {tuple(ours.shape)}"
        assert (value.dtype, value.shape) == (theirs.dtype, theirs.shape), "a pointer is not what it points to"
        if entry not in DRAWN | LAID_OUT_OTHERWISE:
            assert _steps(ours) == _steps(theirs), f"{ours.stride()} {theirs.stride()}"
        if entry not in DRAWN:
            torch.testing.assert_close(value, theirs.detach(), rtol=1e-3, atol=1e-3, equal_nan=True, check_stride=False)


def _steps(tensor: Tensor) -> list[int]:
    """Return the strides that matter."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1 and tensor.numel()]


def _gradients(entry: str, samples: tuple[Any, Any], expected: list[Tensor], given: list[Tensor], bob: Holder) -> bool:
    """Compare the gradients of all leaves; return whether there are any."""
    places = [at for at, each in enumerate(expected) if each.requires_grad]
    assert places == [at for at, each in enumerate(given) if each.requires_grad], "other results have gradients"
    if not places:
        return False
    grads = [torch.randn_like(expected[at].detach()) for at in places]
    torch.autograd.backward([expected[at] for at in places], grads)
    torch.autograd.backward([given[at] for at in places], [bob.send(each) for each in grads])
    for theirs, ours in zip(*map(_leaves, samples), strict=True):
        assert (theirs.grad is None) == (ours.grad is None), "a gradient is missing"
        if theirs.grad is not None:
            _compare(entry, [theirs.grad], [ours.grad])
    return True


def _leaves(sample: Any) -> list[Tensor]:
    held = tree_leaves((sample.input, sample.args, sample.kwargs))
    return [each for each in held if isinstance(each, Tensor) and each.requires_grad]


def reason_of(failure: Exception) -> str | None:
    """Return for which of `REASONS` an operation was refused, or None where it was not refused but failed."""
    match failure:
        case ReleaseDenied():
            return "value to control"
        case UsageError() if "does not travel" in str(failure):
            return "dtype or layout not carried"
        case RuntimeError() if "its data is not allocated" in str(failure):
            return "value to control"  # torch reads the values of its operand itself, and finds none
        case PlanRefused():
            return _reason_of_refusal(failure)
    return None


def _reason_of_refusal(refusal: PlanRefused) -> str | None:
    name = refusal.operation
    if name in denied():
        return _OF_DENIED.get(denied()[name])
    if name in table() or name.replace("_.", ".") in table():
        return next((reason for text, reason in _OF_GUARDS.items() if text in str(refusal)), None)
    return None if name.startswith(("aten.", "prims.")) else "not on the allow-list: not one of torch's own"


def rows(name: str, direction: str, found: Outcome) -> Iterator[dict[str, str]]:
    """Yield the row of an entry that is refused: how many of its samples, and why most of them."""
    if found.refused:
        (reason, operation), _ = Counter(sorted(found.refused)).most_common(1)[0]
        share = "some" if found.passed else "all"
        yield {"entry": name, "direction": direction, "samples": share, "reason": reason, "operation": operation}
