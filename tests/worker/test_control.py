"""The control socket: the owner's line in and line out, and local programs that misbehave."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
import sys
import threading
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fedpriv.errors import FedprivError, PeerLost, ReleaseDenied, StorageFailed, UsageError
from fedpriv_worker import control
from fedpriv_worker.control import MAXIMUM_CONNECTIONS, MAXIMUM_REQUEST_BYTES, SOCKET, NoWorkerRunning


class EchoDesk:
    """Answers with what was asked; raises what it is told to."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.gate = threading.Event()
        self.gate.set()

    def answer(self, request):
        self.gate.wait(10)
        self.asked.append(request)
        match request:
            case {"deny": text}:
                raise ReleaseDenied(text)
            case {"defect": _}:
                raise KeyError("a private value")
            case {"long": count}:
                return "x" * count
        return request


def asked(state, request, seconds=10.0):
    return asyncio.to_thread(control.ask, state, request, seconds)


def connection(state: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(10)
    made.connect(os.path.realpath(state / SOCKET))
    return made


def heard(client: socket.socket) -> bytes:
    said = b""
    try:
        while part := client.recv(1 << 16):
            said += part
    except ConnectionResetError:
        pass
    return said


@asynccontextmanager
async def served(state, desk=None, **options):
    async with control.serve(state, desk or EchoDesk(), **options):
        yield
        assert await asked(state, {"still": "there"}) == {"still": "there"}


def run(scenario) -> None:
    asyncio.run(scenario())


def test_a_line_in_is_a_line_out(tmp_path):
    async def scenario():
        async with served(tmp_path):
            assert await asked(tmp_path, {"ask": "status", "text": "Grüße"}) == {"ask": "status", "text": "Grüße"}

    run(scenario)


def test_an_error_comes_back_with_its_text_and_exit_code(tmp_path):
    async def scenario():
        async with served(tmp_path):
            with pytest.raises(ReleaseDenied, match="not yours"):
                await asked(tmp_path, {"deny": "not yours"})

    run(scenario)


def test_a_defect_is_named_by_its_type_alone(tmp_path):
    async def scenario():
        async with served(tmp_path):
            with pytest.raises(FedprivError, match="KeyError") as refused:
                await asked(tmp_path, {"defect": 1})
            assert "private value" not in str(refused.value)

    run(scenario)


def test_the_socket_is_the_owners_alone(tmp_path):
    async def scenario():
        async with served(tmp_path):
            mode = (tmp_path / SOCKET).stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600

    run(scenario)


def test_nothing_is_left_behind(tmp_path):
    async def scenario():
        async with served(tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(NoWorkerRunning):
            await asked(tmp_path, {})

    run(scenario)


def test_the_socket_of_a_dead_worker_is_replaced(tmp_path):
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / SOCKET))
    left.close()
    with pytest.raises(NoWorkerRunning):
        control.ask(tmp_path, {})

    async def scenario():
        async with served(tmp_path):
            pass

    run(scenario)


def test_a_folder_with_a_long_path_is_reached_through_a_link(tmp_path):
    state = tmp_path / ("long" * 20) / ("path" * 20)
    state.mkdir(parents=True)

    async def scenario():
        for _ in range(2):  # the second finds the link of the first, as after a crash
            async with served(state):
                kept = (state / SOCKET).readlink()
                assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
                assert stat.S_IMODE(kept.stat().st_mode) == 0o600
            assert not kept.parent.exists()
            assert list(state.iterdir()) == []
            (state / SOCKET).symlink_to(kept)

    run(scenario)
    with pytest.raises(NoWorkerRunning):
        control.ask(state, {})


def test_a_link_that_others_planted_is_not_followed(tmp_path, monkeypatch):
    precious = [tmp_path / "precious", tmp_path / SOCKET]
    state = tmp_path / "state"
    state.mkdir()
    link = state / SOCKET
    for victim in precious:
        victim.write_text("x")

    async def scenario():
        async with served(state):
            assert not link.is_symlink()

    for victim in precious:
        link.symlink_to(victim)
        run(scenario)
        assert victim.read_text() == "x"
    theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    precious[1].unlink()
    theirs.bind(str(precious[1]))
    theirs.close()
    link.symlink_to(precious[1])
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)  # then neither the link nor the socket is ours
    control._remove(link, precious[1])
    assert precious[1].exists()
    assert not link.is_symlink()


def test_what_lies_at_the_place_of_the_socket_and_is_none_is_not_removed(tmp_path):
    (tmp_path / SOCKET).write_text("precious")

    async def scenario():
        with pytest.raises(StorageFailed, match="control socket"):
            async with served(tmp_path):
                pass

    run(scenario)
    assert (tmp_path / SOCKET).read_text() == "precious"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel says whose process listens")
