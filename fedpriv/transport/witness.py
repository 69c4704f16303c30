"""Asking an HTTP witness for a cosignature (C2SP tlog-witness, `add-checkpoint`).

One request, one answer of bounded size within a bounded time; redirects are not followed and no proxy is used. What is
sent is a signed checkpoint and hashes: no entry leaves. The lines that come back are not verified here, and what the
witness may be believed is decided by whoever holds its key.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from fedpriv.errors import FedprivError, PeerLost, RolledBack, UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import MAXIMUM_SIGNATURES, parse_signature
from fedpriv.ledger.witness import Request, encode_request

PATH = "/add-checkpoint"
MAXIMUM_ANSWER_BYTES = 1 << 16
LOOPBACK = "localhost"

_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class Behind:
    """The witness holds a checkpoint of `size` entries, not of the size that the request builds on."""

    size: int


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes


def add_checkpoint(
    url: str, old_size: int, proof: Sequence[bytes], note: bytes, timeout_seconds: float, *, plain_http: bool = False
) -> tuple[bytes, ...] | Behind:
    """Return the cosignature lines, without newlines, that the witness at `url` gives `note`; or where it stands.

    `proof`, 32 bytes a hash, shows that `note` extends the ledger of `old_size` entries. Without TLS only on loopback,
    or with `plain_http`. Raises `UsageError` for a URL or a ledger that the witness does not serve, `PeerLost` for one
    that does not answer, `RolledBack` when it holds another ledger than ours, and `VerificationFailed` for nonsense.
    """
    where = _checked_url(url, plain_http=plain_http)
    answer = _posted(where, encode_request(Request(old_size, tuple(proof), note)), timeout_seconds)
    if answer.status == http.HTTPStatus.OK:
        return _lines(url, answer.body)
    if answer.status == http.HTTPStatus.CONFLICT:
        return _behind(url, old_size, answer.body)
    raise _refusal(url, answer.status)


def _checked_url(url: str, *, plain_http: bool) -> SplitResult:
    try:
        where = urlsplit(url)
        usable = bool(where.hostname) and where.port != 0
    except ValueError:
        usable = False
    if not usable or where.scheme not in ("https", "http") or where.query or where.fragment or where.username:
        raise UsageError(f"{url!r} is no witness's URL; give it as https://HOST[:PORT]/PREFIX")
    if where.scheme == "http" and not plain_http and not _is_loopback(where.hostname or ""):
        raise UsageError(f"{url} is not encrypted: use https, or allow http to this witness explicitly")
    if not (url.isascii() and url.isprintable() and " " not in url):
        raise UsageError(f"{url!r} has characters that no URL has; encode them with '%'")
    return where


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == LOOPBACK


def _posted(where: SplitResult, body: bytes, timeout_seconds: float) -> _Answer:
    connection = _connection(where, timeout_seconds)
    watch: threading.Timer | None = None
    try:
        connection.connect()
        watch = threading.Timer(timeout_seconds, _cut, [connection.sock])  # a witness that drips bytes is cut off
        watch.daemon = True
        watch.start()
        connection.request("POST", where.path.rstrip("/") + PATH, body, {"Content-Type": "text/plain"})
        response = connection.getresponse()
        return _Answer(response.status, response.read(MAXIMUM_ANSWER_BYTES + 1))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PeerLost(
            f"the witness at {where.geturl()} does not answer ({type(error).__name__}: {error}); "
            "check the URL and the network, or go on without it"
        ) from error
    finally:
        if watch is not None:
            watch.cancel()
        connection.close()


def _connection(where: SplitResult, timeout_seconds: float) -> http.client.HTTPConnection:
    host = where.hostname or ""
    if where.scheme == "http":
        return http.client.HTTPConnection(host, where.port, timeout=timeout_seconds)
    context = ssl.create_default_context()  # the system's certificates, the host's name checked
    return http.client.HTTPSConnection(host, where.port, timeout=timeout_seconds, context=context)


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # not TLS's own, which another thread may be in


def _lines(url: str, body: bytes) -> tuple[bytes, ...]:
    if len(body) > MAXIMUM_ANSWER_BYTES:
        raise VerificationFailed(f"the witness at {url} answers with more than {MAXIMUM_ANSWER_BYTES} bytes")
    lines = body.decode(errors="replace").removesuffix("\n").split("\n")
    try:
        found = tuple(bytes(parse_signature(line, number)) for number, line in enumerate(lines[:MAXIMUM_SIGNATURES], 1))
    except VerificationFailed as error:
        raise VerificationFailed(f"the witness at {url} answers with no cosignature: {error}") from error
    if b"\n".join(found) + b"\n" != body:
        raise VerificationFailed(f"the witness at {url} answers with other than 1 to {MAXIMUM_SIGNATURES} cosignatures")
    return found


def _behind(url: str, old_size: int, body: bytes) -> Behind:
    found = _SIZE.fullmatch(body.decode(errors="replace"))
    if found is None:
        raise VerificationFailed(f"the witness at {url} reports a conflict without the size that it holds")
    if int(found[1]) == old_size:
        raise RolledBack(
            f"the witness at {url} holds another ledger of {old_size} entries under this name: this one was rolled "
            "back and continued, or rewritten, or its key is used twice; stop releasing until that is explained"
        )
    return Behind(int(found[1]))


def _refusal(url: str, status: int) -> FedprivError:
    if status in (http.HTTPStatus.FORBIDDEN, http.HTTPStatus.NOT_FOUND):
        return UsageError(
            f"the witness at {url} does not know this ledger and its key (status {status}); "
            "give its operator the line in the ledger's vkey file"
        )
    if status == http.HTTPStatus.UNPROCESSABLE_ENTITY:
        return RolledBack(
            f"for the witness at {url} this ledger does not extend the one that it holds: it was rolled back and "
            "continued, or rewritten; stop releasing until that is explained"
        )
    return PeerLost(f"the witness at {url} answers with status {status}; ask its operator, or go on without it")
