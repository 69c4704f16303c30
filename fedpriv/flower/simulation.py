"""`start_simulation`: the rounds of a Flower program, in this process, one client after the other.

A client is made anew for every call to it. A client that raises, or returns other types than Flower wants, counts as
one that failed: it is said on stderr, and the round goes on without it. Which clients are asked follows from `seed`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch

from fedpriv.errors import UsageError
from fedpriv.flower.client import evaluated, fitted
from fedpriv.flower.common import Config, Context, NDArrays
from fedpriv.flower.server import ServerConfig
from fedpriv.flower.server.history import History, add
from fedpriv.flower.server.strategy import FedAvg

ClientFn: TypeAlias = Callable[[Any], Any]
T = TypeVar("T")


def start_simulation(
    *,
    client_fn: ClientFn,
    num_clients: int | None = None,
    clients_ids: Sequence[str] | None = None,
    client_resources: Mapping[str, float] | None = None,
    config: ServerConfig | None = None,
    strategy: FedAvg | None = None,
    seed: int = 0,
) -> History:
    """Run `config.num_rounds` rounds over clients that `client_fn` makes, and return what was measured.

    `client_fn` takes a client's id (`cid: str`) or a `Context`. Clients run one
    after the other, each with as many of torch's threads as `client_resources` says under "num_cpus" (default 1); what
    else it says is not read. Raise `UsageError` for a strategy
    that needs more clients than there are: Flower would wait for them.
    """
    ids = list(clients_ids) if clients_ids is not None else [str(each) for each in range(num_clients or 0)]
    if not ids or (num_clients is not None and num_clients != len(ids)):
        raise UsageError(f"num_clients is {num_clients} and there are {len(ids)} ids; say how many clients there are")
    chosen = strategy or FedAvg()
    _check(chosen, len(ids))
    threads = max(1, int((client_resources or {}).get("num_cpus", 1)))
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads, before))
    try:
        return _Simulation(chosen, _Clients(client_fn, ids), seed).run((config or ServerConfig()).num_rounds)
    finally:
        torch.set_num_threads(before)


class _Clients:
    """Clients by their place, made when they are called."""

    def __init__(self, client_fn: ClientFn, ids: Sequence[str]) -> None:
        parameters = list(inspect.signature(client_fn).parameters.values())
        if len(parameters) != 1:
            raise UsageError(f"client_fn takes {len(parameters)} arguments; it is called with cid: str, or a Context")
        (only,) = parameters
        self._by_id = only.annotation in {str, "str"} or only.name == "cid"
        self._client_fn, self.ids = client_fn, ids

    def make(self, place: int) -> Any:  # noqa: ANN401 - duck-typed
        """Return the client at `place`, new."""
        if self._by_id:
            made = self._client_fn(self.ids[place])
        else:
            told = {"partition-id": place, "num-partitions": len(self.ids)}
            made = self._client_fn(Context(place, told))
        client = made.to_client() if hasattr(made, "to_client") else made
        # Flower's own wraps the one that has arrays
        return getattr(client, "numpy_client", client)


class _Simulation:
    """One run: the model as arrays, and what was measured of it."""

    def __init__(self, strategy: FedAvg, clients: _Clients, seed: int) -> None:
        self._strategy, self._clients, self._seed = strategy, clients, seed
        self._history = History()
        given = strategy.initial_parameters
        self._model: NDArrays = [] if given is None else [np.array(each) for each in given.tensors]

    def run(self, rounds: int) -> History:
        """Measure the initial model, then train, measure centrally and at the clients, round by round."""
        if not self._model:
            place = self._drawn(0, "initial", 1)[0]
            self._model = [np.array(each) for each in self._clients.make(place).get_parameters({})]
        self._centrally(0)
        for number in range(1, rounds + 1):
            self._fit(number)
            self._centrally(number)
            self._at_clients(number)
        return self._history

    def _fit(self, number: int) -> None:
        strategy, count = self._strategy, len(self._clients.ids)
        config = strategy.on_fit_config_fn(number) if strategy.on_fit_config_fn else {}
        places = self._drawn(number, "fit", strategy.num_fit_clients(count))
        results = self._asked(number, places, config, fitted)
        if results is not None:
            arrays, metrics = strategy.aggregate_fit(results)
            self._model = self._model if arrays is None else arrays
            add(self._history.metrics_distributed_fit, number, metrics)

    def _centrally(self, number: int) -> None:
        found = self._strategy.evaluate_fn(number, self._copy(), {}) if self._strategy.evaluate_fn else None
        if found is not None:
            self._history.losses_centralized.append((number, found[0]))
            add(self._history.metrics_centralized, number, found[1])

    def _at_clients(self, number: int) -> None:
        strategy, count = self._strategy, len(self._clients.ids)
        if not (wanted := strategy.num_evaluation_clients(count)):
            return
        config = strategy.on_evaluate_config_fn(number) if strategy.on_evaluate_config_fn else {}
        results = self._asked(number, self._drawn(number, "evaluate", wanted), config, evaluated)
        if results is not None:
            loss, metrics = strategy.aggregate_evaluate(results)
            if loss is not None:
                self._history.losses_distributed.append((number, loss))
                add(self._history.metrics_distributed, number, metrics)

    def _asked(
        self, number: int, places: Sequence[int], config: Config, call: Callable[[Any, NDArrays, Config], T]
    ) -> list[T] | None:
        """Return what clients return, in order; None where failures are not accepted and one failed, or all did."""
        results: list[T] = []
        failed = 0
        for place in places:
            try:
                results.append(call(self._clients.make(place), self._copy(), dict(config)))
            except Exception as error:  # noqa: BLE001 - the caller's own code, whose failure is one of its client
                failed += 1
                name = f"client {self._clients.ids[place]} failed in round {number}"
                sys.stderr.write(f"fedpriv: {name}: {type(error).__name__}: {error}\n")
        return None if not results or (failed and not self._strategy.accept_failures) else results

    def _copy(self) -> NDArrays:
        """Return the model for one call: what a client writes into its arrays reaches nobody else."""
        return [each.copy() for each in self._model]

    def _drawn(self, number: int, what: str, count: int) -> list[int]:
        words = [self._seed, number, *what.encode()]
        chosen = np.random.default_rng(words).choice(len(self._clients.ids), count, replace=False)
        return sorted(int(each) for each in chosen)


def _check(strategy: FedAvg, clients: int) -> None:
    """Raise `UsageError` where a strategy needs more clients than there are."""
    needed = {
        "min_available_clients": strategy.min_available_clients,
        "min_fit_clients": strategy.num_fit_clients(clients),
        "min_evaluate_clients": strategy.num_evaluation_clients(clients),
    }
    for name, count in needed.items():
        if count > clients:
            raise UsageError(f"{name} asks for {count} clients and there are {clients}; lower it or simulate more")
