"""Logs as JSON: one object a line with ids, nothing of an exception but its kind, and people's lines among them."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from fleets import make_worker, toy
from test_floods import Sender, order, wide_plan

import fedpriv as fp
from fedpriv.cli.logs import JsonLines
from fedpriv.occasion import about, ids
from fedpriv.transport.authority import process_authority
from fedpriv.wire.messages import OfferPlan, Role, Update


def line_of(record: logging.LogRecord) -> dict[str, object]:
    return json.loads(JsonLines().format(record))


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = None if error is None else (type(error), error, None)
    return logging.LogRecord("fedpriv.worker", logging.WARNING, "x.py", 1, message, arguments, info)


def test_a_line_is_an_object_with_time_level_and_message() -> None:
    line = line_of(record("request %d refused: %s", 7, "OVER_QUOTA"))
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "fedpriv.worker", "message": "request 7 refused: OVER_QUOTA"}


def test_the_text_of_an_exception_stays_out() -> None:
    line = JsonLines().format(record("a defect of ours", error=ValueError("Target 7 is out of bounds")))
    assert "Target" not in line
    assert json.loads(line)["exception"] == "ValueError"


def test_what_a_peer_wrote_drives_no_terminal_and_no_second_line() -> None:
    line = JsonLines().format(record("peer says %s", 'x\n{"level":"error"}\x1b[2J'))
    assert "\n" not in line
    assert "\x1b" not in json.loads(line)["message"]


def test_ids_follow_the_task_and_its_threads_and_end_with_the_block() -> None:
    async def scenario() -> None:
        with about(peer="hub", session=1):
            with about(request=5):
                assert await asyncio.to_thread(ids) == {"peer": "hub", "session": 1, "request": 5}
                task = asyncio.create_task(asyncio.sleep(0, ids()))
            assert ids() == {"peer": "hub", "session": 1}
            assert (await task)["request"] == 5
        assert ids() == {}

    asyncio.run(scenario())


def test_a_workers_lines_say_whose_session_and_which_request_they_are_about(caplog: pytest.LogCaptureFixture) -> None:
    rules = (fp.PlainUpdate(recipients=("hub",)),)
    worker, _ = make_worker("alice", [toy(8, release=rules)], process_authority().issue("alice", Role.WORKER))
    lines: list[dict[str, object]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(line_of(record))

    keep = Keep()
    logging.getLogger("fedpriv").addHandler(keep)
    caplog.set_level(logging.INFO, "fedpriv")

    async def scenario() -> None:
        hub = await Sender.connect(worker, "hub")
        await hub.ask(OfferPlan(1, wide_plan(4)))
        assert isinstance(await hub.ask(order(wide_plan(4), 4)), Update)
        mallory = await Sender.connect(worker, "mallory")
        await mallory.ask(OfferPlan(9, wide_plan(4)))
        await worker.close()

    try:
        asyncio.run(scenario())
    finally:
        logging.getLogger("fedpriv").removeHandler(keep)
    about_sessions = [line for line in lines if "session" in line]
    assert {(line["worker"], line["peer"]) for line in about_sessions} == {("alice", "hub"), ("alice", "mallory")}
    assert len({line["session"] for line in about_sessions}) == 2
    refused = [line for line in lines if "refused" in str(line["message"])]
    assert refused
    assert all(line["peer"] == "mallory" for line in refused)


def test_the_command_line_speaks_json_alone_and_keeps_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedpriv.cli.app", "certs", "serve", "--log-json", "--ca", str(tmp_path / "none")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    said = json.loads(line)
    assert said["level"] == "error"
    assert "holds no authority; make one once" in said["message"]
