"""Ordinary torch on tensors that lie elsewhere.

A `RemoteTensor` has a shape, a dtype and a place, and no values. Autograd and optimisers run here, on shapes; every
operation goes to the worker as one message without an answer, and only `get` waits. Nothing of torch is changed for
other tensors. What a pointer derives from is followed here as it is at the worker, so that it can be read off; the
worker decides by its own. A value that derives from somebody's data does not come back without its owner's consent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, Self, TypeVar

import torch
from torch import Tensor

from fedpriv.errors import FedprivError, OperationNotAllowed, ReleaseDenied, UsageError, WorkerRefused
from fedpriv.ids import WorkerName
from fedpriv.labels import PUBLIC, Label
from fedpriv.plans.calls import Layout
from fedpriv.remote.handle import Handle, Memory
from fedpriv.remote.mends import not_allowed
from fedpriv.remote.reading import KINDS, Asked, Local, read
from fedpriv.remote.recipes import Composition, Found, Recipe, Shape, check_targets, find
from fedpriv.remote.refusals import explained
from fedpriv.remote.ticket import Ticket
from fedpriv.remote.values import Usable, Values
from fedpriv.updates import DTYPE_NAMES, DTYPES, TensorSpec
from fedpriv.wire.fields import MAXIMUM_TEXT

MAXIMUM_SENT_BYTES = 1 << 20
"""How large a tensor of this process may be that is sent along with an operation on pointers, without being asked."""
_HERE = torch.device("cpu")
_wrap = Tensor._make_wrapper_subclass  # noqa: SLF001  torch has no public way
_SCALAR = "aten._local_scalar_dense.default"


def _absent(what: str) -> Callable[..., Any]:
    """Return a method that needs the values: it raises `ReleaseDenied`."""

    def method(self: RemoteTensor, *_: object, **__: object) -> NoReturn:
        raise ReleaseDenied(
            f"{what} needs the values of {self!r}, which are at the worker; get() brings the caller's own back, "
            "request() asks the owner for others"
        )

    return method


class RemoteTensor(Tensor):
    """A tensor at a worker: shape, dtype and gradient are here, its values are not."""

    _handle: Handle

    def __init_subclass__(cls) -> None:
        KINDS.add(cls)

    def __new__(cls, *_: object, **__: object) -> Self:
        """Raise `UsageError`: a pointer comes from a worker."""
        raise UsageError("a RemoteTensor is made by sending one: worker.send(tensor), or worker.dataset(name).features")

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]  # noqa: SLF001  torch's own way

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch calls it with the overload first
        cls,
        func: Any,  # noqa: ANN401  torch's hook
        types: Any,  # noqa: ANN401  torch's hook
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401  whatever the operation returns
        """Ask the worker for one operation; called by torch."""
        return dispatch(func, args, kwargs or {})

    # --- what can be known ---

    @property
    def worker(self) -> WorkerName:
        """The worker that holds the value."""
        return self._handle.values.worker.name

    @property
    def label(self) -> Label:
        """The data sets that the value derives from; public where it derives from the caller's own tensors alone."""
        return self._handle.memory.label

    def __repr__(  # type: ignore[override]  # torch leaves its own untyped
        self,
        *,
        tensor_contents: Any = None,  # noqa: ANN401  torch's signature
    ) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        derived = ", ".join(sorted(origin.dataset for origin in self.label.origins))
        grad = ", requires_grad" if self.requires_grad else ""
        return (
            f"<RemoteTensor {kind} {list(self.shape)} on {self.worker}, id {self._handle.id}"
            f"{f', derives from {derived}' if derived else ''}{grad}>"
        )

    @property
    def _spec(self) -> TensorSpec:
        """What the value is, as it travels."""
        layout = self._handle.shape.layout
        return TensorSpec("value", layout.dtype, layout.shape)

    # --- what costs an answer ---

    def get(self) -> Tensor:
        """Return a copy of the value; the worker keeps its own.

        Raise `ReleaseDenied` where it derives from an owner's data, `WorkerRefused` where an operation before failed,
        `PeerLost` when the worker is gone.
        """
        try:
            return self._handle.values.fetch(self._handle.id, self._spec)
        except WorkerRefused as refusal:
            raise _explained(refusal, self) from None

    def request(self, reason: str) -> Ticket:
        """Ask the owner to let this value out once, as it is now; what it is asked for goes with it, for `reason`."""
        if self.label.is_public:
            raise ReleaseDenied(
                f"{self!r} is your own and derives from nobody's data: get() it, nobody has to be asked"
            )
        try:
            ticket = self._handle.values.ask_release(self._handle.id, reason)
            return Ticket(self._handle.values, ticket, self._spec, self.worker)
        except WorkerRefused as refusal:
            raise _explained(refusal, self) from None

    def move(self, worker: Any) -> RemoteTensor:  # noqa: ANN401  a worker of any kind
        """Return the value at another worker; it leaves this one through the same door as for `get`."""
        if not callable(getattr(worker, "send", None)):
            raise UsageError(f"{worker!r} is no worker; give the worker itself, as in pointer.move(alice)")
        moved: RemoteTensor = worker.send(self.get())
        return moved

    tolist = _absent("tolist()")
    numpy = _absent("numpy()")
    storage = untyped_storage = _absent("its storage")
    data_ptr = _absent("its address")
    __array__ = _absent("an array of it")
    __dlpack__ = _absent("a capsule of it")
    __reduce_ex__ = _absent("a pickle of it")

    def __contains__(self, element: Any) -> bool:  # noqa: ANN401  a number or a tensor
        return bool((self == element).any())

    def __format__(self, spec: str) -> str:
        return format(_number(self) if spec and not self.dim() else self.__repr__(), spec)

    def __copy__(self) -> RemoteTensor:
        copy: Any = self.detach()
        copied: RemoteTensor = copy.requires_grad_(self.requires_grad)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> RemoteTensor:
        with torch.no_grad():
            copy = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, requires_grad=self.requires_grad)
        memo[id(self)] = copy.requires_grad_(self.requires_grad)
        found: RemoteTensor = memo[id(self)]
        return found


