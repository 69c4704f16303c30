"""A worker whose owner configured a C2SP witness: cosigned as it publishes, and stopped when it was rolled back."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from test_witness_http import WITNESS, HttpWitness, serving

from fedpriv.clock import SystemClock
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import StorageFailed, UsageError
from fedpriv.ids import WorkerName
from fedpriv.ledger.checkpoint import SigningKey, origin_of, parse_signing_key
from fedpriv.ledger.entries import Draft
from fedpriv.storage.verification import verify_ledger
from fedpriv_worker import config
from fedpriv_worker.journal import SIGNING_KEY, Journal
from fedpriv_worker.publishing import Publisher

BOB = WorkerName("bob")
DRAFT = Draft(peer="coordinator", method="Attach", kind="failure", bytes=10)


def opened(state: Path) -> Journal:
    return Journal.open(state, worker=BOB, clock=SystemClock(), entropy=SeededEntropy(b"bob"))


def key_of(state: Path) -> SigningKey:
    return parse_signing_key((state / SIGNING_KEY).read_text().strip())


def published(journal: Journal, url: str, vkey: str = str(WITNESS.cosigner)) -> None:
    """Publish what is new, as the worker does, with a witness at `url`."""

    async def run() -> None:
        await Publisher(journal, [config.HttpWitness(url, vkey)]).soon()

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


def test_a_state_that_was_rolled_back_stops_at_the_witness(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    journal = opened(state)
    journal.append(DRAFT, b"header", [])
    journal.close()
    shutil.copytree(state, copy)
    with serving(HttpWitness(key_of(state)).answer) as url:
        journal = opened(state)
        for _ in range(5):
            journal.append(DRAFT, b"header", [])
        published(journal, url)
        journal.close()
        rolled_back = opened(copy)
        published(rolled_back, url)
        with pytest.raises(StorageFailed, match="nothing leaves"):
            rolled_back.append(DRAFT, b"header", [])
        rolled_back.close()
    assert "nothing more leaves" in caplog.text


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


def test_a_line_by_another_key_is_not_kept(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.append(DRAFT, b"header", [])
    other = SigningKey(WITNESS.name, bytes(32))
    with serving(HttpWitness(key_of(tmp_path)).answer) as url:
        published(journal, url, str(other.cosigner))
    with pytest.raises(StorageFailed, match="nothing leaves"):
        journal.append(DRAFT, b"header", [])
    journal.close()


def test_a_key_that_is_none_is_refused_where_it_is_read() -> None:
    with pytest.raises(UsageError, match="verifier key"):
        config.HttpWitness("https://witness.example", str(SigningKey(origin_of(BOB), bytes(32)).verifier))