def test_what_another_user_answers_is_not_believed(tmp_path, monkeypatch):
    credentials = struct.pack("3i", 1, os.getuid() + 65_000, 1)

    async def scenario():
        async with served(tmp_path):
            with monkeypatch.context() as patch:
                patch.setattr(control, "_user_of", lambda _: struct.unpack("3i", credentials)[1])
                with pytest.raises(PeerLost, match="no worker of yours"):
                    await asked(tmp_path, {"ask": "explain"})

    run(scenario)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"garbage\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b"[" * 60_000 + b"\n",
        b'{"half": ',
        b"",
        b'{"text": "' + b"x" * (4 * MAXIMUM_REQUEST_BYTES) + b'"}\n',
        b"x" * MAXIMUM_REQUEST_BYTES,
    ],
    ids=["empty", "garbage", "bytes", "array", "null", "deep", "half", "nothing", "endless", "full"],
)
def test_what_is_no_request_is_answered_with_an_error_and_reaches_no_desk(tmp_path, line):
    desk = EchoDesk()

    def client() -> bytes:
        with connection(tmp_path) as local:
            try:
                local.sendall(line)
                local.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                return b""
            return heard(local)

    async def scenario():
        async with served(tmp_path, desk):
            said = await asyncio.to_thread(client)
            assert desk.asked == []
            assert not said or json.loads(said)["exit_code"] == 2

    run(scenario)


def test_a_client_that_closes_its_half_still_hears_the_answer(tmp_path):
    def client() -> bytes:
        with connection(tmp_path) as local:
            local.sendall(b'{"a": 1}\n')
            local.shutdown(socket.SHUT_WR)
            return heard(local)

    async def scenario():
        async with served(tmp_path):
            assert json.loads(await asyncio.to_thread(client)) == {"answer": {"a": 1}}

    run(scenario)


def test_a_client_that_says_nothing_is_dropped_at_its_deadline(tmp_path):
    async def scenario():
        async with served(tmp_path, deadline_seconds=0.05):
            with await asyncio.to_thread(connection, tmp_path) as silent:
                assert await asyncio.to_thread(heard, silent) == b""

    run(scenario)


def test_a_client_that_does_not_read_is_dropped_at_its_deadline(tmp_path):
    async def scenario():
        async with served(tmp_path, deadline_seconds=0.1):
            with await asyncio.to_thread(connection, tmp_path) as lazy:
                lazy.sendall(b'{"long": 8000000}\n')
                assert await asked(tmp_path, {"other": 1}) == {"other": 1}

    run(scenario)


def test_a_client_that_goes_away_while_it_is_answered_disturbs_nobody(tmp_path):
    async def scenario():
        desk = EchoDesk()
        async with served(tmp_path, desk):
            desk.gate.clear()
            gone = await asyncio.to_thread(connection, tmp_path)
            gone.sendall(b'{"long": 8000000}\n')
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.close()
            desk.gate.set()
            assert await asked(tmp_path, {"other": 1}) == {"other": 1}

    run(scenario)


def test_silent_clients_take_a_bounded_number_of_places_and_give_them_back(tmp_path):
    async def scenario():
        async with served(tmp_path, deadline_seconds=0.3):
            taken = [await asyncio.to_thread(connection, tmp_path) for _ in range(MAXIMUM_CONNECTIONS + 3)]
            with pytest.raises(PeerLost):
                await asked(tmp_path, {})
            for each in taken:
                assert await asyncio.to_thread(heard, each) == b""
                each.close()

    run(scenario)


def test_an_answer_beyond_the_bound_is_refused_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAXIMUM_ANSWER_BYTES", 1000)

    async def scenario():
        async with served(tmp_path):
            with pytest.raises(UsageError, match="one request alone"):
                await asked(tmp_path, {"long": 2000})

    run(scenario)


def test_a_request_beyond_the_bound_is_not_sent(tmp_path):
    with pytest.raises(UsageError, match="shorter"):
        control.ask(tmp_path, {"why": "x" * MAXIMUM_REQUEST_BYTES})


def test_a_worker_that_does_not_answer_in_time_is_given_up(tmp_path):
    async def scenario():
        desk = EchoDesk()
        async with served(tmp_path, desk):
            desk.gate.clear()
            with pytest.raises(PeerLost, match="longer than"):
                await asked(tmp_path, {}, 0.05)
            desk.gate.set()

    run(scenario)


def test_closing_ends_connections_that_are_open(tmp_path):
    async def scenario():
        async with served(tmp_path):
            silent = await asyncio.to_thread(connection, tmp_path)
        assert await asyncio.to_thread(heard, silent) == b""
        silent.close()

    run(scenario)
