"""Opening a stream to a listener, once or until it works.

TLS is mutual: the listener must be vouched for by our authorities, and bears the name in the address, or the name that
we expect. That proves a certificate for an address; who the peer is, the signed hello proves afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from secrets import SystemRandom

import grpc

from fedpriv.errors import HandshakeFailed, NotTrusted, PeerLost
from fedpriv.transport.credentials import CredentialsSource
from fedpriv.transport.proxy import proxy_for, split_address
from fedpriv.transport.software import mismatch
from fedpriv.transport.stream import (
    CLOCK_KEY,
    COMMON_OPTIONS,
    METHOD,
    SERVICE,
    SOFTWARE_KEY,
    WELCOME,
    Stream,
    StreamLink,
    Welcome,
)
from fedpriv.wire.framing import FRAME_BYTES

TIMEOUT_SECONDS = 20.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 2.5
"""So that whoever dials is back within three seconds of the other side, however long that was away."""
LONGEST_REST_SECONDS = 30.0
"""Of a dialler that is sent away or not trusted, again and again."""

_SYSTEM = SystemRandom()
_SAME_AUTHORITY = "both sides need the same ca.pem"
_UNTRUSTED = "ended the connection during the TLS handshake; it may not trust our certificate: " + _SAME_AUTHORITY
_REFUSALS: Sequence[tuple[str, type[PeerLost], str]] = (
    (
        "certificate_verify_failed",
        NotTrusted,
        f"shows a certificate that our authority did not issue, or that expired; {_SAME_AUTHORITY}",
    ),
    (
        "hostname verification",
        NotTrusted,
        "shows a certificate for another name; dial a name that it was issued for, or issue one for this host",
    ),
    ("refused", PeerLost, "does not listen; start the other side, or check the address"),
    ("errors resolving", PeerLost, "has a host name that cannot be resolved; check its spelling and the network"),
    ("handshake", HandshakeFailed, _UNTRUSTED),
    ("socket closed", HandshakeFailed, _UNTRUSTED),
    ("reset", HandshakeFailed, _UNTRUSTED),
    ("broken pipe", HandshakeFailed, _UNTRUSTED),
)


async def dial(
    address: str,
    credentials: CredentialsSource,
    *,
    expected_name: str | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    frame_bytes: int = FRAME_BYTES,
) -> StreamLink:
    """Return a link to whoever listens at `address` ("host:port").

    Raise `PeerLost` if nobody answers, `HandshakeFailed` if one side does not accept the other's certificate.
    """
    host, _ = split_address(address)
    own = credentials.current()
    channel = grpc.aio.secure_channel(
        address,
        grpc.ssl_channel_credentials(own.authorities_pem, own.key_pem, own.chain_pem),
        options=_options(host, expected_name),
    )
    try:
        async with asyncio.timeout(timeout_seconds):
            call = channel.stream_stream(f"/{SERVICE}/{METHOD}", None, None)(None)
            welcome = await _welcomed(address, call)
    except TimeoutError:
        await channel.close(None)
        raise PeerLost(
            f"nothing answered at {address} within {timeout_seconds:g} s; check the address, and ask the firewall's "
            f"owner to allow outgoing TCP from this machine to {address}"
        ) from None
    except grpc.aio.AioRpcError as error:
        await channel.close(None)
        raise _refusal(address, error.code(), error.details()) from None
    except BaseException:
        await channel.close(None)
        raise
    return StreamLink(_stream(channel, call), whom=expected_name or address, frame_bytes=frame_bytes, welcome=welcome)


async def dial_with_retry(
    address: str,
    credentials: CredentialsSource,
    *,
    expected_name: str | None = None,
    on_wait: Callable[[int, float, str], None],
    attempts: int | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    jitter: Callable[[], float] = _SYSTEM.random,
) -> StreamLink:
    """Dial until it works, at most `attempts` times; before each pause call `on_wait(attempt, seconds, reason)`.

    Pauses are drawn from nothing up to a bound that doubles to `LONGEST_PAUSE_SECONDS` (full jitter), so that many
    workers do not come back in step. A listener's certificate that we do not accept raises `NotTrusted` at once:
    waiting does not mend it. Any other end, during TLS too, may be a restart, a proxy or a port that will be fedpriv's,
    and is tried again.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return await dial(address, credentials, expected_name=expected_name)
        except NotTrusted:
            raise
        except PeerLost as error:
            if attempt == attempts:
                raise
            seconds = jitter() * min(FIRST_PAUSE_SECONDS * 2 ** min(attempt - 1, 16), LONGEST_PAUSE_SECONDS)
            on_wait(attempt, seconds, str(error))
            await sleep(seconds)


def drawn_pause(longest: float) -> float:
    """Return a pause of 0 to `longest` seconds, drawn by the operating system."""
    return longest * _SYSTEM.random()


async def _welcomed(address: str, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> Welcome:
    """Return what the listener says of itself when it has taken the stream in; raise if it ended it instead."""
    await call.wait_for_connection()
    said = await call.initial_metadata()
    if WELCOME not in said:
        raise _refusal(address, await call.code(), await call.details())
    clock = str(said.get(CLOCK_KEY, ""))
    seconds = float(clock) if clock.isdecimal() and len(clock) < 16 else None
    welcome = Welcome(str(said[WELCOME]), str(said.get(SOFTWARE_KEY, "")), seconds)
    if (why := mismatch(welcome.protocol, welcome.software)) is not None:
        raise HandshakeFailed(f"{address}: {why}")
    return welcome


def _stream(channel: grpc.aio.Channel, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> Stream:
    freeing: set[asyncio.Task[None]] = set()

    async def read() -> bytes | None:
        frame = await call.read()
        return frame if isinstance(frame, bytes) else None

    def abort() -> None:
        call.cancel()
        task = asyncio.get_running_loop().create_task(channel.close(None))
        freeing.add(task)
        task.add_done_callback(freeing.discard)

    return Stream(read=read, write=call.write, finish=call.done_writing, abort=abort)


def _options(host: str, expected_name: str | None) -> list[tuple[str, int | str]]:
    options = [*COMMON_OPTIONS, ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    proxy = proxy_for(host)
    options.append(("grpc.enable_http_proxy", 0) if proxy is None else ("grpc.http_proxy", proxy.url))
    if expected_name is not None:
        options.append(("grpc.ssl_target_name_override", expected_name))
    return options


def _refusal(address: str, code: grpc.StatusCode, details: str | None) -> PeerLost:
    """Return what a person can do about a stream that did not begin; most kinds differ in gRPC's text alone."""
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return HandshakeFailed(f"what listens at {address} is no fedpriv; check the port")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return PeerLost(f"{address} takes no more links now, or none of ours; close those that are not needed")
    text = (details or "").lower()
    for sign, kind, advice in _REFUSALS:
        if sign in text:
            return kind(f"{address} {advice}")
    return PeerLost(f"{address} cannot be reached ({code.name.lower()}); check address and network")
