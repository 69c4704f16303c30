"""Pointers to pointers, and one pointer for several workers: what is done to them is done to what they point to.

Both are kept by this process: a worker holds values, and no pointers to other workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from fedpriv.errors import UsageError
from fedpriv.syft.exceptions import TensorsNotCollocatedException
from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.traits import new_id

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker

_OPERATORS = (
    *(f"__{side}{name}__" for name in ("add", "sub", "mul", "truediv", "pow", "matmul") for side in ("", "r", "i")),
    *(f"__{name}__" for name in ("neg", "abs", "eq", "ne", "lt", "le", "gt", "ge", "getitem", "len")),
)
C = TypeVar("C")


def _lifted(kind: type[C]) -> type[C]:
    """Give `kind` torch's functions, and the operators and methods of a tensor, each done by its `_apply`."""

    def through(
        cls: type[C],  # noqa: ARG001  torch's hook
        function: Callable[..., Any],
        types: Any,  # noqa: ANN401, ARG001  torch's hook
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  what the function returns
        applied: Callable[..., Any] = next(each for each in args if isinstance(each, kind))._apply  # type: ignore[attr-defined]  # noqa: SLF001
        return applied(function, args, kwargs or {})

    def operator(name: str) -> Callable[..., Any]:
        def method(self: Any, *args: Any) -> Any:  # noqa: ANN401  as the operator
            return self._apply(getattr(Tensor, name), (self, *args), {})

        return method

    kind.__torch_function__ = classmethod(through)  # type: ignore[attr-defined]
    for name in _OPERATORS:
        setattr(kind, name, operator(name))
    return kind


def _attribute(self: Any, name: str, example: PointerTensor | PointerChain) -> Any:  # noqa: ANN401  any attribute
    """Return an attribute of what `self` points to: a method that is done there, or a value."""
    found = getattr(example, name)
    if not callable(found):
        return self._apply(getattr, (self, name), {})
    return lambda *args, **kwargs: self._apply(
        lambda child, *rest, **named: getattr(child, name)(*rest, **named), (self, *args), kwargs
    )


@_lifted
class PointerChain:
    """A pointer at `location` to a pointer, `child`."""

    __hash__ = object.__hash__

    def __init__(self, child: PointerTensor | PointerChain, location: BaseWorker) -> None:
        self.child = child
        self.location = location
        self.id = self.id_at_location = new_id()

    def get(self, **_: object) -> PointerTensor | PointerChain:
        """Return the pointer that this one points to."""
        return self.child

    def send(self, location: BaseWorker) -> PointerChain:
        """Return a pointer at another worker to this one."""
        return PointerChain(self, location)

    def remote_get(self) -> Any:  # noqa: ANN401  one pointer less
        """Return the chain with one pointer less: its worker has what the pointer there pointed to."""
        if isinstance(self.child, PointerChain):
            return PointerChain(self.child.child, self.location)
        return self.child.move(self.location)

    def _apply(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        def child(value: Any) -> Any:  # noqa: ANN401  any argument
            return value.child if isinstance(value, PointerChain) else value

        result = function(*map(child, args), **{name: child(each) for name, each in kwargs.items()})
        return PointerChain(result, self.location) if isinstance(result, PointerTensor | PointerChain) else result

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  any attribute of a tensor
        if name.startswith("_"):
            raise AttributeError(name)
        return _attribute(self, name, self.child)

    def __repr__(self) -> str:
        return f"(Wrapper)>[PointerTensor | me:{self.id} -> {self.location.id}:{self.id_at_location}]>{self.child!r}"


@_lifted
class MultiPointerTensor:
    """One pointer for several workers; `child` has the pointer at each by its id."""

    __hash__ = object.__hash__

    def __init__(self, children: Sequence[PointerTensor]) -> None:
        self.child = {each.location.id: each for each in children}
        if len(self.child) < len(children):
            raise UsageError("a multi-pointer has one pointer at each worker; two of these are at the same one")

    @property
    def location(self) -> list[BaseWorker]:
        """The workers, in order."""
        return [each.location for each in self.child.values()]

    @property
    def shape(self) -> torch.Size:
        """The shape of each value, which are alike."""
        return next(iter(self.child.values())).shape

    def get(self, *, sum_results: bool = False, user: str | None = None) -> list[Tensor] | Tensor:
        """Return every value, or their sum, and take them away from their workers."""
        values = [each.get(user=user) for each in self.child.values()]
        return torch.stack(values).sum(0) if sum_results else values

    def virtual_get(self) -> list[PointerTensor]:
        """Return the pointers."""
        return list(self.child.values())

    def _apply(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        def at(worker: str, value: Any) -> Any:  # noqa: ANN401  any argument
            if not isinstance(value, MultiPointerTensor):
                return value
            if worker not in value.child:
                raise TensorsNotCollocatedException(f"one operand is at {worker} and the other is not; send it there")
            return value.child[worker]

        results = {
            worker: function(
                *(at(worker, each) for each in args), **{name: at(worker, each) for name, each in kwargs.items()}
            )
            for worker in self.child
        }
        if all(isinstance(each, PointerTensor) for each in results.values()):
            return MultiPointerTensor(list(results.values()))
        return results

    def __iter__(self) -> Iterator[PointerTensor]:
        return iter(self.child.values())

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  any attribute of a tensor
        if name.startswith("_"):
            raise AttributeError(name)
        return _attribute(self, name, next(iter(self.child.values())))

    def __repr__(self) -> str:
        return "\n".join(["(Wrapper)>[MultiPointerTensor]", *(f"\t-> {each!r}" for each in self.child.values())])


def combine_pointers(*pointers: object) -> MultiPointerTensor:
    """Return one pointer for several, each at another worker."""
    for each in pointers:
        if not isinstance(each, PointerTensor):
            raise UsageError(f"combine_pointers() takes pointers, not a {type(each).__name__}; send it first")
    return MultiPointerTensor([each for each in pointers if isinstance(each, PointerTensor)])
