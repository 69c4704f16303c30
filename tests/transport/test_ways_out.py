"""Through a proxy, over IPv6, or not at all: how a peer is reached, and what is said when it is not."""

from __future__ import annotations

import asyncio
import socket
from functools import cache
from pathlib import Path

import pytest
from ends import authority, content, coordinator, message, run
from proxies import Proxy, proxying
from registrars import new_key, opened

from fedpriv.clock import SystemClock
from fedpriv.errors import PeerLost, UsageError
from fedpriv.ids import Role
from fedpriv.transport.credentials import Credentials
from fedpriv.transport.dial import dial
from fedpriv.transport.joining import join
from fedpriv.transport.listen import Listener
from fedpriv.transport.proxy import connected, proxy_for, split_address
from fedpriv.transport.stream import StreamLink

NAME = "hospital.test:7443"
"""A host that no resolver knows: only the proxy can lead there."""


@cache
def hospital() -> Credentials:
    return authority().issue("hospital", Role.WORKER, hosts=("hospital.test", "::1", "127.0.0.1"))


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


async def echo(link: StreamLink) -> None:
    while (envelope := await link.receive()) is not None:
        await link.send(envelope)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY"])
def test_a_stream_goes_through_the_proxy_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async def scenario() -> None:
        async with (
            Listener("127.0.0.1:0", hospital(), echo) as listener,
            proxying(Proxy({NAME: listener.port})) as proxy,
        ):
            monkeypatch.setenv(variable, proxy.url)
            link = await dial(NAME, coordinator())
            await link.send(message(1 << 15))
            assert content(await link.receive()) == (b"header", bytes(1 << 15))
            await link.close()
            assert [head.split(b"\r\n")[0] for head in proxy.asked] == [b"CONNECT hospital.test:7443 HTTP/1.1"]

    run(scenario())


def test_a_name_and_password_go_to_the_proxy_and_into_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with (
            Listener("127.0.0.1:0", hospital(), echo) as listener,
            proxying(Proxy({NAME: listener.port})) as proxy,
        ):
            monkeypatch.setenv("https_proxy", f"http://ann:s3cret@127.0.0.1:{proxy.port}")
            await (await dial(NAME, coordinator())).close()
            (await asyncio.to_thread(connected, NAME, 5)).close()
            assert all(b"Basic YW5uOnMzY3JldA==" in head for head in proxy.asked)
            assert len(proxy.asked) == 2
            proxy.status = "407 Proxy Authentication Required"
            with pytest.raises(PeerLost) as refused:
                await asyncio.to_thread(connected, NAME, 5)
            assert "s3cret" not in f"{refused.value}{proxy_for('hospital.test')!r}"
            assert "wants a name and a password" in str(refused.value)

    run(scenario())


@pytest.mark.parametrize(
    ("status", "says"),
    [("403 Forbidden", "allow CONNECT to hospital.test:7443"), ("200", ""), ("301 Moved", "names an HTTP proxy")],
)
def test_a_proxy_that_does_not_connect_us_says_whom_to_ask(
    monkeypatch: pytest.MonkeyPatch, status: str, says: str
) -> None:
    async def scenario() -> None:
        async with proxying(Proxy({NAME: 1} if says else {}, status=status)) as proxy:
            monkeypatch.setenv("https_proxy", proxy.url)
            with pytest.raises(PeerLost, match=says or "allow CONNECT"):
                await asyncio.to_thread(connected, NAME, 5)
            with pytest.raises(PeerLost):
                await dial(NAME, coordinator())

    run(scenario())


def test_loopback_and_what_no_proxy_names_are_reached_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "hospital.test,.inside.test")
    for host in ("localhost", "127.0.0.1", "127.8.8.8", "::1", "hospital.test", "a.inside.test"):
        assert proxy_for(host) is None
    found = proxy_for("elsewhere.test")
    assert found is not None
    assert found.address == "proxy.test:3128"


@pytest.mark.parametrize("url", ["socks5://proxy.test:1080", "http://", "http://proxy.test:port", "https://proxy.test"])
def test_a_proxy_that_cannot_be_used_is_refused_and_not_gone_around(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(UsageError, match="https_proxy is not usable"):
        proxy_for("elsewhere.test")


def test_a_worker_joins_through_a_proxy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with opened(tmp_path / "ca") as office:

        async def scenario() -> None:
            async with proxying(Proxy({"ca.test:7444": int(office.address.rpartition(":")[2])})) as proxy:
                monkeypatch.setenv("https_proxy", proxy.url)
                token = office.token()
                handed = await asyncio.to_thread(join, token, "ca.test:7444", Role.WORKER, new_key(), SystemClock())
                assert handed.chain
                assert len(proxy.asked) == 2
                assert token.secret not in b"".join(proxy.asked)

        run(scenario())


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
def test_a_link_over_ipv6() -> None:
    async def scenario() -> None:
        async with Listener("[::1]:0", hospital(), echo) as listener:
            link = await dial(listener.address, coordinator())
            await link.send(message(4))
            assert content(await link.receive()) == (b"header", bytes(4))
            await link.close()

    run(scenario())


@pytest.mark.parametrize(
    ("address", "parts"),
    [("[::1]:7443", ("::1", 7443)), ("a.example:1", ("a.example", 1)), ("1.2.3.4:5", ("1.2.3.4", 5))],
)
def test_addresses_come_apart(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["::1:7443", "host", "host:", ":1", "host:0", "host:99999", "host:+1", "[]:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="host:port"):
        split_address(address)
