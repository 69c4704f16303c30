"""Several workers that are searched as one."""

from __future__ import annotations

from fedpriv.syft.searching import Found
from fedpriv.syft.workers import BaseWorker


class PrivateGridNetwork:
    """Workers by id."""

    def __init__(self, *workers: BaseWorker) -> None:
        self.workers = {each.id: each for each in workers}

    def search(self, *query: str | int) -> dict[str, list[Found]]:
        """Return what each worker finds, by its id; a worker that finds nothing is left out."""
        found = {name: worker.search(*query) for name, worker in self.workers.items()}
        return {name: each for name, each in found.items() if each}

    def __repr__(self) -> str:
        return f"<PrivateGridNetwork of {', '.join(self.workers) or 'no worker'}>"
