"""The owner's commands over a state folder and over a running worker: what they print, and that both answer alike."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fedpriv.cli import app as command
from fedpriv.clock import SystemClock
from fedpriv.entropy import SystemEntropy
from fedpriv.ids import DatasetName, JobId, PeerName, WorkerName
from fedpriv.ledger.entries import Draft
from fedpriv.policy.requests import Recipient, ReleaseRequest
from fedpriv.policy.rules import Metrics, cite
from fedpriv.privacy.budget import ORDERS, Budget, Cost
from fedpriv.privacy.reservations import Limit, Reservation
from fedpriv_worker import control
from fedpriv_worker.config import load_config
from fedpriv_worker.desk import Desk
from fedpriv_worker.holdings import declared
from fedpriv_worker.journal import Journal

CONFIG = """\
[worker]
name = "alice"
[dial]
address = "127.0.0.1:1"
[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
[[dataset]]
name = "toy"
path = "rows.csv"
target = "y"
budget = { epsilon = 8.0, delta = 1e-5 }
release = [ { rule = "approval" }, { rule = "metrics", rounds_per_day = 5, recipients = ["me"] } ]
"""
ROWS = "a,b,y\n" + "1.0,2.0,true\n2.0,1.5,false\n" * 6
ME = Recipient(PeerName("me"), "coordinator")
TOY = DatasetName("toy")
SUMS = ReleaseRequest(ME, TOY, ("statistics",), ("sum",), "", "a \x1b[31mstudy")
OTHER = ReleaseRequest(ME, TOY, ("statistics",), ("count",), "", "another study")


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        command.main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def opened(home: Path) -> Journal:
    return Journal.open(home / "state", worker=WorkerName("alice"), clock=SystemClock(), entropy=SystemEntropy())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A stopped worker that two requests came to."""
    (tmp_path / "worker.toml").write_text(CONFIG)
    (tmp_path / "rows.csv").write_text(ROWS)
    journal = opened(tmp_path)
    for request in (SUMS, OTHER):
        journal.requests.note(request, b"", permitted_by="", now=journal.now())
    journal.close()
    return tmp_path


@contextmanager
def running(home: Path) -> Iterator[None]:
    """Hold the state folder and answer at its control socket, as a worker does."""
    journal = opened(home)
    holdings = tuple(map(declared, load_config(home / "worker.toml").datasets))
    loop, ready = asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        async with control.serve(home / "state", Desk(WorkerName("alice"), holdings, journal)):
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        journal.close()


@pytest.fixture(params=["stopped", "running"])
def worker(request, home: Path) -> Iterator[Path]:
    if request.param == "stopped":
        yield home
        return
    with running(home):
        yield home


def test_requests_are_listed_and_shown_whether_the_worker_runs_or_not(worker, capsys):
    code, out, err = run(capsys, "worker", "requests", "--config", worker / "worker.toml")
    assert code == 0
    assert SUMS.id in out
    assert "waiting" in out
    assert "statistics (sum)" in out
    assert "\x1b" not in out
    assert "2 wait for you" in err
    assert "runs on" in err
    code, out, err = run(capsys, "worker", "requests", "--config", worker / "worker.toml", "--json")
    assert {json.loads(line)["id"] for line in out.splitlines()} == {SUMS.id, OTHER.id}
    code, out, err = run(capsys, "worker", "requests", "show", SUMS.id[:8], "--state", worker / "state")
    assert code == 0
    assert "me (coordinator)" in out


def test_where_no_rules_are_known_nothing_is_said_of_them_and_the_remedy_is(home, capsys):
    alone = home / "elsewhere"
    (home / "state").rename(alone)
    code, out, err = run(capsys, "worker", "explain", SUMS.id, "--state", alone)
    assert code == 0
    assert "no rule lets it out" not in out
    assert "whether your rules let it out is not known here" in out
    assert "rules are not in the state folder" in " ".join(out.split())
    assert f"fedpriv worker explain {SUMS.id} --config worker.toml" in out
    assert "--config" in err
    code, out, _ = run(capsys, "worker", "requests", "--state", alone, "--json")
    assert {json.loads(line)["standing"] for line in out.splitlines()} == {"unknown"}
    code, _, err = run(capsys, "worker", "approve", SUMS.id, "--releases", "1", "--state", alone)
    assert code == 2
    assert "rules are not in the state folder" in err
    code, out, _ = run(capsys, "worker", "deny", SUMS.id, "--why", "no", "--state", alone)
    assert code == 0
    code, out, _ = run(capsys, "worker", "explain", SUMS.id, "--state", alone)
    assert "you denied it, and nothing leaves" in out


def test_options_may_stand_before_show_and_after_it(worker, capsys):
    config = ("--config", worker / "worker.toml")
    before = run(capsys, "worker", "requests", *config, "show", SUMS.id, "--json")
    after = run(capsys, "worker", "requests", "show", SUMS.id, *config, "--json")
    assert before == after
    assert json.loads(before[1])["purpose"] == SUMS.purpose


def test_a_request_is_explained_approved_and_denied(worker, capsys):
    config = ("--config", worker / "worker.toml")
    code, out, _ = run(capsys, "worker", "explain", SUMS.id[:8], *config)
    assert code == 0
    assert f"fedpriv worker approve {SUMS.id}" in out
    code, out, _ = run(capsys, "worker", "approve", SUMS.id, "--releases", 3, "--expires", "12h", *config)
    assert code == 0
    assert f"request {SUMS.id} may leave toy for me 3 times" in out
    assert 'it is statistics (sum) for the purpose "a \N{REPLACEMENT CHARACTER}[31mstudy", plan none' in out
    code, out, _ = run(capsys, "worker", "explain", SUMS.id, *config, "--json")
    found = json.loads(out)
    assert found["standing"] == "approved"
    assert found["approval"]["expires"] - found["asked"]["last"] == pytest.approx(43_200, abs=60)
    code, out, err = run(capsys, "worker", "deny", SUMS.id[:8], "--why", "enough", *config)
    assert (code, out) == (0, f"request {SUMS.id} of me is denied; nothing of it leaves\n")
    assert "this exact request" in err
    code, _, err = run(capsys, "worker", "approve", SUMS.id, "--releases", 3, *config)
    assert code == 2
    assert f"you denied request {SUMS.id} on 20" in err
    assert "--again" in err
    assert run(capsys, "worker", "deny", SUMS.id, "--why", "enough", *config)[0] == 0
    code, out, _ = run(capsys, "worker", "requests", "show", SUMS.id, *config)
    assert "enough" in out


def test_an_answer_given_to_a_stopped_worker_is_there_when_it_starts(home, capsys):
    run(capsys, "worker", "approve", SUMS.id, "--releases", 3, "--state", home / "state")
    journal = opened(home)
    assert [grant.releases for grant in journal.requests.grants(journal.now())] == [3]
    journal.close()


def test_all_that_a_peer_asked_for_is_denied_at_once(worker, capsys):
    config = ("--config", worker / "worker.toml")
    code, out, err = run(capsys, "worker", "deny", "--peer", "you", "--why", "no", *config)
    assert (code, out) == (2, "")
    assert "no request of 'you' is left to deny; asked have me for toy" in err
    code, out, err = run(capsys, "worker", "deny", "--peer", "me", "--dataset", "toy", "--why", "no", *config)
    assert code == 0
    assert sorted(out.splitlines()) == sorted(
        f"request {each.id} of me is denied; nothing of it leaves" for each in (SUMS, OTHER)
    )
    assert "these exact requests" in err
    code, out, _ = run(capsys, "worker", "requests", "--json", *config)
    assert {json.loads(line)["standing"] for line in out.splitlines()} == {"denied"}
    code, _, err = run(capsys, "worker", "deny", "--peer", "me", "--why", "no", *config)
    assert (code, "asked have nobody" in err) == (2, True)


@pytest.mark.parametrize("words", [(), (SUMS.id, "--peer", "me"), (SUMS.id, "--dataset", "toy")])
def test_a_denial_is_of_one_request_or_of_all_of_a_peer(home, capsys, words):
    code, out, err = run(capsys, "worker", "deny", *words, "--why", "no", "--config", home / "worker.toml")
    assert (code, out) == (2, "")
    assert "give either the ID of a request, or --peer, --dataset or both" in err


def test_what_was_denied_is_approved_after_all_by_who_says_so(worker, capsys):
    config = ("--config", worker / "worker.toml")
    run(capsys, "worker", "deny", SUMS.id, "--why", "enough", *config)
    code, out, err = run(capsys, "worker", "approve", SUMS.id, "--releases", 3, "--again", *config)
    assert code == 0
    assert "may leave toy" in out
    assert f"this takes back what you decided: you denied request {SUMS.id} on 20" in err


def test_the_number_of_releases_is_the_owners_to_say(home, capsys):
    code, out, err = run(capsys, "worker", "approve", SUMS.id, "--state", home / "state")
    assert (code, out) == (2, "")
    assert "how many rounds" in err


@pytest.mark.parametrize(
    "arguments", [("approve", "--releases", "0"), ("approve", "--releases", "5", "--expires", "2y")]
)
def test_an_approval_without_measure_exits_2(worker, capsys, arguments):
    code, out, err = run(capsys, "worker", arguments[0], SUMS.id, *arguments[1:], "--config", worker / "worker.toml")
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_a_wrong_id_names_the_nearest(worker, capsys):
    wrong = SUMS.id[:-1] + ("0" if SUMS.id[-1] != "0" else "1")
    code, _, err = run(capsys, "worker", "explain", wrong, "--config", worker / "worker.toml")
    assert code == 2
    assert f"did you mean '{SUMS.id}'" in err


def test_an_approval_by_the_beginning_of_an_id_is_refused_with_the_way_to_the_whole(worker, capsys):
    config = ("--config", worker / "worker.toml")
    code, out, err = run(capsys, "worker", "approve", SUMS.id[:16], "--releases", 3, *config)
    assert (code, out) == (2, "")
    assert f"fedpriv worker explain {SUMS.id[:16]}" in err


def test_a_purpose_cannot_look_like_the_cells_beside_it(home, capsys):
    journal = opened(home)
    for blank in (" ", "\u2800", "\u3164"):
        purpose = f'study"{blank * 9}1{blank * 6}1999-01-01'
        forged = replace(SUMS, purpose=purpose, kinds=(f"sum){blank * 3}study",))
        journal.requests.note(forged, b"", permitted_by="", now=journal.now())
    journal.close()
    code, out, _ = run(capsys, "worker", "requests", "--config", home / "worker.toml")
    assert code == 0
    assert "\u2800" not in out
    assert "\u3164" not in out
    for line in out.splitlines()[1:4]:
        ours, kind, more, purpose, rest = line.split('"')
        assert (kind[:4], purpose[:7]) == ("sum)", "study'\N{REPLACEMENT CHARACTER}") or purpose.startswith("study' ")
        assert not {"study", "1999"} & set(f"{ours} {more} {rest}".split())


def test_data_sets_are_described_with_rows_rules_and_budget(home, capsys):
    code, out, _ = run(capsys, "worker", "datasets", "--config", home / "worker.toml")
    assert code == 0
    assert "toy: 12 rows, told to peers rounded down to tens" in out
    assert "may see what its owner approved" in out
    assert "budget: epsilon 8 left of 8 (delta 1e-05 per row), 0 spent; 0 releases so far" in out
    code, out, _ = run(capsys, "worker", "datasets", "--config", home / "worker.toml", "--json")
    assert json.loads(out)["announced_rows"] == 10


def test_without_a_configuration_rules_are_not_known_and_that_is_said(home, capsys):
    (home / "worker.toml").rename(home / "elsewhere.toml")
    code, out, err = run(capsys, "worker", "requests", "--state", home / "state")
    assert (code, "unknown" in out) == (0, True)
    assert "name it with --config" in err
    code, _, err = run(capsys, "worker", "approve", SUMS.id, "--releases", 1, "--state", home / "state")
    assert code == 2
    assert "rules are not in the state folder" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("worker", "requests"), ""),
        (("worker", "datasets"), "toy: 12 rows, told to peers rounded down to tens"),
        (("budget", "list"), "toy             8  1e-05"),
        (("budget", "show"), "rule approval"),
        (("worker", "deny", "a", "--why", "b"), None),
    ],
)
def test_before_the_first_start_the_configuration_answers_and_nothing_is_made(
    tmp_path, capsys, monkeypatch, arguments, says
):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("fedpriv: error: there is no worker.toml here; name ")
    (tmp_path / "worker.toml").write_text(CONFIG)
    (tmp_path / "rows.csv").write_text(ROWS)
    code, out, err = run(capsys, *arguments)
    assert code == (2 if says is None else 0)
    assert (says or "") in out
    assert ("no worker has run there yet" if says is None else "no worker has run on ") in err
    assert not (tmp_path / "state").exists()


