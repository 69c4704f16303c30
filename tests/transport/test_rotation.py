"""Certificates and revocation lists change under a running process; both ends of a real link go by what is there."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ends import authority, coordinator, listening, run, worker
from registrars import new_key, opened

from fedpriv.clock import ManualClock, SystemClock
from fedpriv.errors import CredentialsError, PeerLost
from fedpriv.ids import Role
from fedpriv.sealed import Sealed
from fedpriv.transport.authority import Authority
from fedpriv.transport.credentials import Credentials, private_pem
from fedpriv.transport.dial import dial
from fedpriv.transport.hello import Side, greet
from fedpriv.transport.joining import join
from fedpriv.transport.link import OpenLink, SealedLink
from fedpriv.transport.renewal import Renewal, keep_fresh
from fedpriv.transport.revocation import REVOKED, keep_revoked, read_revoked
from fedpriv.transport.rotation import CredentialFiles, CredentialPaths, replace_pair, settle
from fedpriv.transport.stream import StreamLink
from fedpriv.wire.codec import encode


def paths_in(folder: Path) -> CredentialPaths:
    return CredentialPaths(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")


def files_of(credentials: Credentials, folder: Path) -> CredentialFiles:
    credentials.save(folder)
    return CredentialFiles(paths_in(folder))


def revoking(*names_of: Credentials, number: int = 1) -> bytes:
    serials = {each.chain[0].serial_number: time.time() for each in names_of}
    return authority().revoke(serials, number, now=time.time())


async def meet(dialling: CredentialFiles | Credentials, listening_as: CredentialFiles | Credentials) -> tuple[str, str]:
    """Return what each side says of a meeting over TLS: the other's name, or why there was none."""
    heard: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def attached(raw: StreamLink) -> None:
        try:
            peer = await greet(Side.LISTENER, SealedLink(raw), listening_as, lambda each: Sealed(encode(each)))
            heard.set_result(peer.name)
            await raw.receive()
        except PeerLost as error:
            heard.set_result(str(error))

    async with listening(attached, listening_as) as listener:
        try:
            link = OpenLink(await dial(listener.address, dialling))
            said = (await greet(Side.DIALER, link, dialling, encode)).name
            await link.close()
        except PeerLost as error:
            said = str(error)
        return said, await heard


def test_a_listener_honours_a_list_that_came_while_it_runs(tmp_path: Path) -> None:
    files = files_of(worker(), tmp_path)
    assert run(meet(coordinator(), files)) == ("st-elsewhere", "coordinator-1")
    (tmp_path / REVOKED).write_bytes(revoking(coordinator()))
    said, heard = run(meet(coordinator(), files))
    assert "'coordinator-1' was revoked at" in heard
    assert "may not trust our certificate" in said


def test_a_dialler_honours_the_list_too(tmp_path: Path) -> None:
    files = files_of(coordinator(), tmp_path)
    (tmp_path / REVOKED).write_bytes(revoking(worker()))
    said, heard = run(meet(files, worker()))
    assert "'st-elsewhere' was revoked at" in said
    assert "closed the link" in heard or "went away" in heard


def test_new_links_use_a_new_certificate_and_open_ones_go_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        files = files_of(worker(), tmp_path)
        seen: list[bytes] = []

        async def attached(raw: StreamLink) -> None:
            while (envelope := await raw.receive()) is not None:
                await raw.send(envelope)

        async with listening(attached, files) as listener:
            first = await dial(listener.address, coordinator())
            fresh = authority().issue("st-elsewhere", Role.WORKER)
            replace_pair(files.paths, fresh.chain, fresh.key)
            await listener.refresh()
            assert await shown_by(listener.port) == fresh.chain_der[0]
            second = await dial(listener.address, coordinator(), expected_name="st-elsewhere")
            assert files.current().peer.fingerprint == fresh.peer.fingerprint != worker().peer.fingerprint
            for link in (first, second):
                await link.send(encode(_hello(files.current())))
                seen.append((await link.receive()).header)
                await link.close()
        assert len(seen) == 2

    run(scenario())


