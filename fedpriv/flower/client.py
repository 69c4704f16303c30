"""Clients as Flower's: a class with `fit` and `evaluate` over arrays, and checks of what these return.

A client is asked by what it has, not by what it inherits, so that one written for Flower will do.
"""

from __future__ import annotations

from typing import Any

from fedpriv.flower.common import Config, Context, Metrics, NDArrays, Scalar


class NumPyClient:
    """The base of clients over NumPy arrays; override what is needed."""

    context: Context | None = None

    def get_properties(self, config: Config) -> dict[str, Scalar]:  # noqa: ARG002 - to be overridden
        """Return properties of the client."""
        return {}

    def get_parameters(self, config: Config) -> NDArrays:  # noqa: ARG002 - as above
        """Return the model of this client, which the first round starts from where nothing else is given."""
        return []

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:  # noqa: ARG002 - as above
        """Train from `parameters`; return the trained arrays, the number of examples, and metrics."""
        return [], 0, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:  # noqa: ARG002 - as above
        """Evaluate `parameters`; return the loss, the number of examples, and metrics."""
        return 0.0, 0, {}

    def to_client(self) -> NumPyClient:
        """Return this client: Flower's programs end with it."""
        return self


_EXAMPLES = {
    "fit": ("Tuple[NDArrays, int, Dict[str, Scalar]]", 'model.get_weights(), 10, {"accuracy": 0.95}'),
    "evaluate": ("Tuple[float, int, Dict[str, Scalar]]", '0.5, 10, {"accuracy": 0.95}'),
}


def fitted(client: Any, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:  # noqa: ANN401 - duck-typed
    """Return what `fit` of a client returns; raise `TypeError`, as Flower does, where that is something else."""
    found: tuple[NDArrays, int, Metrics] = _checked("fit", client.fit(parameters, config), list)
    return found


def evaluated(client: Any, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:  # noqa: ANN401 - as above
    """Return what `evaluate` of a client returns; raise `TypeError`, as Flower does, where that is something else."""
    found: tuple[float, int, Metrics] = _checked("evaluate", client.evaluate(parameters, config), float)
    return found


def _checked(method: str, found: Any, first: type) -> Any:  # noqa: ANN401 - whatever a client returns
    fits = (
        isinstance(found, tuple)
        and len(found) == 3
        and isinstance(found[0], first)
        and isinstance(found[1], int)
        and isinstance(found[2], dict)
    )
    if not fits:
        signature, example = _EXAMPLES[method]
        raise TypeError(
            f"NumPyClient.{method} did not return a tuple with 3 elements.\nThe returned values should have the "
            f"following type signature:\n\n    {signature}\n\nExample\n-------\n\n    {example}\n"
        )
    return found