def test_a_state_folder_that_lost_its_journal_is_not_taken_for_a_new_one(home, capsys):
    (home / "state" / "journal.sqlite").unlink()
    code, _, err = run(capsys, "budget", "list", home / "worker.toml")
    assert code == 2
    assert "is no state folder" in err


def test_a_place_that_does_not_exist_is_named(tmp_path, capsys):
    code, _, err = run(capsys, "budget", "show", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere does not exist; name a worker.toml" in err
    assert "no worker.toml is known" not in err


def test_both_a_file_and_a_folder_are_one_too_many(home, capsys):
    code, _, err = run(capsys, "worker", "requests", "--config", home / "worker.toml", "--state", home / "state")
    assert code == 2
    assert "give one of them" in err


def test_a_folder_that_another_process_holds_is_said_so(home, capsys):
    journal = opened(home)
    code, _, err = run(capsys, "worker", "deny", SUMS.id, "--why", "no", "--state", home / "state")
    journal.close()
    assert code == 2
    assert "another process holds" in err


def spend(home: Path) -> None:
    journal = opened(home)
    loss = Cost("gaussian", "{}", "add-or-remove-one", tuple(0.01 * order for order in ORDERS))
    metrics = Limit(cite(Metrics(recipients=("me",), rounds_per_day=5)), 5, 86_400.0)
    order = Reservation(b"r", TOY, ME.name, "", JobId("j"), 1, (metrics,), loss, Budget(8.0, 1e-5))
    journal.holds.commit(journal.reserve(order), 0)
    journal.append(Draft(peer="me", method="Attach", kind="update", bytes=10, labels=("toy/alice",)), b"", [])
    journal.close()


@pytest.mark.parametrize("where", ["worker.toml", "state", "."])
def test_a_budget_is_read_from_the_files_while_a_worker_holds_them(home, capsys, where):
    spend(home)
    with running(home):
        code, out, _ = run(capsys, "budget", "list", home / where, "--json")
        found = json.loads(out)
        assert code == 0
        assert 0 < found["spent"] < 8.0
        assert found["spent"] + found["left"] == pytest.approx(8.0)
        assert (found["releases"], found["recipients"][0]["name"]) == (1, "me")
        code, out, _ = run(capsys, "budget", "show", home / where)
    assert code == 0
    assert "me: 1 releases" in out
    assert "used 1 of 5 times in 24 hours" in out


def test_no_delta_is_told_that_nobody_set(home, capsys):
    (home / "worker.toml").write_text(CONFIG.replace("budget = { epsilon = 8.0, delta = 1e-5 }", ""))
    code, out, _ = run(capsys, "budget", "list", home / "worker.toml")
    assert (code, out.splitlines()[1].split()) == (0, ["toy", "none", "0", "0", "0"])
    assert "1e-05" not in out


def test_a_budget_is_one_line_a_data_set(home, capsys):
    code, out, _ = run(capsys, "budget", "list", home / "worker.toml")
    assert code == 0
    assert out.splitlines()[1].split() == ["toy", "8", "1e-05", "0", "0", "8", "0"]
    code, out, _ = run(capsys, "budget", "show", home / "worker.toml", "--dataset", "other")
    assert (code, out) == (2, "")
