"""What a publication proves, what it keeps of witnesses, and how it learns that it was rolled back."""

from __future__ import annotations

import random

import pytest

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import SigningKey, open_checkpoint, sign_checkpoint
from fedpriv.ledger.cosignature import MAXIMUM_COSIGNATURES, add_cosignatures, cosign, open_cosigned
from fedpriv.ledger.merkle import EMPTY_ROOT, verify_consistency
from fedpriv.ledger.proofs import decode_proof, verify_proof
from fedpriv.storage.database import Database
from fedpriv.storage.publication import Publication
from fedpriv.storage.rows import SCHEMA, Row, Rows
from fedpriv.storage.tiles import TileFolder

KEY = SigningKey("fedpriv.ledger/bob", bytes(range(32)))
WITNESS = SigningKey("fedpriv.witness/hub", bytes(range(1, 33)))
VKEY = str(WITNESS.cosigner)


class Ledger:
    """Rows and their publication; `folder` is None in memory."""

    def __init__(self, folder=None, tag=b"entry"):
        self.rows, self.tag, self.files = Rows(Database.in_memory(schema=SCHEMA)), tag, None
        if folder is not None:
            self.files = TileFolder(folder, durable=False)
            self.files.create(str(KEY.verifier))
        self.publication = Publication(self.rows, KEY, self.files)

    def grow(self, size):
        first = self.rows.size
        if size > first:
            self.rows.append([Row(seq, "update", 1, b"%s %d" % (self.tag, seq)) for seq in range(first, size)])
        return self.publication.publish()

    def note(self):
        return self.rows.published()

    def restarted(self):
        """Return the ledger as a new process finds it."""
        again = Ledger()
        again.rows, again.files, again.publication = self.rows, self.files, Publication(self.rows, KEY, self.files)
        return again


@pytest.fixture(params=["memory", "folder"])
def ledger(request, tmp_path):
    return Ledger(None if request.param == "memory" else tmp_path)


def test_the_ledger_extends_everything_that_it_published(ledger):
    sizes = [0, 1, 2, 7, 255, 256, 257, 400, 513, 700]
    before = []
    for size in sizes:
        before.append(ledger.grow(size))
        for old in before:
            note, proof = ledger.publication.consistency(old.size)
            found = open_checkpoint(note, KEY.verifier)
            assert found == before[-1]
            verify_consistency(old.size, old.root, found.size, found.root, proof)
            ledger.publication.rolled_back(sign_checkpoint(old, KEY))


def test_every_entry_that_was_published_has_a_proof_that_verifies(ledger):
    draw = random.Random(7)
    for size in (1, 2, 300, 1000):
        ledger.grow(size)
        for index in {0, size - 1, *(draw.randrange(size) for _ in range(20))}:
            proof = decode_proof(ledger.publication.proof(index))
            assert verify_proof(proof, KEY.verifier).checkpoint.size == size
            assert proof.entry == b"entry %d" % index


def test_a_ledger_that_was_never_published_publishes_before_it_proves(ledger):
    assert ledger.publication.consistency(0)[1] == ()
    assert open_checkpoint(ledger.publication.consistency(0)[0], KEY.verifier).root == EMPTY_ROOT


def test_what_is_not_published_is_not_proven(ledger):
    ledger.grow(3)
    for index in (3, -1):
        with pytest.raises(UsageError, match=f"entry {index} is not among the 3 published"):
            ledger.publication.proof(index)
    with pytest.raises(VerificationFailed, match="3 entries cannot extend one of 4"):
        ledger.publication.consistency(4)


def test_a_cosignature_is_kept_with_the_checkpoint_in_both_places(ledger, tmp_path):
    ledger.grow(3)
    for time in (5, 6):
        ledger.publication.cosign(cosign(ledger.note(), WITNESS, time), VKEY)
        assert ledger.files is None or ledger.files.checkpoint() == ledger.note()
        cosigned = open_cosigned(ledger.note(), KEY.verifier, [WITNESS.cosigner])
        assert [(each.name, each.time) for each in cosigned.witnessed] == [(WITNESS.name, time)]
    proof = decode_proof(ledger.publication.proof(1))
    assert len(verify_proof(proof, KEY.verifier, [WITNESS.cosigner]).witnessed) == 1
    ledger.publication.export(tmp_path / "out")
    assert TileFolder(tmp_path / "out").checkpoint() == ledger.note()


