"""What watches a process: grpc.health.v1 as others speak it, numbers for Prometheus, and nothing beyond loopback."""

from __future__ import annotations

import asyncio
import http.client
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from ends import grpc_ends, message, run, worker
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from fedpriv.errors import ConfigError, PeerLost, UsageError
from fedpriv.settings import Operations, loopback_address, read
from fedpriv.transport.health import LINK, SERVICE, Health, is_serving
from fedpriv.transport.metrics import Fact, Metrics, exposition, process_facts


def standard_messages() -> tuple[type, type]:
    """Return HealthCheckRequest and HealthCheckResponse, made from their published definition and not from ours."""
    file = descriptor_pb2.FileDescriptorProto(name="health.proto", package="grpc.health.v1", syntax="proto3")
    request, response = file.message_type.add(name="HealthCheckRequest"), file.message_type.add(name="R")
    request.field.add(name="service", number=1, type=9, label=1)
    response.field.add(name="status", number=1, type=5, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName
    return tuple(
        message_factory.GetMessageClass(found(f"grpc.health.v1.{name}")) for name in ("HealthCheckRequest", "R")
    )


@asynccontextmanager
async def watching(states: Mapping[str, Callable[[], bool]]) -> AsyncIterator[grpc.aio.Channel]:
    health = Health("127.0.0.1:0", states)
    async with health, AsyncExitStack() as stack:
        yield await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{health.port}"))


def test_a_standard_client_is_told_whether_the_process_serves() -> None:
    request, response = standard_messages()
    serving = True

    async def scenario() -> None:
        nonlocal serving
        async with watching({"": lambda: serving, LINK: lambda: False}) as channel:
            check = channel.unary_unary(
                f"/{SERVICE}/Check",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )
            assert (await check(request())).status == 1
            assert (await check(request(service=LINK))).status == 2
            serving = False
            assert (await check(request())).status == 2
            with pytest.raises(grpc.aio.AioRpcError) as unknown:
                await check(request(service="another"))
            assert unknown.value.code() is grpc.StatusCode.NOT_FOUND

    run(scenario())


def test_a_watcher_hears_the_state_and_that_it_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    from fedpriv.transport import health as module

    monkeypatch.setattr(module, "WATCH_SECONDS", 0.0)
    serving = True

    async def scenario() -> None:
        nonlocal serving
        async with watching({"": lambda: serving}) as channel:
            call = channel.unary_stream(f"/{SERVICE}/Watch")(b"")
            assert await call.read() == b"\x08\x01"
            serving = False
            assert await call.read() == b"\x08\x02"
            call.cancel()
            unknown = channel.unary_stream(f"/{SERVICE}/Watch")(b"\x0a\x01x")
            assert await unknown.read() == b"\x08\x03"
            unknown.cancel()

    run(scenario())


@pytest.mark.parametrize("said", [b"\x0a", b"\x0a\x05x", b"\x08\x01", b"\x0a\x01\xff", b"\x0a\x41" + b"x" * 65])
def test_what_is_no_request_is_an_unknown_service(said: bytes) -> None:
    async def scenario() -> None:
        async with watching({"": lambda: True}) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(f"/{SERVICE}/Check")(said)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    run(scenario())


def test_the_command_asks_and_says_what_to_do_where_nothing_answers() -> None:
    async def scenario() -> None:
        async with Health("127.0.0.1:0", {"": lambda: True, LINK: lambda: False}) as health:
            address = f"127.0.0.1:{health.port}"
            assert await asyncio.to_thread(is_serving, address)
            assert not await asyncio.to_thread(is_serving, address, LINK)

    run(scenario())
    with pytest.raises(PeerLost, match=r"\[operations\] health configured"):
        is_serving("127.0.0.1:1", timeout_seconds=1)


@pytest.mark.parametrize("address", ["0.0.0.0:7450", "10.0.0.1:7450", "[::]:7450", "worker.example:7450", "nowhere"])
def test_nothing_is_answered_beyond_this_machine(address: str) -> None:
    for key in ("health", "metrics"):
        with pytest.raises(ConfigError, match=r"this machine alone|host and a port"):
            read({key: address}, Operations, where="[operations]")
    assert loopback_address("127.0.0.1:0", "x") == "127.0.0.1:0"
    assert loopback_address("[::1]:9", "x") == "[::1]:9"


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match="choose another port"):
            Metrics(address, ())
        with pytest.raises(UsageError, match="choose another port"):
            run(Health(address, {}).__aenter__())


def asked(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    content = answer.read().decode()
    connection.close()
    return answer.status, content


def test_numbers_are_those_of_the_process_and_name_nobody(tmp_path: Path) -> None:
    def value(text: str, name: str) -> float:
        (found,) = re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found)

    facts = process_facts(tmp_path, worker(), lambda: True)
    before = exposition(facts)

    async def scenario() -> str:
        async with grpc_ends() as (near, far):
            await near.send(message(1 << 20))
            await far.receive()
            with Metrics("127.0.0.1:0", facts) as metrics:
                status, text = await asyncio.to_thread(asked, metrics.port, "/metrics")
                assert status == 200
                for path, method in (("/", "GET"), ("/metrics/..", "GET"), ("/metrics", "POST")):
                    assert (await asyncio.to_thread(asked, metrics.port, path, method))[0] in (404, 501)
                return text

    text = run(scenario())
    assert value(text, "fedpriv_links") == value(before, "fedpriv_links") + 2
    assert value(text, "fedpriv_sent_bytes_total") - value(before, "fedpriv_sent_bytes_total") > 1 << 20
    assert 0 < value(text, "fedpriv_certificate_seconds") < 366 * 86_400
    assert value(text, "fedpriv_serving") == 1
    assert value(text, "process_max_resident_memory_bytes") > 1 << 20
    labels = re.findall(r"\{(.*?)\}", text)
    assert all(label.startswith('software="fedpriv') for label in labels)
    assert "st-elsewhere" not in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[^}]*\})? [0-9.e+-]+", line), line


def test_a_fact_that_cannot_be_read_is_left_out() -> None:
    def gone() -> float:
        raise FileNotFoundError

    assert "gone" not in exposition((Fact("gone", "gauge", "x", gone), Fact("there", "gauge", "y", lambda: 1)))