async def shown_by(port: int) -> bytes:
    """Return the certificate that a listener shows in TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


def _hello(own: Credentials):
    from fedpriv.wire.messages import Hello

    return Hello(own.chain_der, bytes(32))


def test_files_that_cannot_be_used_change_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = files_of(worker(), tmp_path)
    for name in ("certificate.pem", "ca.pem", REVOKED):
        kept = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else None
        (tmp_path / name).write_text("half a")
        assert files.current().peer == worker().peer
        (tmp_path / name).unlink() if kept is None else (tmp_path / name).write_bytes(kept)
    assert "the old ones stay" in caplog.text
    assert files.current().peer == worker().peer


def test_a_replacement_cut_short_at_any_point_leaves_one_whole_pair(tmp_path: Path) -> None:
    fresh = authority().issue("st-elsewhere", Role.WORKER)
    before = tmp_path / "before"
    files_of(worker(), before)
    (before / "key.pem.next").write_bytes(private_pem(fresh.key))  # killed before the certificate was there
    assert CredentialFiles(paths_in(before)).current().peer == worker().peer
    assert not (before / "key.pem.next").exists()

    after = tmp_path / "after"
    files = files_of(worker(), after)
    (after / "key.pem.next").write_bytes(private_pem(fresh.key))
    (after / "certificate.pem").write_bytes(fresh.chain_pem)  # killed before the key was in its place
    assert files.current().peer == fresh.peer
    settle(files.paths)
    assert CredentialFiles(paths_in(after)).current().peer == fresh.peer
    assert not (after / "key.pem.next").exists()


def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left_and_not_before(tmp_path: Path) -> None:
    with opened(tmp_path / "ca") as office:
        key = new_key()
        handed = join(office.token(days=30), office.address, Role.WORKER, key, SystemClock())
        files = files_of(Credentials.of(handed.chain, key, handed.authorities), tmp_path / "alice")
        renewal = Renewal(files, office.address, ManualClock(time.time() + 19 * 86_400))
        assert not renewal.attempt()
        assert files.current().chain == handed.chain
        assert replace(renewal, clock=ManualClock(time.time() + 21 * 86_400)).attempt()
        fresh = files.current()
        assert fresh.chain != handed.chain
        assert fresh.peer.name == "alice"
        assert fresh.key.public_key() != key.public_key()
        assert CredentialFiles(files.paths).current().peer == fresh.peer


def test_a_worker_that_was_revoked_elsewhere_hears_of_it_and_goes_on_trying(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path / "ca") as office:
        key = new_key()
        handed = join(office.token(), office.address, Role.WORKER, key, SystemClock())
        files = files_of(Credentials.of(handed.chain, key, handed.authorities), tmp_path / "alice")
        office.register.revoke("alice", office.clock.now())
        rounds = 0

        async def twice(_: float) -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 2:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            run(keep_fresh(Renewal(files, office.address, SystemClock()), sleep=twice))
        assert (tmp_path / "alice" / REVOKED).exists()
        assert "the credentials on disk changed and cannot be used" in caplog.text
        with pytest.raises(CredentialsError, match="was revoked at"):
            CredentialFiles(files.paths)


def test_an_older_list_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    path, own = tmp_path / REVOKED, (authority().certificate,)
    assert keep_revoked(path, revoking(worker(), number=2), own)
    assert not keep_revoked(path, revoking(worker(), number=2), own)
    with pytest.raises(CredentialsError, match=r"number 1, and .* number 2"):
        keep_revoked(path, revoking(number=1), own)
    assert worker().chain[0].serial_number in read_revoked(path.read_bytes(), own, where="it").serials


@pytest.mark.parametrize("content", [b"", b"nothing", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_what_is_no_list_is_refused_and_never_taken_for_an_empty_one(tmp_path: Path, content: bytes) -> None:
    worker().save(tmp_path)
    (tmp_path / REVOKED).write_bytes(content)
    with pytest.raises(CredentialsError, match=r"revoked\.pem is no revocation list"):
        Credentials.load(tmp_path)


def test_a_list_of_another_authority_is_refused(tmp_path: Path) -> None:
    worker().save(tmp_path)
    (tmp_path / REVOKED).write_bytes(Authority.create().revoke({}, 1, now=time.time()))
    with pytest.raises(CredentialsError, match="not signed by an authority that we trust"):
        Credentials.load(tmp_path)


def test_our_own_revocation_stops_us_at_the_start(tmp_path: Path) -> None:
    worker().save(tmp_path)
    (tmp_path / REVOKED).write_bytes(revoking(worker()))
    with pytest.raises(CredentialsError, match=r"our own certificate cannot be used: .* was revoked"):
        Credentials.load(tmp_path)


def test_an_auditors_certificate_opens_no_link() -> None:
    for role in (Role.AUDITOR, Role.ADMINISTRATOR, Role.REGISTRAR):
        other = authority().issue("other", role)
        said, heard = run(meet(other, worker()))
        assert f"'other' is a {role.value}, but only a coordinator or researcher is accepted here" in heard
        assert "not accept our role" in said
