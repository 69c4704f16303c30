"""What deploy/ promises: the files parse, name commands and numbers that exist, and give nothing more than is needed.

Linters that are not installed are skipped with that reason; what matters most is checked without them.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedpriv.cli.app import app, worker
from fedpriv.transport.authority import process_authority
from fedpriv.transport.metrics import process_facts
from fedpriv.wire.messages import Role

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()


def needed(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed here")
    return found


def parsed(path: Path):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed here")
    return yaml.safe_load(path.read_text())


def commands() -> set[str]:
    groups = {each.name for each in app.registered_commands} | {"worker", "certs"}
    return {name or "" for name in groups} | {f"worker {each.name}" for each in worker.registered_commands}


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_is_understood_and_leaves_little_exposed(unit: Path, tmp_path: Path) -> None:
    analyze = needed("systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/fedpriv/bin/fedpriv", sys.executable))
    for words in (("verify", "--man=no"), ("security", "--offline=true", "--threshold=20")):
        ended = subprocess.run([analyze, *words, copy], capture_output=True, text=True, check=False, timeout=60)
        if "offline" in ended.stderr and "unrecognized" in ended.stderr:
            pytest.skip("this systemd-analyze judges no unit offline")
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_of_ours_as_nobody_in_particular(unit: Path) -> None:
    lines = unit.read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    words = shlex.split(settings["ExecStart"])
    assert words[0] == "/opt/fedpriv/bin/fedpriv"
    assert " ".join(words[1:3]) in commands() | {"certs serve"}
    assert settings["User"] not in ("", "root")
    assert settings["CapabilityBoundingSet"] == ""
    assert settings["ProtectSystem"] == "strict"
    assert int(settings["TimeoutStopSec"]) > 60 or "worker" not in unit.name
    assert "2" in settings["RestartPreventExitStatus"].split()


def test_the_image_runs_without_root_from_what_the_tests_ran_with() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "-c constraints.txt" in text
    assert not re.search(r"^(ADD|EXPOSE)\b|\bcurl\b|\bwget\b|:latest", text, re.MULTILINE)
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().splitlines(), source
    assert (ROOT / ".dockerignore").read_text().splitlines()[0] == "*"


def test_the_image_passes_its_linter() -> None:
    ended = subprocess.run(
        [needed("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stdout


def test_the_services_are_confined_and_see_their_own_folder_alone() -> None:
    found = parsed(DEPLOY / "compose" / "compose.yaml")
    services = found["services"]
    assert set(services) == {"hub", "alice", "bob", "carol"}
    assert found["networks"]["federation"] == {"internal": True}
    for name, service in services.items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "ports" not in service
        assert "privileged" not in service
        (volume,) = service["volumes"]
        assert volume.endswith(":/srv/fedpriv")
        assert volume.rpartition(":/")[0].endswith("coordinator" if name == "hub" else f"workers/{name}")
        words = service["command"]
        assert words[0] in commands()
        assert int(service["stop_grace_period"].removesuffix("s")) > 60


def test_the_site_that_it_mounts_is_one_that_both_sides_read(tmp_path: Path) -> None:
    from fedpriv.transport.credentials import Credentials
    from fedpriv_coordinator.config import load_code, load_job
    from fedpriv_worker.config import load_config
    from fedpriv_worker.loading import check

    runpy.run_path(str(DEPLOY / "compose" / "site.py"))["main"](tmp_path)
    job = load_job(tmp_path / "coordinator" / "job.toml")
    assert load_code(job).model is not None
    hub = Credentials.load(tmp_path / "coordinator", role=Role.COORDINATOR)
    for name in job.workers.names:
        config = load_config(tmp_path / "workers" / name / "worker.toml")
        assert config.dial is not None
        assert config.dial.address == "hub:7443"
        assert config.operations.health == "127.0.0.1:7450"
        assert [each.name for each in check(config)] == [job.dataset]
        own = Credentials.load(tmp_path / "workers" / name, name=name, role=Role.WORKER)
        assert own.authorities == hub.authorities


def test_every_alert_is_about_a_number_that_we_give_and_has_its_place_in_the_runbook() -> None:
    given = {each.name for each in process_facts(ROOT, process_authority().issue("a", Role.WORKER), lambda: True)}
    rules = [rule for group in parsed(DEPLOY / "prometheus" / "alerts.yaml")["groups"] for rule in group["rules"]]
    assert rules
    for rule in rules:
        named = set(re.findall(r"fedpriv_[a-z_]+", rule["expr"]))
        assert named <= given
        assert named or rule["expr"].startswith("up{")
        assert f"### {rule['alert']}\n" in RUNBOOK


@pytest.mark.parametrize("words", [["worker", "join"], ["certs", "serve"], ["doctor"], ["health"], ["certs", "revoke"]])
def test_the_commands_that_operations_rely_on_have_help(words: list[str]) -> None:
    if words[0] == "certs":
        from fedpriv.cli.certs import app as certs

        outcome = CliRunner().invoke(certs, [*words[1:], "--help"])
    else:
        outcome = CliRunner().invoke(app, [*words, "--help"])
    assert outcome.exit_code == 0
    assert f"fedpriv {' '.join(words)}" in RUNBOOK
