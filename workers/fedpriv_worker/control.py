"""The owner's way to a running worker: a Unix socket in its state folder that answers one line with one line.

Only the owner's own processes reach it: the socket is 0600, and on Linux the kernel says whose process connects. One
connection carries one JSON object in and one out, both bounded, each with a deadline; a local program that sends
garbage, an endless line or nothing at all costs one of a few places for a few seconds and disturbs nothing else. A
failure comes back as {"error": text, "exit_code": number}. It does not know what can be asked: the desk does. It speaks
to no network and carries no rows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fedpriv.errors import FedprivError, PeerLost, ReleaseDenied, StorageFailed, UsageError, VerificationFailed

log = logging.getLogger("fedpriv.worker")

SOCKET = "control.sock"
MAXIMUM_REQUEST_BYTES = 64 << 10
MAXIMUM_ANSWER_BYTES = 16 << 20
MAXIMUM_CONNECTIONS = 8
DEADLINE_SECONDS = 10.0
"""The longest that a client may take to say its line, and again to read the answer."""
_LONGEST_SOCKET_PATH = 103  # bytes: macOS has room for 104 with the final zero, Linux for 108
_ERRORS: Mapping[int, type[FedprivError]] = {
    each.exit_code: each for each in (UsageError, VerificationFailed, ReleaseDenied, PeerLost)
}


class NoWorkerRunning(PeerLost):
    """Nobody answers at a state folder's control socket: no worker runs there."""


class Desk(Protocol):
    """Answers an owner's questions, one at a time, in any thread; raises a `FedprivError` that the owner may read."""

    def answer(self, request: Mapping[str, object]) -> object:
        """Return a value that JSON can hold."""
        ...


@asynccontextmanager
async def serve(state: Path, desk: Desk, *, deadline_seconds: float = DEADLINE_SECONDS) -> AsyncIterator[None]:
    """Answer at the control socket in `state` while the context lasts; raise `StorageFailed` if none can be made.

    The caller holds the folder's lock: a socket that lies there belonged to a worker that is dead, and is replaced.
    """
    bound, path = _bind(state / SOCKET)
    counter = _Counter(desk, deadline_seconds)
    server = await asyncio.start_unix_server(counter.connected, sock=bound, limit=MAXIMUM_REQUEST_BYTES)
    try:
        yield
    finally:
        server.close()
        await counter.close()
        _remove(state / SOCKET, path)


def ask(state: Path, request: Mapping[str, object], timeout_seconds: float = 30.0) -> Any:  # noqa: ANN401 - JSON
    """Return the answer of the worker that runs on `state`; raise `NoWorkerRunning`, `PeerLost` or what it refused."""
    deadline = time.monotonic() + timeout_seconds
    line = json.dumps(request).encode() + b"\n"
    if len(line) > MAXIMUM_REQUEST_BYTES:
        raise UsageError(f"a request of {len(line)} bytes; {MAXIMUM_REQUEST_BYTES} at most, use a shorter text")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout_seconds)
            connection.connect(_address(state / SOCKET))
            _check_answers(connection, state)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NoWorkerRunning(f"no worker answers at {state / SOCKET}; is one running on this folder?") from None
        except OSError as error:
            raise PeerLost(f"cannot reach the worker at {state / SOCKET}: {error.strerror}; ask as its owner") from None
        try:
            connection.sendall(line)
            answer = json.loads(_read_line(connection, deadline))
        except TimeoutError:
            raise PeerLost(f"the worker on {state} took longer than {timeout_seconds:g} s; try again") from None
        except OSError as error:
            raise PeerLost(f"the worker on {state} went away while it was asked ({error.strerror})") from None
        except ValueError:
            raise PeerLost(f"the worker on {state} went away in the middle of its answer; try again") from None
    if not isinstance(answer, dict) or not answer.keys() & {"answer", "error"}:
        raise PeerLost(f"whatever answers at {state / SOCKET} is no fedpriv worker of this version")
    if "error" in answer:
        raise _ERRORS.get(answer.get("exit_code", 1), FedprivError)(str(answer["error"]))
    return answer["answer"]


