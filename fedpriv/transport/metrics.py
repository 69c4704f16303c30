"""Facts about the process for Prometheus, on a loopback port, off unless it is configured.

Text format 0.0.4, one GET of /metrics. Facts of the process and its links in all: no peer, data set, job or value has a
label here, and nothing is sent anywhere by itself.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal, Self

from fedpriv.errors import UsageError
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.software import SOFTWARE
from fedpriv.transport.tally import tally

PATH = "/metrics"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_REQUEST_SECONDS = 5.0
_STARTED = time.time()


@dataclass(frozen=True, slots=True)
class Fact:
    """One number, and what it is."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[], float]


def process_facts(state: Path, credentials: CredentialsSource, is_serving: Callable[[], bool]) -> tuple[Fact, ...]:
    """Return what every process of ours says of itself."""

    def left() -> float:
        return credentials.current().chain[0].not_valid_after_utc.timestamp() - time.time()

    return (
        Fact("fedpriv_serving", "gauge", "1 while it serves, 0 before and while it goes down", is_serving),
        Fact("fedpriv_links", "gauge", "Links that are open", lambda: tally.links_opened - tally.links_closed),
        Fact("fedpriv_links_total", "counter", "Links that were opened", lambda: tally.links_opened),
        Fact("fedpriv_sent_bytes_total", "counter", "Frame bytes sent", lambda: tally.bytes_sent),
        Fact("fedpriv_received_bytes_total", "counter", "Frame bytes received", lambda: tally.bytes_received),
        Fact("fedpriv_certificate_seconds", "gauge", "Until the certificate in use expires", left),
        Fact("fedpriv_state_free_bytes", "gauge", "Free where the state is", lambda: shutil.disk_usage(state).free),
        Fact("process_cpu_seconds_total", "counter", "Processor time, all threads", time.process_time),
        Fact("process_max_resident_memory_bytes", "gauge", "Most memory it had", _peak_memory),
        Fact("process_start_time_seconds", "gauge", "When it started, Unix seconds", lambda: _STARTED),
    )


def exposition(facts: tuple[Fact, ...]) -> str:
    """Return the facts as text; one that cannot be read is left out."""
    return "".join(_lines(facts)) + f'# TYPE fedpriv_info gauge\nfedpriv_info{{software="{SOFTWARE}"}} 1\n'


class Metrics:
    """A server of facts at a loopback `address`; use it as a context."""

    def __init__(self, address: str, facts: tuple[Fact, ...]) -> None:
        """Listen at once; raise `UsageError` for a port that cannot be had."""
        host, _, port = address.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host, int(port)), _handler(facts))
        except OSError as error:
            raise UsageError(
                f"[operations] metrics: cannot listen on {address} ({error.strerror}); choose another port"
            ) from None
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, name="fedpriv-metrics", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(facts: tuple[Fact, ...]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics and nothing else."""

        timeout = _REQUEST_SECONDS

        def do_GET(self) -> None:
            """Send the facts."""
            if self.path != PATH:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            content = exposition(facts).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as http.server calls it
            """Say nothing: whoever scrapes does so every few seconds."""

        def version_string(self) -> str:
            """Return what stands in the header "Server"."""
            return "fedpriv"

    return Handler


def _lines(facts: tuple[Fact, ...]) -> Iterator[str]:
    for fact in facts:
        try:
            value = float(fact.read())
        except OSError:
            continue
        yield f"# HELP {fact.name} {fact.help}\n# TYPE {fact.name} {fact.kind}\n{fact.name} {value:.16g}\n"


def _peak_memory() -> float:
    if sys.platform == "win32":
        raise OSError("Windows counts memory in another way")
    import resource  # noqa: PLC0415 - does not exist on Windows, where researchers import this module

    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(kibibytes if sys.platform == "darwin" else kibibytes * 1024)
