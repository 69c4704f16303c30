"""Programs for Flower run as they are: what is called, when, with what, and what comes of it."""

from __future__ import annotations

import numpy as np
import pytest

import fedpriv.flower as fl
from fedpriv.errors import UsageError
from fedpriv.flower.common import Context, ndarrays_to_parameters, parameters_to_ndarrays

START = ndarrays_to_parameters([np.zeros(2, dtype=np.float32), np.array(0)])


class Client(fl.client.NumPyClient):
    """Adds its number to every value; has one example more than its number."""

    def __init__(self, number: int, calls: list[object] | None = None) -> None:
        self.number, self.calls = number, calls if calls is not None else []

    def get_parameters(self, config):
        return [np.full(2, float(self.number), dtype=np.float32), np.array(7)]

    def fit(self, parameters, config):
        self.calls.append(("fit", self.number, dict(config)))
        return [parameters[0] + self.number, parameters[1] + 1], self.number + 1, {"seen": self.number}

    def evaluate(self, parameters, config):
        self.calls.append(("evaluate", self.number))
        return float(self.number), self.number + 1, {"accuracy": 0.5}


def run(client_fn, clients: int = 4, rounds: int = 1, **options):
    terms = {"min_fit_clients": 1, "min_evaluate_clients": 1, "min_available_clients": 1, "initial_parameters": START}
    return fl.simulation.start_simulation(
        client_fn=client_fn, num_clients=clients, config=fl.server.ServerConfig(num_rounds=rounds),
        strategy=fl.server.strategy.FedAvg(**{**terms, **options}), client_resources={"num_cpus": 1, "num_gpus": 0.0},
    )  # fmt: skip


def test_clients_are_made_anew_for_each_call_by_their_id():
    made: list[str] = []

    def client_fn(cid: str):
        made.append(cid)
        return Client(int(cid)).to_client()

    run(client_fn, clients=2, rounds=2)
    assert made == ["0", "1"] * 4  # fit and evaluate, twice


def test_a_client_function_may_take_a_context():
    seen: list[Context] = []

    def client_fn(context):
        seen.append(context)
        return Client(context.node_config["partition-id"])

    run(client_fn, clients=2)
    assert [each.node_config for each in seen[:2]] == [
        {"partition-id": 0, "num-partitions": 2}, {"partition-id": 1, "num-partitions": 2}
    ]  # fmt: skip


def test_a_client_needs_to_inherit_nothing():
    class Plain:
        fit = Client.fit
        evaluate = Client.evaluate
        number, calls = 3, []

    assert run(lambda cid: Plain(), clients=2).losses_distributed == [(1, 3.0)]


def test_the_order_is_central_fit_central_distributed():
    calls: list[object] = []

    def evaluate_fn(server_round, parameters, config):
        calls.append(("central", server_round, [each.tolist() for each in parameters], config))
        return 1.0 + server_round, {"accuracy": 0.1 * server_round}

    history = run(
        lambda cid: Client(int(cid), calls), clients=2, evaluate_fn=evaluate_fn,
        on_fit_config_fn=lambda server_round: {"local_epochs": server_round},
    )  # fmt: skip
    # client 1 has two of three examples: the mean of 0 and 1 is 2/3
    assert calls[0] == ("central", 0, [[0.0, 0.0], 0], {})
    assert calls[1:3] == [("fit", 0, {"local_epochs": 1}), ("fit", 1, {"local_epochs": 1})]
    assert calls[3][:2] == ("central", 1)
    assert calls[3][2][0] == pytest.approx([2 / 3, 2 / 3])
    assert calls[4:] == [("evaluate", 0), ("evaluate", 1)]
    assert history.losses_centralized == [(0, 1.0), (1, 2.0)]
    assert history.metrics_centralized == {"accuracy": [(0, 0.0), (1, 0.1)]}


def test_losses_are_weighted_by_examples_and_metrics_by_the_callers_function():
    def weighted(metrics):
        total = sum(examples for examples, _ in metrics)
        return {"accuracy": sum(examples * each["accuracy"] for examples, each in metrics) / total}

    def counted(metrics):
        return {"clients": len(metrics)}

    history = run(
        lambda cid: Client(int(cid)), rounds=2, evaluate_metrics_aggregation_fn=weighted,
        fit_metrics_aggregation_fn=counted,
    )  # fmt: skip
    loss = sum(number * (number + 1) for number in range(4)) / sum(number + 1 for number in range(4))
    assert history.losses_distributed == [(1, pytest.approx(loss)), (2, pytest.approx(loss))]
    assert history.metrics_distributed == {"accuracy": [(1, 0.5), (2, 0.5)]}
    assert history.metrics_distributed_fit == {"clients": [(1, 4), (2, 4)]}


@pytest.mark.parametrize(
    ("fraction", "minimum", "asked"), [(1.0, 1, 10), (0.5, 1, 5), (0.25, 1, 2), (0.01, 3, 3), (0.0, 2, 2)]
)
def test_a_fraction_is_rounded_down_and_held_to_its_minimum(fraction, minimum, asked):
    calls: list[object] = []
    run(
        lambda cid: Client(int(cid), calls), clients=10, fraction_fit=fraction, min_fit_clients=minimum,
        fraction_evaluate=0.0,
    )  # fmt: skip
    assert len(calls) == asked
    assert all(call[0] == "fit" for call in calls)  # a fraction of 0 evaluates nowhere


