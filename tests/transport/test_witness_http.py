"""A worker asks a real HTTP witness: cosignatures, catching up, refusals, and answers that are not to be believed."""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fedpriv.errors import PeerLost, UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import SigningKey
from fedpriv.ledger.cosignature import cosign, open_cosigned
from fedpriv.ledger.witness import Stale, Witnessed, consider, decode_request, origin_in
from fedpriv.storage.database import Database
from fedpriv.storage.publication import Publication
from fedpriv.storage.rows import SCHEMA, Row, Rows
from fedpriv.transport.authority import Authority
from fedpriv.transport.witness import MAXIMUM_ANSWER_BYTES, Behind, add_checkpoint
from fedpriv.wire.messages import Role

KEY = SigningKey("fedpriv.ledger/bob", bytes(range(32)))
WITNESS = SigningKey("witness.example/w1", bytes(range(1, 33)))
TIMEOUT = 20.0


class HttpWitness:
    """A witness as C2SP describes it, around the pure one."""

    def __init__(self, *keys):
        self.keys = {key.name: key.verifier for key in keys}
        self.held: dict[str, Witnessed] = {}
        self.asked = []

    def answer(self, path, body):
        """Return status, content type and body."""
        self.asked.append(path)
        try:
            request = decode_request(body)
        except VerificationFailed as error:
            return 400, "text/plain", str(error).encode()
        origin = origin_in(request.note)
        outcome = consider(self.held.get(origin, Witnessed()), self.keys.get(origin), request)
        if isinstance(outcome, Stale):
            return 409, "text/x.tlog.size", b"%d\n" % outcome.size
        if not isinstance(outcome, Witnessed):
            body = b"%d\n" % self.held[origin].size if outcome.status == 409 else outcome.why.encode()
            return outcome.status, "text/plain", body
        self.held[origin] = outcome
        return 200, "text/plain", cosign(request.note, WITNESS, 1_767_225_600) + b"\n"


