"""fedpriv attack: what an adversary gets out of the bytes of a run that was recorded, on simulated data."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedpriv.errors import UsageError
from fedpriv.simulation import reconstructions
from fedpriv.simulation.attacking import Claim, Finding, attacked, worst_of_each
from fedpriv.simulation.recordings import Recording

PICTURE = "attacks.png"


def attack(run: Path, epsilon: float | None, delta: float, *, as_json: bool) -> None:
    """Attack what the recorded run in `run` let out, print what came of it, and draw it beside the originals."""
    if epsilon is not None and not (epsilon > 0 and 0 <= delta < 1):
        raise UsageError(f"epsilon is {epsilon} and delta {delta}; use those that were claimed, such as 3.0 and 1e-5")
    claim = None if epsilon is None else Claim(epsilon, delta)
    findings = attacked(Recording.load(run), claim)
    if not findings:
        raise UsageError(f"{run}: nothing was released there that any of the attacks is made for")
    picture = reconstructions.draw([each for each, _ in worst_of_each(findings)], run / PICTURE)
    if as_json:
        drawn = None if picture is None else str(picture)
        sys.stdout.write(json.dumps({"run": str(run), "picture": drawn, "findings": _rows(findings)}) + "\n")
        return
    Console().print(_table(findings))
    if picture is not None:
        sys.stderr.write(f"originals and what was read off: {picture}\n")


def _rows(findings: Sequence[Finding]) -> list[dict[str, object]]:
    return [
        {
            "attack": each.attack,
            "released": each.released,
            "of": each.of,
            "measured": each.measured,
            "control": each.control,
            "works_from": each.works,
            "excess_over_claim": each.excess,
            "verdict": each.verdict,
        }
        for each in findings
    ]


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("attack", "on", "of"):
        table.add_column(name)
    for name in ("measured", "control"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for each, count in worst_of_each(findings):
        of = each.of if count == 1 else f"{each.of}, worst of {count}"
        table.add_row(each.attack, each.released, of, f"{each.measured:.2f}", f"{each.control:.2f}", each.verdict)
    return table