class _Counter:
    """Takes connections, at most `MAXIMUM_CONNECTIONS` at a time, and lets one question at a time to the desk."""

    def __init__(self, desk: Desk, deadline_seconds: float) -> None:
        self._desk = desk
        self._deadline_seconds = deadline_seconds
        self._connections: set[asyncio.Task[None]] = set()
        self._answering = asyncio.Lock()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection in a task of its own, or drop it when it is one too many or not the owner's."""
        if len(self._connections) >= MAXIMUM_CONNECTIONS or not _is_owner(writer.get_extra_info("socket")):
            log.warning("a connection to the control socket was dropped: too many at once, or another user's")
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def close(self) -> None:
        """End every connection."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(reader)
            async with asyncio.timeout(self._deadline_seconds):
                writer.write(_line(answer))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError) as error:
            log.info("a client of the control socket was dropped: %s", type(error).__name__)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> dict[str, object]:
        """Return what the desk answers to the next line, or why it does not; raise when no line came in time."""
        try:
            async with asyncio.timeout(self._deadline_seconds):
                line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            return _failure(f"a request is one line of at most {MAXIMUM_REQUEST_BYTES} bytes", UsageError.exit_code)
        except asyncio.IncompleteReadError:
            return _failure("a request is one line that ends with a line feed", UsageError.exit_code)
        try:
            request = _parsed(line)
            async with self._answering:
                return {"answer": await asyncio.to_thread(self._desk.answer, request)}
        except FedprivError as error:
            return _failure(str(error), error.exit_code)
        except Exception as error:  # noqa: BLE001 - whatever a local program provokes must not end the worker
            log.error("the control socket met a defect of ours: %s", type(error).__name__)  # noqa: TRY400
            return _failure(f"a defect of ours, {type(error).__name__}; the worker goes on", 1)


def _parsed(line: bytes) -> Mapping[str, object]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError("a request is one line of JSON in UTF-8") from None
    if not isinstance(request, dict):
        raise UsageError(f"a request is a JSON object, not a {type(request).__name__}")
    return request


def _line(answer: Mapping[str, object]) -> bytes:
    line = json.dumps(answer).encode() + b"\n"
    if len(line) <= MAXIMUM_ANSWER_BYTES:
        return line
    refusal = f"the answer has {len(line)} bytes, {MAXIMUM_ANSWER_BYTES} at most can be sent; ask for one request alone"
    return json.dumps(_failure(refusal, UsageError.exit_code)).encode() + b"\n"


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    """Return what comes until the other side closes; raise `TimeoutError` after `deadline`."""
    line = bytearray()
    while len(line) <= MAXIMUM_ANSWER_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(1 << 16)
        if not part:
            break
        line += part
    return bytes(line)


def _failure(text: str, exit_code: int) -> dict[str, object]:
    return {"error": text, "exit_code": exit_code}


def _check_answers(connection: socket.socket, state: Path) -> None:
    """Raise `PeerLost` if another user listens: after a crash anybody may have made a socket where the link leads."""
    user = _user_of(connection)
    if user not in (os.geteuid(), 0):
        raise PeerLost(
            f"user {user} answers at {state / SOCKET}, not this one: no worker of yours; remove {state / SOCKET}, then "
            "start the worker again"
        )


def _is_owner(connection: socket.socket) -> bool:
    """Return whether the process at the other end is this user's; elsewhere than on Linux the file's mode decides."""
    return _user_of(connection) == os.geteuid()


def _user_of(connection: socket.socket) -> int:
    """Return the user of the process at the other end; this one elsewhere than on Linux, where the kernel says it."""
    if sys.platform != "linux":
        return os.geteuid()
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


def _bind(wanted: Path) -> tuple[socket.socket, Path]:
    """Return a socket that only the owner can connect to, and its path: `wanted`, or where the link `wanted` leads.

    A link is made where the path is too long for a socket, or where its file system holds none.
    """
    _remove(wanted, _destination(wanted))
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder: Path | None = None
    try:
        try:
            path = wanted
            _bind_at(bound, path)
        except OSError:
            folder = _short_folder()
            path = folder / SOCKET
            _bind_at(bound, path)
            wanted.symlink_to(path)
        bound.setblocking(False)  # noqa: FBT003 - the name that the socket module gave it
    except OSError as error:
        bound.close()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise StorageFailed(f"cannot make the control socket {wanted}: {error}; check the folder and TMPDIR") from error
    return bound, path


def _bind_at(bound: socket.socket, path: Path) -> None:
    bound.bind(str(path))
    path.chmod(0o600)  # nobody connects before this: the socket does not listen yet


def _short_folder() -> Path:
    """Return a new folder of this user's alone whose path leaves room for a socket's name."""
    folder = Path(tempfile.mkdtemp(prefix="fedpriv-"))
    if len(os.fsencode(folder / SOCKET)) > _LONGEST_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="fedpriv-", dir="/tmp"))  # made 0700, under a new name
    return folder


def _destination(wanted: Path) -> Path:
    """Return the socket that `wanted` is or leads to."""
    return wanted.readlink() if wanted.is_symlink() else wanted


def _address(wanted: Path) -> str:
    try:
        return str(_destination(wanted))
    except OSError:
        return str(wanted)


def _remove(wanted: Path, path: Path) -> None:
    """Remove our socket at `path`, the private folder that it was in, and the link `wanted` that leads there.

    What is not ours stays: others may have planted the link, or something where it leads.
    """
    linked = wanted != path
    if path.name == SOCKET and (not linked or _is_ours(wanted, stat.S_ISLNK)):
        with suppress(OSError):
            if _is_ours(path, stat.S_ISSOCK):
                path.unlink()
            if linked:
                path.parent.rmdir()
    if wanted.is_symlink():
        with suppress(OSError):
            wanted.unlink()


def _is_ours(path: Path, kind: Callable[[int], bool]) -> bool:
    """Return whether this user made what lies at `path` itself, and whether it is of that kind."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and kind(found.st_mode)
