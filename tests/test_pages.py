"""The programs on pages for people run as they stand there."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpriv.cli.app import app
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.thresholds import colluding, least_threshold
from fedpriv_coordinator.config import load_job
from fedpriv_worker.config import load_config
from fedpriv_worker.rosters import AcceptedRoster
from fedpriv_worker.template import write_template

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["docs/pointers.md"])
def test_the_programs_of_a_page_run_in_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks, "a page without programs needs no test"
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")


def fedpriv(command: str) -> list[str]:
    """Run one line of a page here, and return the lines that it prints."""
    program, *words = shlex.split(command)
    assert program == "fedpriv"
    outcome = CliRunner().invoke(app, words, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout.splitlines()


def blocks(section: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [block for named, block in found if named == language]


def test_secure_aggregation_is_set_up_by_the_commands_of_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/secure-aggregation.md").read_text()
    section = page[page.index("## Setting it up") : page.index("## What it promises")]
    administrator, show, sign, accept = (each.strip() for each in blocks(section, ""))
    of_worker, of_job = blocks(section, "toml")
    pinned = tomllib.loads(of_worker)["secure_aggregation"]["administrator"]
    owners = re.findall(r"(\S+)=KEY", sign)
    assert len(owners) == 5
    of_worker = of_worker.replace(pinned, fedpriv(administrator)[0])
    for name in owners:
        path = write_template(tmp_path / name, name)
        path.write_text(f"{path.read_text()}\n{of_worker}")
        (line,) = fedpriv(show.replace("st-elsewhere", name))
        assert line.startswith(f"{name}=")
        sign = sign.replace(f"{name}=KEY", line)
    fedpriv(sign)
    for name in owners:
        shown = [line for command in accept.splitlines() for line in fedpriv(command.replace("st-elsewhere", name))]
        assert all(any(each in line for line in shown) for each in owners)
        config = load_config(tmp_path / name / "worker.toml")
        assert AcceptedRoster(config.worker.state, config.secure_aggregation.administrator).signed().roster.version == 1
        assert [rule.name for rule in config.datasets[0].release] == ["secure-sum"]
    job = (ROOT / "examples/separate_hosts/job.toml").read_text()
    (tmp_path / "job.toml").write_text(f"{job}\n{of_job}")
    asked = load_job(tmp_path / "job.toml").secure_aggregation
    assert asked.signed_roster().roster.federation == "clinics"
    assert asked.minimum_workers == 4


def test_the_table_of_thresholds_is_what_workers_compute() -> None:
    page = (ROOT / "docs/secure-aggregation.md").read_text()
    n, c, t, lost = (
        [int(cell) for cell in re.search(rf"^\| {name} \|(.*)\|$", page, re.MULTILINE).group(1).split("|")]
        for name in ("n", "c", "t", "may be lost")
    )
    assert c == [colluding(each) for each in n]
    assert t == [least_threshold(each, colluding(each)) for each in n]
    assert lost == [workers - shares for workers, shares in zip(n, t, strict=True)]


def test_every_reason_to_stop_that_the_page_names_is_one() -> None:
    page = (ROOT / "docs/secure-aggregation.md").read_text()
    section = page[page.index("## When a round aborts") : page.index("## Large cohorts")]
    firsts = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {reason for first in firsts for reason in re.findall(r"`([a-z-]+)`", first)}
    assert len(named) > 10
    assert named <= {reason.value for reason in Reason}