KINDS.add(RemoteTensor)
P = TypeVar("P", bound=RemoteTensor)


def pointer_to(handle: Handle, kind: type[P]) -> P:
    """Return a tensor that stands for a value; what is computed from it is of the same kind of pointer."""
    shape = handle.shape
    made: P = _wrap(kind, shape.shape, strides=shape.strides, dtype=shape.dtype, device=_HERE)
    made._handle = handle  # noqa: SLF001  this module's own
    return made


def at(values: Values, number: int, layout: Layout, label: Label = PUBLIC) -> RemoteTensor:
    """Return a pointer to value `number`."""
    return pointer_to(Handle(values, number, Shape.of(layout), Memory(label)), RemoteTensor)


def sent(values: Values, tensor: Tensor, tags: Sequence[str] = (), description: str = "") -> RemoteTensor:
    """Return a pointer to a copy of `tensor` at the worker of `values`; raise `UsageError` for what does not travel."""
    if not isinstance(tensor, Tensor):
        raise UsageError(f"a {type(tensor).__name__} does not travel; send torch.as_tensor(...) of it")
    if isinstance(tensor, RemoteTensor):
        raise UsageError(f"{tensor!r} is at a worker already; move it: pointer.move(worker), or clone() it there")
    if max(map(len, (description, *tags)), default=0) > MAXIMUM_TEXT:
        raise UsageError(f"a tag or description of more than {MAXIMUM_TEXT:,} characters; write a shorter one")
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.dtype not in DTYPE_NAMES:
        raise UsageError(
            f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device} does not travel; send a dense one with one "
            f"of the dtypes {', '.join(DTYPES)}"
        )
    layout = Layout.dense(DTYPE_NAMES[tensor.dtype], tuple(tensor.shape))
    return at(values, values.put([tensor], tags, description), layout)


_operations: dict[int, Asked] = {}
"""By the identity of the overload, which torch never lets go of."""
_recipes: dict[tuple[Any, ...], Found] = {}


class _UnderWay(threading.local):
    """The operations that this thread is carrying out as several others."""

    def __init__(self) -> None:
        self.identities = set[tuple[Any, ...]]()


_under_way = _UnderWay()


def dispatch(
    func: Any,  # noqa: ANN401  torch's hook
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    mixed: Callable[[Any, Sequence[Any], Mapping[str, Any]], Any] | None = None,
) -> Any:  # noqa: ANN401  as above
    """Carry out one operation at the worker of its pointers; `mixed` does with tensors of this process among them."""
    known = _operations.get(id(func))
    if known is None:
        known = _operations[id(func)] = Asked(func)
    pointers: list[RemoteTensor] = []
    numbers: list[float] = []
    key: list[Any] = [known]
    try:
        read(args, key, pointers, numbers, anew=known.numbers_anew)
        for name in sorted(kwargs):
            key.append(name)
            read((kwargs[name],), key, pointers, numbers, anew=known.numbers_anew)
    except Local:
        return (mixed or with_local)(func, args, kwargs)
    if known.same:
        return _again(pointers[0])
    if known.name == _SCALAR:
        return _number(pointers[0])
    identity = tuple(key)
    found = _recipes.get(identity)
    if found is None:
        found = _recipes[identity] = find(func, _metas(args), {name: _meta(each) for name, each in kwargs.items()})
    if type(found) is Recipe:
        return _carried_out(found, pointers, numbers)
    assert isinstance(found, Composition)
    if identity in _under_way.identities:
        if found.refusal:
            raise OperationNotAllowed(found.refusal, operation=known.name)
        raise not_allowed(known.name)  # taken apart, it comes back to itself
    _under_way.identities.add(identity)
    try:
        return found.run(*args, **kwargs)
    finally:
        _under_way.identities.discard(identity)