@contextmanager
def serving(answer, context=None):
    """Serve `answer(path, body)` on a port that the system picks; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            status, kind, body = answer(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if isinstance(body, bytes):
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                body(self.wfile)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass  # a client that goes away, or does not trust us, is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ledger(entries, tag=b"entry"):
    rows = Rows(Database.in_memory(schema=SCHEMA))
    publication = Publication(rows, KEY, None)
    grow(rows, publication, entries, tag)
    return rows, publication


def grow(rows, publication, entries, tag=b"entry"):
    first = rows.size
    rows.append([Row(seq, "update", 1, b"%s %d" % (tag, seq)) for seq in range(first, first + entries)])
    publication.publish()


def asked(url, publication, old, **how):
    note, proof = publication.consistency(old)
    return add_checkpoint(url, old, proof, note, TIMEOUT, **how)


def test_a_growing_ledger_is_cosigned_and_keeps_the_line():
    witness = HttpWitness(KEY)
    rows, publication = ledger(3)
    with serving(witness.answer) as url:
        for old, new in ((0, 3), (3, 3), (3, 300)):
            grow(rows, publication, new - rows.size) if new > rows.size else None
            (line,) = asked(f"{url}/prefix/", publication, old)
            publication.cosign(line, str(WITNESS.cosigner))
            cosigned = open_cosigned(rows.published(), KEY.verifier, [WITNESS.cosigner])
            assert (cosigned.checkpoint.size, len(cosigned.witnessed)) == (new, 1)
    assert witness.asked == ["/prefix/add-checkpoint"] * 3


def test_a_ledger_that_is_behind_the_witness_or_before_it_learns_where_it_stands():
    witness = HttpWitness(KEY)
    rows, publication = ledger(3)
    with serving(witness.answer) as url:
        asked(url, publication, 0)
        grow(rows, publication, 4)
        assert asked(url, publication, 0) == Behind(3)
        assert len(asked(url, publication, 3)) == 1


def test_a_rewritten_ledger_is_told_so():
    witness = HttpWitness(KEY)
    with serving(witness.answer) as url:
        asked(url, ledger(3)[1], 0)
        for entries in (3, 5):
            with pytest.raises(VerificationFailed, match="rolled back and"):
                asked(url, ledger(entries, b"other")[1], 3)


def test_a_witness_that_does_not_know_the_ledger_or_its_key_says_whom_to_ask():
    with serving(HttpWitness().answer) as url, pytest.raises(UsageError, match=r"status 404\); give its operator"):
        asked(url, ledger(1)[1], 0)
    other = HttpWitness(SigningKey(KEY.name, bytes(32)))
    with serving(other.answer) as url, pytest.raises(UsageError, match=r"status 403\); give its operator"):
        asked(url, ledger(1)[1], 0)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"", "no cosignature"),
        (200, b"nonsense\n", "line 1 is malformed"),
        (200, cosign(ledger(1)[0].published(), WITNESS, 5), "other than 1 to 64"),
        (200, "— a AAAAAAA=\n".encode() * 65, "other than 1 to 64"),
        (200, b"\xff\n", "line 1 is malformed"),
        (200, b"x" * (MAXIMUM_ANSWER_BYTES + 1), "more than 65536 bytes"),
        (409, b"", "without the size"),
        (409, b"3", "without the size"),
        (409, b"03\n", "without the size"),
        (409, b"9" * 5000 + b"\n", "without the size"),
        (409, b"0\n", "another ledger of 0 entries"),
    ],
)
def test_an_answer_that_makes_no_sense_is_not_believed(status, body, says):
    with serving(lambda *_: (status, "text/plain", body)) as url, pytest.raises(VerificationFailed, match=says):
        asked(url, ledger(1)[1], 0)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 429, 500, 503])
def test_no_redirect_is_followed_and_other_statuses_are_named(status):
    with serving(lambda *_: (status, "text/plain", lambda _: None)) as url, pytest.raises(PeerLost, match=str(status)):
        asked(url, ledger(1)[1], 0)


def test_a_witness_that_drips_its_answer_is_cut_off():
    stop = threading.Event()

    def drip(file):
        while not stop.wait(0.01):
            file.write(b"x")

    note, proof = ledger(1)[1].consistency(0)
    with serving(lambda *_: (200, "text/plain", drip)) as url:
        with pytest.raises((PeerLost, VerificationFailed), match="witness at"):
            add_checkpoint(url, 0, proof, note, 0.2)
        stop.set()


def test_a_witness_that_says_nothing_is_given_up():
    stop = threading.Event()

    def silent(*_):
        stop.wait(10)
        return 500, "text/plain", b""

    note, proof = ledger(1)[1].consistency(0)
    with serving(silent) as url:
        with pytest.raises(PeerLost, match="does not answer"):
            add_checkpoint(url, 0, proof, note, 0.1)
        stop.set()


def test_a_witness_that_is_not_there_is_named():
    with serving(lambda *_: None) as url:
        pass
    with pytest.raises(PeerLost, match=r"does not answer \(ConnectionRefusedError"):
        asked(url, ledger(1)[1], 0)


@pytest.mark.parametrize(
    "url",
    [
        "witness.example", "ftp://witness.example/", "https:///x", "https://[::1", "https://h:0/", "https://h:99999/",
        "https://user@h/", "https://h/?q=1", "https://h/#x", "https://h/\u00e9", "https://h/a b", "",
    ],
)  # fmt: skip  # short URLs
def test_what_is_no_url_of_a_witness_is_refused(url):
    with pytest.raises(UsageError):
        add_checkpoint(url, 0, (), b"", TIMEOUT)


def test_without_tls_only_a_witness_on_this_machine_is_asked():
    with pytest.raises(UsageError, match="is not encrypted"):
        add_checkpoint("http://witness.example/", 0, (), b"", TIMEOUT)
    with serving(HttpWitness(KEY).answer) as url:
        local = url.replace("127.0.0.1", "localhost")
        assert len(asked(local, ledger(1)[1], 0)) == 1
        assert len(asked(local, ledger(1)[1], 1, plain_http=True)) == 1


def test_over_tls_the_systems_authorities_decide(tmp_path, monkeypatch):
    authority = Authority.create()
    authority.issue("witness", Role.COORDINATOR, hosts=("127.0.0.1",)).save(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    publication = ledger(1)[1]
    with serving(HttpWitness(KEY).answer, context) as url:
        with pytest.raises(PeerLost, match="certificate"):
            asked(url, publication, 0)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert len(asked(url, publication, 0)) == 1
        with pytest.raises(PeerLost, match="certificate"):
            asked(url.replace("127.0.0.1", "localhost"), publication, 1)
