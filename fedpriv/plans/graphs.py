"""The part of tracing that knows torch's internals: symbolic rows in, a graph without mutation out.

Two passes of `make_fx` over fake tensors: one that follows autograd, and, only where something was mutated, one
that rewrites mutation into new values. Nothing is computed and no weight is read. Also: which line of the
researcher's own code stands behind a node or an exception.
"""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import (
    DimDynamic,
    GuardOnDataDependentSymNode,
    ShapeEnv,
    StatelessSymbolicContext,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from fedpriv.errors import FedprivError, TraceError
from fedpriv.plans.plan import BATCH, Input, InputRole
from fedpriv.updates import DTYPE_NAMES, DTYPES

_UNTRACEABLE = (GuardOnDataDependentSymNode, DataDependentOutputException, DynamicOutputShapeException)
_ROWS_TO_TRY = (11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71)
_ROWS_TO_CHECK = (1, 2, 3, 7, 16, 33, 1000)
_OURS = (str(Path(torch.__file__).parent), str(Path(__file__).parent), "<")


TRACING = threading.RLock()
"""Held while anything is traced: torch's tracer keeps what it is at in variables of its modules."""


def captured(step: Callable[..., Sequence[Tensor]], inputs: Sequence[Input]) -> fx.GraphModule:
    """Return `step` as a functional graph with one placeholder per input; raise `TraceError` when it has none."""
    environment = ShapeEnv()
    mode = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)
    rows = _rows(mode, inputs)
    try:
        with TRACING, _quiet(mode):
            fakes = _fakes(inputs, rows)
            graph = make_fx(step, tracing_mode="real", _allow_non_fake_inputs=True)(*fakes)
            _check_rows(environment, rows)
            if any(_mutates(node) for node in graph.graph.nodes):
                plain = _fakes(inputs, rows, grad=False)
                pure = torch.func.functionalize(graph, remove="mutations")
                graph = make_fx(pure, tracing_mode="real", _allow_non_fake_inputs=True)(*plain)
    except FedprivError:
        raise
    except _UNTRACEABLE as untraceable:
        raise TraceError(
            f"the model or loss needs a value to go on{_at(untraceable.__traceback__)}: a branch, .item() or a shape "
            "that depends on data cannot be in a plan; use torch.where, or compute it before"
        ) from untraceable
    except Exception as failure:
        reason = str(failure).strip().splitlines()[0][:300] if str(failure).strip() else type(failure).__name__
        raise TraceError(f"cannot trace{_at(failure.__traceback__)}: {reason}") from failure
    graph.graph.eliminate_dead_code()
    return graph


def described(tensor: Tensor) -> str:
    """Return dtype and shape in words, with free sizes as `rows`."""
    sizes = ", ".join(str(size) if isinstance(size, int) else "rows" for size in tensor.shape)
    return f"{DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype))} of shape ({sizes})"


def is_untraceable(failure: BaseException) -> bool:
    """Whether torch stopped because it would have needed a value."""
    return isinstance(failure, _UNTRACEABLE)


def line_of(step: Callable[..., Sequence[Tensor]], inputs: Sequence[Input], node: fx.Node) -> str:
    """Return where the researcher's code calls the operation of `node`, by tracing again and watching."""
    watch = _Watch(_base(str(node.target)))
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)

    def watched(*values: Tensor) -> Sequence[Tensor]:
        with watch:
            return step(*values)

    rows = _rows(mode, inputs)
    with _quiet(mode):
        make_fx(watched, tracing_mode="real", _allow_non_fake_inputs=True)(*_fakes(inputs, rows))
    return watch.line or "in the backward pass"


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class is untyped
    """Remembers the line of the researcher that first reached one operation."""

    def __init__(self, base: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.line = ""
        self._base = base

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401  torch's hook
        types: Any,  # noqa: ANN401  torch's hook
        args: Any = (),  # noqa: ANN401  torch's hook
        kwargs: Any = None,  # noqa: ANN401  torch's hook
    ) -> Any:  # noqa: ANN401  whatever the operation returns
        if not self.line and _base(str(func)) == self._base:
            self.line = _last_line((frame.filename, frame.lineno) for frame in traceback.extract_stack())
        return func(*args, **(kwargs or {}))


@contextmanager
def _quiet(mode: FakeTensorMode) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="TF32")
        stack.enter_context(torch.backends.mkldnn.flags(enabled=False))  # fused CPU kernels would replace plain steps
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(enable_python_dispatcher())
        stack.callback(setattr, fake_tensor.log, "disabled", fake_tensor.log.disabled)
        fake_tensor.log.disabled = True  # torch prints a traceback of its own before it raises
        stack.enter_context(mode)
        yield


def _rows(mode: FakeTensorMode, inputs: Sequence[Input]) -> int | torch.SymInt:
    """Return a free size; its example value is one that no other dimension has, so that torch cannot confuse them."""
    taken = {size for each in inputs for size in each.shape}
    example = next((size for size in _ROWS_TO_TRY if size not in taken), max(taken) + 1)
    context: Any = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
    return mode.from_tensor(torch.empty(example), symbolic_context=context).shape[0]


def _fakes(inputs: Sequence[Input], rows: int | torch.SymInt, *, grad: bool = True) -> list[Tensor]:
    made = [
        torch.empty([rows if size == BATCH else size for size in each.shape], dtype=DTYPES[each.dtype])
        for each in inputs
    ]
    for each, fake in zip(inputs, made, strict=True):
        fake.requires_grad_(grad and each.role is InputRole.PARAMETER)
    return made


def _check_rows(environment: ShapeEnv, rows: int | torch.SymInt) -> None:
    """Refuse a trace that holds for some numbers of rows only."""
    if isinstance(rows, int) or environment.replace(rows.node.expr).is_number:
        raise TraceError("the model or loss fixes the number of rows; take it from x.shape[0] instead of a number")
    for guard in environment.guards:
        place = guard.sloc.maybe_user_loc or guard.sloc.framework_loc
        line = _last_line([(getattr(place, "filename", "<"), getattr(place, "lineno", 0))])
        if line and _sometimes_false(guard.expr):
            raise TraceError(f"the model branches on the number of rows at {line}; a plan runs at any number of rows")


def _sometimes_false(condition: Any) -> bool:  # noqa: ANN401  a sympy expression
    symbols = list(condition.free_symbols)
    return len(symbols) == 1 and any(str(condition.subs({symbols[0]: size})) == "False" for size in _ROWS_TO_CHECK)


def _mutates(node: fx.Node) -> bool:
    if not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001  the type has no public name
        return False
    schema = node.target._schema  # noqa: SLF001  torch has no public schema
    return bool(schema.is_mutable) or str(node.target) == "aten.native_batch_norm.default"


def _base(name: str) -> str:
    return name.split(".")[1].strip("_").removesuffix("_functional") if "." in name else name


def _at(trace: TracebackType | None) -> str:
    line = _last_line((frame.filename, frame.lineno) for frame in traceback.extract_tb(trace))
    return f" at {line}" if line else ""


def _last_line(frames: Any) -> str:  # noqa: ANN401  pairs of file and line
    lines = [f"{name}:{number}" for name, number in frames if not name.startswith(_OURS)]
    return lines[-1] if lines else ""