def _carried_out(recipe: Recipe, pointers: Sequence[RemoteTensor], numbers: Sequence[float]) -> Any:  # noqa: ANN401
    """Ask for one operation and return pointers to its results, or the one that it wrote into."""
    kind, target = type(pointers[0]), pointers[0]._handle  # noqa: SLF001  this module's own
    values = target.values
    label = PUBLIC
    ids: list[int] = []
    for each in pointers:
        handle = each._handle  # noqa: SLF001  as above
        if handle.values is not values:
            raise _two_workers(pointers)
        ids.append(handle.id)
        other = handle.memory.label
        if other is not PUBLIC and other is not label:
            label = label.join(other)
    shapes = recipe.results
    first = values.use(recipe, ids, numbers, len(shapes))
    if recipe.writes:
        target.memory.label = label
        return pointers[0]
    if recipe.from_shapes:
        label = PUBLIC
    if recipe.single:
        return pointer_to(Handle(values, first, shapes[0], target.memory if recipe.is_view else Memory(label)), kind)  # type: ignore[arg-type]  # one result is there
    return [
        None
        if shape is None
        else pointer_to(Handle(values, first + place, shape, target.memory if recipe.is_view else Memory(label)), kind)
        for place, shape in enumerate(shapes)
    ]


def run_plan(use: Usable, shapes: Sequence[Shape], pointers: Sequence[RemoteTensor]) -> list[RemoteTensor]:
    """Ask for a plan on `pointers`; return pointers to what it gives, each deriving from all of them."""
    values = common_values(pointers)
    label = PUBLIC.join(*(each.label for each in pointers))
    first = values.use(use, [each._handle.id for each in pointers], (), len(shapes))  # noqa: SLF001  this module's own
    kind = type(pointers[0])
    return [pointer_to(Handle(values, first + place, shape, Memory(label)), kind) for place, shape in enumerate(shapes)]


def common_values(arguments: Sequence[Any]) -> Values:
    """Return where the pointers among `arguments` are; raise `UsageError` if that is not one place."""
    pointers = list(_pointers(arguments))
    (values, *others) = {each._handle.values for each in pointers}  # noqa: SLF001  this module's own
    if others:
        raise _two_workers(pointers)
    return values


def _again(pointer: RemoteTensor) -> RemoteTensor:
    """Return another pointer to the same value."""
    return pointer_to(pointer._handle, type(pointer))  # noqa: SLF001  this module's own


def _number(pointer: RemoteTensor) -> Any:  # noqa: ANN401  a number
    """Return the one number of a caller's own value; raise `ReleaseDenied` for anybody else's."""
    if not pointer.label.is_public:
        raise ReleaseDenied(
            f"item(), bool(), int() and float() of {pointer!r} would let a private value decide what happens here; use "
            "torch.where instead of if, or request() the value, or an aggregate of it, from its owner"
        )
    return pointer.get().item()


def taking_apart() -> bool:
    """Return whether an operation is being carried out as several others."""
    return bool(_under_way.identities)


def with_local(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401  torch's hook
    """Send the tensors of this process that an operation takes along, then carry it out."""
    check_targets(func, args, kwargs, RemoteTensor)
    values = common_values((*args, *kwargs.values()))

    def there(value: Any) -> Any:  # noqa: ANN401  any argument
        if isinstance(value, list | tuple):
            return [there(each) for each in value]
        if not isinstance(value, Tensor) or isinstance(value, RemoteTensor):
            return value
        if value.nbytes > MAXIMUM_SENT_BYTES:
            raise UsageError(
                f"a tensor of {value.nbytes:,} bytes is here and the other operand is on {values.worker.name}; send it "
                "first, as in worker.send(tensor)"
            )
        return sent(values, value)

    return func(*map(there, args), **{name: there(each) for name, each in kwargs.items()})


def _pointers(arguments: Sequence[Any]) -> Iterator[RemoteTensor]:
    for each in arguments:
        if isinstance(each, RemoteTensor):
            yield each
        elif isinstance(each, list | tuple):
            yield from _pointers(each)


def _metas(arguments: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(map(_meta, arguments))


def _meta(value: Any) -> Any:  # noqa: ANN401  any argument
    if isinstance(value, RemoteTensor):
        return value._handle.shape.layout.meta()  # noqa: SLF001  this module's own
    return [_meta(each) for each in value] if isinstance(value, list | tuple) else value


def _two_workers(pointers: Sequence[RemoteTensor]) -> UsageError:
    names = sorted({str(each.worker) for each in pointers})
    if len(names) == 1:
        return UsageError(f"the operands are on {names[0]} in two sessions; send them over the same worker object")
    return UsageError(f"the operands are on {' and '.join(names)}; move one: pointer.move(worker)")


def _explained(refusal: WorkerRefused, pointer: RemoteTensor) -> FedprivError:
    values = pointer._handle.values  # noqa: SLF001  this module's own
    return explained(refusal, repr(pointer), pointer.worker, pointer.label, values.line.granted)
