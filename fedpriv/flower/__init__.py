"""Programs for Flower's simulation, with their two import lines changed.

    import fedpriv.flower as fl                     # import flwr as fl
    from fedpriv.flower.common import Metrics       # from flwr.common import Metrics

Names and semantics are those of Flower 1.10: `fl.client.NumPyClient`, `fl.server.strategy.FedAvg`,
`fl.server.ServerConfig`, `fl.simulation.start_simulation`. Flower itself is not needed, and clients written for it are
taken as they are. It is a simulation: clients are the caller's own Python in the caller's own process, nothing stands
between them and whoever aggregates, and no privacy is promised.
"""

from __future__ import annotations

from fedpriv.flower import client, common, server, simulation

__version__ = "1.10.0"
"""The version of Flower whose semantics these are."""
__all__ = ["client", "common", "server", "simulation"]