def test_a_newer_checkpoint_begins_without_cosignatures(ledger, tmp_path):
    ledger.grow(3)
    ledger.publication.cosign(cosign(ledger.note(), WITNESS, 5), VKEY)
    ledger.rows.append([Row(3, "update", 1, b"entry 3")])
    ledger.publication.export(tmp_path / "out")
    assert open_cosigned(TileFolder(tmp_path / "out").checkpoint(), KEY.verifier, [WITNESS.cosigner]).witnessed == ()
    ledger.grow(4)
    assert open_cosigned(ledger.note(), KEY.verifier, [WITNESS.cosigner]).witnessed == ()


def test_a_cosignature_of_something_else_is_not_kept(ledger):
    ledger.grow(3)
    old = ledger.note()
    ledger.grow(4)
    for line, vkey, says in (
        (cosign(old, WITNESS, 5), VKEY, "does not verify"),
        (cosign(ledger.note(), KEY, 5), VKEY, "not by the key"),
        (b"nonsense", VKEY, "malformed"),
    ):
        with pytest.raises(VerificationFailed, match=says):
            ledger.publication.cosign(line, vkey)
    with pytest.raises(UsageError, match="not of a witness"):
        ledger.publication.cosign(cosign(ledger.note(), WITNESS, 5), str(KEY.verifier))
    assert open_cosigned(ledger.note(), KEY.verifier, []).unverified == ()


def test_sixteen_witnesses_are_kept_and_no_more(ledger):
    ledger.grow(3)
    keys = [SigningKey(f"witness/{number}", bytes([number]) * 32) for number in range(MAXIMUM_COSIGNATURES + 1)]
    for key in keys[:-1]:
        ledger.publication.cosign(cosign(ledger.note(), key, 5), str(key.cosigner))
    with pytest.raises(UsageError, match="at most 16"):
        ledger.publication.cosign(cosign(ledger.note(), keys[-1], 5), str(keys[-1].cosigner))
    assert len(open_cosigned(ledger.note(), KEY.verifier, [key.cosigner for key in keys]).witnessed) == 16


@pytest.mark.parametrize("behind", ["neither", "the journal", "the folder", "both, differently"])
def test_after_a_crash_both_places_have_every_cosignature(tmp_path, behind):
    ledger = Ledger(tmp_path)
    ledger.grow(3)
    bare = ledger.note()
    full = add_cosignatures(bare, [cosign(bare, WITNESS, 5)])
    other = SigningKey("fedpriv.witness/other", bytes(32))
    recorded = bare if behind == "the journal" else full
    shown = {"the folder": bare, "both, differently": add_cosignatures(bare, [cosign(bare, other, 6)])}.get(
        behind, full
    )
    ledger.rows.set_published(3, recorded)
    ledger.files.publish(shown)
    again = ledger.restarted()
    assert again.publication.recover().size == 3
    assert again.note() == ledger.files.checkpoint()
    cosigned = open_cosigned(again.note(), KEY.verifier, [WITNESS.cosigner, other.cosigner])
    assert len(cosigned.witnessed) == (2 if behind == "both, differently" else 1)
    again.publication.cosign(cosign(again.note(), WITNESS, 7), VKEY)


