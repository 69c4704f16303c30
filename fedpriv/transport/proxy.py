"""Ways out through an HTTP proxy: which one the environment names for a host, and a connection through it.

`https_proxy` and `no_proxy` count, in small or large letters; loopback never goes through a proxy. The proxy is asked
to connect (RFC 9110, section 9.3.6) and then carries TLS that it cannot read. A password in the proxy's URL is sent to
the proxy alone and stands in no message of ours.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from fedpriv.errors import PeerLost, UsageError

_MAXIMUM_ANSWER = 8 << 10
_DENIED = frozenset({403, 405, 502, 503})


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `url` holds its password, where it has one, and never prints."""

    host: str
    port: int
    url: str = field(repr=False)

    @property
    def address(self) -> str:
        """Host and port, as people may see them."""
        return f"{self.host}:{self.port}"

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization, "" without a name."""
        parts = urlsplit(self.url)
        if parts.username is None:
            return ""
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()


def proxy_for(host: str) -> Proxy | None:
    """Return the proxy through which `host` is reached, None for a direct way; raise `UsageError` for a bad URL."""
    url = getproxies().get("https", "")
    if not url or _is_loopback(host) or proxy_bypass(host):
        return None
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        name, port = parts.hostname, parts.port or 80
    except ValueError:
        name, port = None, 0
    if not name or (parts.scheme and parts.scheme != "http"):
        raise UsageError(
            "https_proxy is not usable; write it as http://HOST:PORT, or http://NAME:PASSWORD@HOST:PORT, or unset it"
        )
    return Proxy(name, port, url if parts.scheme else f"http://{url.removeprefix('//')}")


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port", where an IPv6 host stands in brackets; raise `UsageError` for another."""
    host, separator, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not (bare and separator and port.isdecimal() and 0 < int(port) < 1 << 16) or (":" in bare and not bracketed):
        raise UsageError(
            f"address {address!r} is not usable; write it as host:port, for example localhost:7443 or [::1]:7443"
        )
    return bare, int(port)


def connected(address: str, timeout_seconds: float) -> socket.socket:
    """Return a TCP connection to `address`, through a proxy where the environment names one; raise `PeerLost`."""
    host, port = split_address(address)
    proxy = proxy_for(host)
    target = (host, port) if proxy is None else (proxy.host, proxy.port)
    try:
        connection = socket.create_connection(target, timeout_seconds)
    except OSError as error:
        raise PeerLost(why_unreachable(address, error, proxy)) from None
    if proxy is None:
        return connection
    try:
        _ask_proxy(connection, address, proxy)
    except BaseException:
        connection.close()
        raise
    return connection


def why_unreachable(address: str, error: OSError, proxy: Proxy | None = None) -> str:
    """Return what a failed TCP connection means and what to do, in one sentence."""
    whom = address if proxy is None else f"the proxy {proxy.address} of https_proxy"
    if isinstance(error, socket.gaierror):
        return f"the host name of {whom} cannot be resolved; check its spelling and the network's DNS"
    if isinstance(error, ConnectionRefusedError):
        return f"{whom} does not listen; start the other side, or check the address"
    if isinstance(error, TimeoutError):
        return (
            f"nothing answers at {whom}: a firewall may drop it; ask its owner to allow outgoing TCP from this machine "
            f"to {address}, or set https_proxy"
        )
    return (
        f"{whom} cannot be reached ({error.strerror or type(error).__name__}); check the network, and ask the "
        f"firewall's owner to allow outgoing TCP from this machine to {address}"
    )


def _ask_proxy(connection: socket.socket, address: str, proxy: Proxy) -> None:
    """Have the proxy connect us; raise `PeerLost` with the mend for what it answers otherwise."""
    lines = [f"CONNECT {address} HTTP/1.1", f"Host: {address}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    try:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = _head(connection)
    except OSError as error:
        raise PeerLost(f"the proxy {proxy.address} does not answer ({type(error).__name__}); check it") from None
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit() else 0
    if status // 100 == 2:
        return
    if status == 407:
        mend = "it wants a name and a password: https_proxy=http://NAME:PASSWORD@HOST:PORT"
    elif status in _DENIED:
        mend = f"ask whoever runs it to allow CONNECT to {address}"
    else:
        mend = "check that https_proxy names an HTTP proxy"
    raise PeerLost(f"the proxy {proxy.address} does not connect us to {address} (status {status}); {mend}")


def _head(connection: socket.socket) -> bytes:
    """Return the proxy's answer up to its empty line, byte by byte: what follows belongs to TLS."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte or len(head) >= _MAXIMUM_ANSWER:
            break
        head += byte
    return bytes(head)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
