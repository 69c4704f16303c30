"""`fedpriv worker explain --steps`: every step that made a value, for an owner who wants to read them all."""

from __future__ import annotations

from pathlib import Path

from test_requests_command import CONFIG, ME, ROWS, TOY, opened, run

from fedpriv.plans.plan import Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.policy.requests import ReleaseRequest
from fedpriv.wire.plans import encode_plan


def test_every_step_that_made_a_value_is_printed_and_none_where_there_are_none(tmp_path: Path, capsys) -> None:
    (tmp_path / "worker.toml").write_text(CONFIG)
    (tmp_path / "rows.csv").write_text(ROWS)
    rows = Input("toy/features", InputRole.FEATURES, "float32", (10, 2))
    total = Step("aten.sum.default", (Slot(0),))
    plan = Plan((rows,), (Output("value", OutputRole.RESULT, 1),), (), (total,), "2.13")
    value = ReleaseRequest(ME, TOY, ("value",), ("float32",), plan.digest.hex(), "a study")
    sums = ReleaseRequest(ME, TOY, ("statistics",), ("sum",), "", "a study")
    journal = opened(tmp_path)
    journal.requests.note(value, encode_plan(plan), permitted_by="", now=journal.now())
    journal.requests.note(sums, b"", permitted_by="", now=journal.now())
    journal.close()
    code, out, _ = run(capsys, "worker", "explain", value.id, "--steps", "--config", tmp_path / "worker.toml")
    assert (code, out) == (0, '0 = "toy/features" (float32 10 x 2)\n1 = sum(#0)\n')
    code, out, _ = run(capsys, "worker", "explain", sums.id, "--steps", "--config", tmp_path / "worker.toml")
    assert (code, out) == (0, "")
    code, out, _ = run(capsys, "worker", "approve", value.id, "--config", tmp_path / "worker.toml")
    assert code == 0, "a value leaves once: nobody has to say how often"
    assert f"request {value.id} may leave toy for me once" in out
    code, _, err = run(capsys, "worker", "approve", sums.id, "--config", tmp_path / "worker.toml")
    assert code != 0
    assert "--releases 20" in err
