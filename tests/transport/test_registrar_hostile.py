"""What strangers say to a registrar: it costs them their connection, and the next peer is answered."""

from __future__ import annotations

import json
import random
import socket
import ssl
import struct
from collections.abc import Iterator

import pytest
from registrars import Office, new_key, opened

from fedpriv.clock import SystemClock
from fedpriv.errors import WireError
from fedpriv.ids import Role
from fedpriv.transport.enquiry import MAXIMUM_BYTES, length, number, pack, text, unpack
from fedpriv.transport.joining import join, signing_request
from fedpriv.transport.registrar import METHODS


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with opened(tmp_path_factory.mktemp("ca")) as office:
        yield office


def said_raw(office: Office, content: bytes) -> bytes:
    """Say bytes over TLS without a certificate and return what comes back until the end."""
    host, _, port = office.address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host, int(port)), 20) as plain, context.wrap_socket(plain) as secured:
        secured.sendall(content)
        secured.settimeout(20)
        answer = b""
        while part := secured.recv(1 << 16):
            answer += part
        return answer


def answered(office: Office, question: dict[str, object]) -> dict[str, object]:
    content = json.dumps(question).encode()
    return json.loads(said_raw(office, struct.pack(">I", len(content)) + content)[4:])


@pytest.mark.parametrize("method", [*METHODS, "issue", "__class__", "", "x" * 10_000])
def test_every_method_without_a_certificate_is_refused_or_public(office: Office, method: str) -> None:
    answer = answered(office, {"ask": method, "name": "alice", "request": signing_request(new_key())})
    if method in {"authority", "revoked"}:
        assert "refused" not in answer
    else:
        assert answer["refused"] in {"not-allowed", "bad-request"}
    assert set(answer) <= {"now", "refused", "authority", "revoked"}
    assert office.register.issued() == ()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xff\xff\xff" + b"x" * 16,  # twenty bytes that announce four gigabytes
        b"\x00\x00\x00\x00",
        struct.pack(">I", MAXIMUM_BYTES + 1),
        struct.pack(">I", 4) + b"null",
        struct.pack(">I", 2) + b"[]",
        struct.pack(">I", 5) + b'{"a":',
        struct.pack(">I", 40) + b"[" * 40,
    ],
)
def test_what_is_no_question_is_not_answered(office: Office, content: bytes) -> None:
    assert said_raw(office, content) == b""


def test_a_request_for_a_name_is_not_listened_to(office: Office) -> None:
    """The token says who its holder is; what a request says of itself, or asks for, is not read."""
    token = office.token("modest")
    question = {
        "ask": "join", "token": _b64(token.id), "secret": _b64(token.secret), "role": "worker",
        "request": signing_request(new_key()), "name": "coordinator-1", "days": 99_999, "hosts": "*",
    }  # fmt: skip
    assert "certificate" in answered(office, question)
    (issued,) = [each for each in office.register.issued() if each.name == "modest"]
    assert issued.role == "worker"
    assert issued.expires - issued.issued < 31 * 86_400


@pytest.mark.parametrize("request_text", ["", "nothing", "-----BEGIN CERTIFICATE REQUEST-----\nAA\n", "x" * 20_000])
def test_a_request_that_is_none_spends_no_token(office: Office, request_text: str) -> None:
    token = office.token("later")
    question = {"ask": "join", "token": _b64(token.id), "secret": _b64(token.secret), "role": "worker"}
    assert answered(office, question | {"request": request_text})["refused"] == "bad-request"
    assert join(token, office.address, Role.WORKER, new_key(), SystemClock()).chain


def test_mutated_questions_are_answered_or_not_and_the_next_peer_is_served(office: Office) -> None:
    draw, whole = random.Random(8), pack({"ask": "join", "token": "AAAA", "secret": "AAAA", "role": "worker"})
    for _ in range(40):
        mutated = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            mutated[draw.randrange(4, len(mutated))] = draw.randrange(256)
        answer = said_raw(office, bytes(mutated))
        assert not answer or json.loads(answer[4:])["refused"]
    assert join(office.token("honest"), office.address, Role.WORKER, new_key(), SystemClock()).chain


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"a":{}}', b'{"a":null}', b'{"a":true}', b"\xff", b'{"a":[1]}'])
def test_only_flat_objects_are_read(content: bytes) -> None:
    with pytest.raises(WireError):
        unpack(content)


@pytest.mark.parametrize("content", [b'{"a":NaN}', b'{"a":1e999}', b'{"a":9007199254740993}', b'{"a":"1"}', b"{}"])
def test_only_numbers_that_are_numbers_are_taken(content: bytes) -> None:
    with pytest.raises(WireError):
        number(unpack(content), "a")


def test_lengths_are_checked_before_anything_is_read() -> None:
    for head in (b"", b"\0\0\0", b"\0\0\0\0", struct.pack(">I", MAXIMUM_BYTES + 1)):
        with pytest.raises(WireError):
            length(head)
    with pytest.raises(WireError):
        text({"a": "too long"}, "a", 3)


def _b64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()