def test_more_cosignatures_than_are_kept_do_not_stop_a_start(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.grow(1)
    bare = ledger.note()
    keys = [SigningKey(f"witness/{number}", bytes([number]) * 32) for number in range(32)]
    first, second = (add_cosignatures(bare, [cosign(bare, key, 5) for key in half]) for half in (keys[:16], keys[16:]))
    ledger.rows.set_published(1, first)
    ledger.files.publish(second)
    again = ledger.restarted()
    again.publication.recover()
    assert again.note() == ledger.files.checkpoint() == second


def test_a_folder_that_was_moved_away_is_made_again_with_its_cosignatures(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.grow(300)
    ledger.publication.cosign(cosign(ledger.note(), WITNESS, 5), VKEY)
    (tmp_path / "ledger").rename(tmp_path / "aside")
    again = ledger.restarted()
    again.publication.recover()
    assert ledger.files.checkpoint() == ledger.note() == (tmp_path / "aside" / "checkpoint").read_bytes()
    assert verify_proof(decode_proof(again.publication.proof(299)), KEY.verifier).checkpoint.size == 300


def test_a_checkpoint_that_is_ahead_of_the_journals_record_is_recorded_as_it_stands(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.grow(3)
    old = ledger.note()
    ledger.grow(5)
    ledger.publication.cosign(cosign(ledger.note(), WITNESS, 5), VKEY)
    shown = ledger.note()
    ledger.rows.set_published(3, old)
    again = ledger.restarted()
    assert again.publication.recover().size == 5
    assert again.note() == shown
    again.grow(6)
    assert again.publication.consistency(5)[0] == again.note()


def test_a_witness_that_holds_more_shows_a_rollback(ledger, tmp_path):
    ledger.grow(3)
    longer = Ledger(tmp_path / "longer")
    longer.grow(5)
    with pytest.raises(VerificationFailed, match="of 5 entries, this ledger has 3: the last 2 are gone"):
        ledger.publication.rolled_back(longer.note())


def test_what_is_recorded_but_not_published_is_not_missing(ledger, tmp_path):
    ledger.grow(3)
    longer = Ledger(tmp_path / "longer")
    longer.grow(5)
    ledger.rows.append([Row(seq, "update", 1, b"entry %d" % seq) for seq in (3, 4)])
    ledger.publication.rolled_back(longer.note())
    assert open_checkpoint(ledger.note(), KEY.verifier).size == 5


@pytest.mark.parametrize("size", [3, 4])
def test_a_ledger_that_went_on_differently_shows_a_rollback(ledger, tmp_path, size):
    ledger.grow(size)
    other = Ledger(tmp_path / "other", tag=b"another")
    other.grow(3)
    with pytest.raises(VerificationFailed, match="of 3 entries with another root"):
        ledger.publication.rolled_back(other.note())


def test_a_note_of_another_key_shows_nothing(ledger):
    ledger.grow(3)
    for held in (b"nonsense", b"", add_cosignatures(ledger.note(), []).replace(b"\n3\n", b"\n9\n")):
        with pytest.raises(UsageError, match="no checkpoint of this ledger"):
            ledger.publication.rolled_back(held)


def test_a_folder_whose_hashes_were_changed_does_not_open(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.grow(3)
    tile = tmp_path / "tile" / "0" / "000.p" / "3"
    tile.write_bytes(bytes(32) + tile.read_bytes()[32:])
    with pytest.raises(VerificationFailed, match="the first 3 entries no longer have the published root"):
        ledger.restarted().publication.recover()


@pytest.mark.parametrize("lost", ["the folder's checkpoint", "the journal's rows"])
def test_a_start_after_a_rollback_is_refused(tmp_path, lost):
    ledger = Ledger(tmp_path)
    ledger.grow(3)
    old = ledger.note()
    ledger.grow(5)
    if lost == "the folder's checkpoint":
        ledger.files.publish(old)
    else:
        shorter = Ledger(None)
        shorter.grow(3)
        ledger.rows = shorter.rows
    with pytest.raises(VerificationFailed, match="rolled back"):
        ledger.restarted().publication.recover()


def test_an_export_does_not_overwrite_another_ledger(ledger, tmp_path):
    ledger.grow(1)
    TileFolder(tmp_path / "out", durable=False).create(VKEY)
    with pytest.raises(UsageError, match="another ledger"):
        ledger.publication.export(tmp_path / "out")


def test_an_export_grows_with_its_ledger(ledger, tmp_path):
    for size in (3, 300):
        ledger.grow(size)
        ledger.publication.export(tmp_path / "out")
        assert TileFolder(tmp_path / "out").checkpoint() == ledger.note()
