"""Plans as 0.2 knew them: functions, or modules, that run at a worker in one message, on top of `fedpriv.plan`.

What is sent is the traced plan, checked by the worker as every plan is, and never the function. It is traced once for
each set of shapes, so that what was built at one length runs at another. What a plan keeps, parameters, buffers or the
`state` of a function, goes to the worker with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fedpriv.errors import UsageError
from fedpriv.remote.plan import TracedFunction
from fedpriv.remote.pointer import RemoteTensor
from fedpriv.syft import registry
from fedpriv.syft.exceptions import TensorsNotCollocatedException
from fedpriv.syft.pointer import PointerTensor
from fedpriv.syft.sending import put
from fedpriv.syft.traits import new_id, traits_of

if TYPE_CHECKING:
    from fedpriv.syft.workers import BaseWorker

_STATE = "state"


class State:
    """What a function keeps from call to call, in the order in which it was given."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def read(self) -> list[Tensor]:
        """Return the tensors."""
        return [each for name, each in self._module.named_buffers() if name.startswith(_STATE)]


class Plan(nn.Module):
    """A function of tensors, or a module that a subclass writes with `__init__` and `forward`."""

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        *,
        state: Sequence[Tensor] = (),
        id: int | None = None,  # noqa: A002  the name that programs use
        name: str = "",
    ) -> None:
        super().__init__()
        self.id = new_id() if id is None else id
        self.name = name or getattr(function, "__name__", type(self).__name__)
        self.is_built = False
        self._function = function
        self._traced = TracedFunction(self._stated)
        self._sent: dict[str, PointerPlan] = {}
        for at, each in enumerate(state):
            self.register_buffer(f"{_STATE}{at}", each)

    def forward(self, *arguments: Tensor) -> Any:  # noqa: ANN401  what the function returns
        """Run the function here."""
        if self._function is None:
            raise UsageError(f"plan {self.name} has nothing to run; write forward(), or use func2plan on a function")
        return self._function(*arguments, State(self)) if self._kept() else self._function(*arguments)

    def build(self, *arguments: Tensor) -> Plan:
        """Trace it on tensors like these and return it; raise `TraceError` for what is no plan."""
        self._traced.traced([*arguments, *(each.detach() for each in self._kept().values())])
        self.is_built = True
        return self

    def __call__(self, *arguments: Tensor) -> Any:  # noqa: ANN401  what the function returns
        """Run at the worker of the pointers among `arguments`, or here if there is none."""
        pointers = [each for each in arguments if isinstance(each, PointerTensor)]
        if not pointers:
            return super().__call__(*arguments)
        there = self._sent.get(pointers[0].location.id)
        kept = list(self._kept().values()) if there is None else there.state
        return self._run(arguments, kept)

    def send(self, *locations: BaseWorker | str) -> PointerPlan | list[PointerPlan]:
        """Return a pointer to the plan at a worker, or one for each worker; raise `UsageError` if it was not built."""
        if not self.is_built:
            raise UsageError(f"plan {self.name} is not built; give func2plan an args_shape, or call build(...) first")
        made = []
        for each in locations:
            worker = registry.worker(each)
            kept = [put(worker, value.detach(), traits_of(value)) for value in self._kept().values()]
            made.append(PointerPlan(self, worker, kept))
            self._sent[worker.id] = made[-1]
            worker.site.plans[self.id] = self
        return made[0] if len(made) == 1 else made

    def get(self) -> Plan:
        """Take the plan away from every worker that has it; return it."""
        for each in self._sent.values():
            each.location.site.plans.pop(self.id, None)
        self._sent.clear()
        return self

    def get_pointers(self) -> dict[str, PointerPlan]:
        """Return where it was sent, by the worker's id."""
        return dict(self._sent)

    def copied(self) -> Plan:
        """Return another plan of the same function and state, under the same id."""
        made = copy.deepcopy(self)
        made.id = self.id
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        made = copy.copy(self)
        memo[id(self)] = made
        for name in ("_parameters", "_buffers", "_modules"):
            vars(made)[name] = copy.deepcopy(vars(self)[name], memo)
        vars(made).update(id=new_id(), _traced=TracedFunction(made._stated), _sent={})  # noqa: SLF001  its own class
        return made

    def _kept(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def _stated(self, *values: Tensor) -> Any:  # noqa: ANN401  what the function returns
        """Run the function on arguments and then everything that it keeps, as one traces it."""
        names = list(self._kept())
        count = len(values) - len(names)
        return torch.func.functional_call(self, dict(zip(names, values[count:], strict=True)), values[:count])

    def _run(self, arguments: Sequence[Tensor], kept: Sequence[Tensor]) -> Any:  # noqa: ANN401  as above
        places = {each.worker for each in (*arguments, *kept) if isinstance(each, RemoteTensor)}
        if len(places) > 1:
            raise TensorsNotCollocatedException(
                f"plan {self.name} has operands on {' and '.join(sorted(places))}; move one: pointer.move(worker)"
            )
        return self._traced(*arguments, *(each.detach() for each in kept))


@dataclass(eq=False)
class PointerPlan:
    """A plan at a worker, with what it keeps there."""

    plan: Plan = field(repr=False)
    location: BaseWorker
    state: list[PointerTensor] = field(repr=False)
    id: int = field(default_factory=new_id)

    @property
    def id_at_location(self) -> int:
        """The id under which the worker has it."""
        return self.plan.id

    def __call__(self, *arguments: Tensor) -> Any:  # noqa: ANN401  what the function returns
        """Run at the worker on pointers there; raise `TensorsNotCollocatedException` for others."""
        return self.plan._run(arguments, self.state)  # noqa: SLF001  of this file

    def get(self) -> Plan:
        """Take the plan away from the worker and return it."""
        self.location.site.plans.pop(self.plan.id, None)
        self.plan._sent.pop(self.location.id, None)  # noqa: SLF001  of this file
        return self.plan


def func2plan(
    args_shape: Sequence[Sequence[int]] | None = None, state: Sequence[Tensor] = ()
) -> Callable[[Callable[..., Any]], Plan]:
    """Return a decorator that makes a function a plan, built for arguments of `args_shape` where that is given."""

    def made(function: Callable[..., Any]) -> Plan:
        plan = Plan(function, state=state)
        return plan if args_shape is None else plan.build(*(torch.zeros(tuple(each)) for each in args_shape))

    return made