def test_the_same_seed_asks_the_same_clients():
    def asked() -> list[object]:
        calls: list[object] = []
        run(lambda cid: Client(int(cid), calls), clients=20, rounds=3, fraction_fit=0.2)
        return calls

    first = asked()
    assert first == asked()
    assert len({call[1] for call in first if call[0] == "fit"}) > 4


def test_without_initial_parameters_a_client_gives_its_own():
    seen: list[list[float]] = []

    def evaluate_fn(server_round, parameters, config):
        seen.append(parameters[0].tolist())

    history = run(lambda cid: Client(5), clients=2, rounds=0, initial_parameters=None, evaluate_fn=evaluate_fn)
    assert seen == [[5.0, 5.0]]
    assert history.losses_centralized == []  # None is no measurement


def test_whole_numbers_stay_whole_and_floats_single():
    kept: list[object] = []
    run(lambda cid: Client(int(cid)), evaluate_fn=lambda number, parameters, config: kept.append(parameters))
    assert [each.dtype for each in kept[-1]] == [np.float32, np.int64]
    assert kept[-1][1] == 1


def test_what_a_client_writes_into_its_arrays_reaches_nobody_else():
    class Careless(Client):
        def fit(self, parameters, config):
            parameters[0] += 100
            return super().fit([np.zeros(2), np.array(0)], config)

    seen: list[float] = []

    class Watching(Client):
        def fit(self, parameters, config):
            seen.append(float(parameters[0].sum()))
            return super().fit(parameters, config)

    run(lambda cid: Careless(0) if cid == "0" else Watching(1), clients=2)
    assert seen == [0.0]


@pytest.mark.parametrize(
    "returned",
    [
        ((np.zeros(2), np.array(0)), 1, {}),
        ([np.zeros(2), np.array(0)], np.int64(1), {}),
        ([np.zeros(2), np.array(0)], 1),
        [[np.zeros(2), np.array(0)], 1, {}],
        ([np.zeros(2), np.array(0)], 1, None),
    ],
    ids=["a tuple of arrays", "a numpy integer", "two values", "a list", "no metrics"],
)
def test_other_types_than_flowers_are_a_failure_of_that_client(returned, capsys):
    class Wrong(Client):
        def fit(self, parameters, config):
            return returned

    history = run(lambda cid: Wrong(1) if cid == "1" else Client(int(cid)), clients=3)
    assert "client 1 failed in round 1: TypeError: NumPyClient.fit did not return a tuple" in capsys.readouterr().err
    assert history.losses_distributed


@pytest.mark.parametrize("loss", [np.float32(1), 1, "1"])
def test_a_loss_is_a_float(loss, capsys):
    class Wrong(Client):
        def evaluate(self, parameters, config):
            return loss, 1, {}

    assert run(lambda cid: Wrong(1), clients=2).losses_distributed == []
    assert "TypeError: NumPyClient.evaluate did not return" in capsys.readouterr().err


def test_a_failure_stops_a_round_where_none_is_accepted(capsys):
    class Failing(Client):
        def fit(self, parameters, config):
            raise ValueError("no")

    kept: list[float] = []

    def watch(number, parameters, config):
        kept.append(float(parameters[0].sum()))

    run(lambda cid: Failing(1) if cid == "1" else Client(3), clients=2, accept_failures=False, evaluate_fn=watch)
    assert kept == [0.0, 0.0]
    assert "client 1 failed in round 1: ValueError: no" in capsys.readouterr().err


def test_where_nobody_has_an_example_the_model_stays():
    class Empty(Client):
        def fit(self, parameters, config):
            return [each + 1 for each in parameters], 0, {}

        def evaluate(self, parameters, config):
            return 1.0, 0, {}

    kept: list[float] = []
    history = run(
        lambda cid: Empty(1), evaluate_fn=lambda number, parameters, config: kept.append(float(parameters[0].sum()))
    )
    assert kept == [0.0, 0.0]
    assert history.losses_distributed == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_available_clients": 5}, "min_available_clients asks for 5 clients and there are 4"),
        ({"min_fit_clients": 6}, "min_fit_clients asks for 6 clients"),
        ({"min_evaluate_clients": 6}, "min_evaluate_clients asks for 6 clients"),
    ],
)
def test_nothing_waits_for_clients_that_are_not_there(options, message):
    with pytest.raises(UsageError, match=message):
        run(lambda cid: Client(0), **options)


def test_a_client_function_takes_one_argument():
    with pytest.raises(UsageError, match="client_fn takes 2 arguments"):
        run(lambda cid, other: Client(0))


def test_clients_are_counted():
    with pytest.raises(UsageError, match="say how many clients there are"):
        fl.simulation.start_simulation(client_fn=lambda cid: Client(0))


def test_arrays_go_through_parameters_unchanged():
    arrays = [np.arange(3), np.ones((2, 2))]
    for there, back in zip(arrays, parameters_to_ndarrays(ndarrays_to_parameters(arrays)), strict=True):
        assert back is there
