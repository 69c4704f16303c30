"""A worker whose owner configured a C2SP witness: cosigned as it publishes, and stopped when it was rolled back."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import pytest
from test_witness_http import WITNESS, HttpWitness, serving

import fedpriv as fp
from fedpriv.cli.worker import Streams, _serve
from fedpriv.clock import SystemClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import RolledBack, StorageFailed, UsageError, VerificationFailed
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import SigningKey, open_checkpoint, origin_of, parse_signature, parse_signing_key
from fedpriv.ledger.cosignature import cosign, cosignature_lines
from fedpriv.ledger.entries import Draft
from fedpriv.ledger.witness import decode_request
from fedpriv.storage.verification import verify_ledger
from fedpriv.wire.messages import AskCheckpoint, Role
from fedpriv_worker import config
from fedpriv_worker.executor import InProcessExecutor
from fedpriv_worker.journal import SIGNING_KEY, Journal
from fedpriv_worker.publishing import Publisher
from fedpriv_worker.worker import Worker

BOB = WorkerName("bob")
DRAFT = Draft(peer="coordinator", method="Attach", kind="failure", bytes=10)


def opened(state: Path) -> Journal:
    return Journal.open(state, worker=BOB, clock=SystemClock(), entropy=SeededEntropy(b"bob"))


def key_of(state: Path) -> SigningKey:
    return parse_signing_key((state / SIGNING_KEY).read_text().strip())


def published(journal: Journal, url: str, vkey: str = str(WITNESS.cosigner)) -> None:
    """Publish what is new and hear what the witness at `url` says, as the worker does before it serves anybody."""

    async def run() -> None:
        await Publisher(journal, [config.HttpWitness(url, vkey)]).begin()

    asyncio.run(run())


def test_a_configured_witness_cosigns_what_is_published_and_the_folder_shows_it(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    with serving(HttpWitness(key_of(tmp_path)).answer) as url:
        for _ in range(3):
            journal.append(DRAFT, b"header", [])
            published(journal, url)
    journal.close()
    report = verify_ledger(tmp_path / "ledger", key=None, witnesses=[str(WITNESS.cosigner)])
    assert (report.signed, [each.name for each in report.witnessed]) == (3, [WITNESS.name])


def copied_and_continued(state: Path, copy: Path, url: str) -> None:
    """Leave in `copy` what `state` was before the witness at `url` saw it go on."""
    journal = opened(state)
    journal.append(DRAFT, b"header", [])
    journal.close()
    shutil.copytree(state, copy)
    journal = opened(state)
    for _ in range(5):
        journal.append(DRAFT, b"header", [])
    published(journal, url)
    journal.close()


def test_a_state_that_was_rolled_back_stops_at_the_witness_for_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    opened(state).close()
    with serving(HttpWitness(key_of(state)).answer) as url:
        copied_and_continued(state, copy, url)
        rolled_back = opened(copy)
        with pytest.raises(RolledBack, match="cannot extend one of 6"):
            published(rolled_back, url)
        with pytest.raises(StorageFailed, match="nothing leaves"):
            rolled_back.append(DRAFT, b"header", [])
        rolled_back.close()
    assert "nothing more leaves" in caplog.text
    with pytest.raises(VerificationFailed, match="rolled back"):
        opened(copy)  # though the witness is silent now


@pytest.mark.parametrize("rolled_back", [True, False])
def test_a_worker_opens_no_stream_before_its_witness_has_spoken(tmp_path: Path, rolled_back: bool) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    opened(state).close()
    witness = HttpWitness(key_of(state))
    with serving(witness.answer) as url:
        copied_and_continued(state, copy, url)
    begun, speaks = threading.Event(), threading.Event()

    def slowly(path: str, body: bytes) -> tuple[int, str, bytes]:
        begun.set()
        speaks.wait(30)
        return witness.answer(path, body)

    async def start(url: str) -> None:
        credentials = fp.Credentials.throwaway(BOB, Role.WORKER)
        worker = Worker(
            BOB, [], executor=InProcessExecutor([]), journal=opened(copy if rolled_back else state),
            credentials=credentials, witnesses=[config.HttpWitness(url, str(WITNESS.cosigner))],
        )  # fmt: skip
        streams = Streams()
        serve = asyncio.create_task(_serve(worker, streams, None, credentials))
        await asyncio.to_thread(begun.wait, 30)
        assert not streams._worker.done()
        speaks.set()
        if rolled_back:
            with pytest.raises(RolledBack):
                await serve
            assert not streams._worker.done()
        else:
            assert await streams._worker is worker
            serve.cancel()
        await worker.close()

    with serving(slowly) as url:
        asyncio.run(start(url))


def test_what_came_unencrypted_stops_a_worker_only_until_it_starts_again(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    opened(state).close()
    with serving(HttpWitness(key_of(state)).answer) as url:
        copied_and_continued(state, copy, url)
        witness = config.HttpWitness(url, str(WITNESS.cosigner), plain_http=True)
        rolled_back = opened(copy)

        async def run() -> None:
            await Publisher(rolled_back, [witness]).begin()

        with pytest.raises(RolledBack):
            asyncio.run(run())
        rolled_back.close()
    opened(copy).close()


@pytest.mark.parametrize("status", [404, 500])
def test_a_witness_that_is_of_no_use_stops_nothing(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(tmp_path)
    with serving(lambda *_: (status, "text/plain", b"")) as url:
        published(journal, url)
    assert journal.append(DRAFT, b"header", []).seq == 0
    assert "without a witness" in caplog.text
    journal.close()


OTHER = SigningKey(WITNESS.name, bytes(32))


def test_a_line_by_another_key_alone_is_not_kept_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = opened(tmp_path)
    journal.append(DRAFT, b"header", [])
    with serving(HttpWitness(key_of(tmp_path)).answer) as url:
        published(journal, url, str(OTHER.cosigner))
    assert "without a line by the key" in caplog.text
    assert journal.append(DRAFT, b"header", []).seq == 1
    assert cosignature_lines(journal.publication._note, key_of(tmp_path).verifier) == []
    journal.close()


def test_a_line_by_another_key_beside_the_known_one_is_ignored(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(DRAFT, b"header", [])

    def answer(_: str, body: bytes) -> tuple[int, str, bytes]:
        note = decode_request(body).note
        return 200, "text/plain", b"".join(cosign(note, key, 1_767_225_600) + b"\n" for key in (OTHER, WITNESS))

    with serving(answer) as url:
        published(journal, url)
    assert journal.append(DRAFT, b"header", []).seq == 1
    (line,) = cosignature_lines(journal.publication._note, key_of(tmp_path).verifier)
    assert parse_signature(line.decode()).is_by(WITNESS.cosigner)
    journal.close()


@pytest.mark.parametrize("answer", [b"<html>please sign in</html>", b""])
def test_an_answer_that_is_no_cosignature_stops_nothing(tmp_path: Path, answer: bytes) -> None:
    journal = opened(tmp_path)
    with serving(lambda *_: (200, "text/html", answer)) as url:
        published(journal, url)
    assert journal.append(DRAFT, b"header", []).seq == 0
    journal.close()


def test_a_witness_that_says_nothing_is_asked_once_and_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpriv_worker.publishing.PUBLISH_SECONDS", 0.0)
    journal = opened(tmp_path)
    asked, speaks = [], threading.Event()

    def silent(path: str, _: bytes) -> tuple[int, str, bytes]:
        asked.append(path)
        speaks.wait(30)
        return 500, "text/plain", b""

    async def run(url: str) -> None:
        publisher = Publisher(journal, [config.HttpWitness(url, str(WITNESS.cosigner))])
        for entries in range(1, 50):
            journal.append(DRAFT, b"header", [])
            await publisher.soon()
            shown = await publisher.show(AskCheckpoint(entries, b""))
            assert open_checkpoint(shown.note, key_of(tmp_path).verifier).size == entries
        assert [each.name for each in threading.enumerate()].count("fedpriv-witness") == 1
        assert len(asked) <= 1
        await publisher.close()

    with serving(silent) as url:
        try:
            asyncio.run(run(url))  # ends although the witness is silent
        finally:
            speaks.set()
    journal.close()


def test_what_a_witness_answers_after_the_worker_closed_is_not_kept(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(DRAFT, b"header", [])
    witness = HttpWitness(key_of(tmp_path))
    begun, speaks = threading.Event(), threading.Event()

    def slowly(path: str, body: bytes) -> tuple[int, str, bytes]:
        begun.set()
        speaks.wait(30)
        return witness.answer(path, body)

    async def run(url: str) -> None:
        publisher = Publisher(journal, [config.HttpWitness(url, str(WITNESS.cosigner))])
        await publisher.soon()
        await asyncio.to_thread(begun.wait, 30)
        await publisher.close()

    with serving(slowly) as url:
        asyncio.run(run(url))
        speaks.set()
        for each in threading.enumerate():
            if each.name == "fedpriv-witness":
                each.join(30)
    assert cosignature_lines(journal.publication._note, key_of(tmp_path).verifier) == []
    journal.close()


def test_a_key_that_is_none_is_refused_where_it_is_read() -> None:
    with pytest.raises(UsageError, match="verifier key"):
        config.HttpWitness("https://witness.example", str(SigningKey(origin_of(BOB), bytes(32)).verifier))
