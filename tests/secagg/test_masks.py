"""Masks: the stream that the specification says, wherever blocks and groups end, and words that look like noise.

The last part is a game. Two workers swap their updates, so that the sum is the same, and whoever has everything that
the coordinator received has to say who holds which. It knows each survivor's own mask, as the coordinator does in the
end. It wins half of the time; and always where there are no masks.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from parties import cast, completed, play

from fedpriv.entropy import SeededEntropy
from fedpriv.secagg import keys, masks
from fedpriv.secagg.keys import KEY_BYTES
from fedpriv.secagg.masks import apply_masks
from fedpriv.secagg.messages import Masked, Unmask
from fedpriv.secagg.ring import Ring
from fedpriv.secagg.shamir import SECRETS
from fedpriv.secagg.statements import words_hash
from fedpriv.secagg.vector import Part, Treatment, VectorSpec
from fedpriv.wire.secagg import encode_secagg

X, Y = "worker-00001", "worker-00003"
LENGTH = 2000


def stream(key, length, dtype):
    cipher = Cipher(algorithms.AES256(key), modes.CTR((2).to_bytes(16, "big"))).encryptor()
    return np.frombuffer(cipher.update(bytes(length * dtype.itemsize)), dtype)


@settings(max_examples=30, deadline=None)
@given(
    bits=st.sampled_from([32, 64]),
    length=st.sampled_from([0, 1, 3, 32_767, 32_768, 32_769, 65_536, 70_000, 140_000]),
    count=st.integers(0, 5),
    seed=st.binary(min_size=1, max_size=8),
)
def test_masks_are_whole_streams_wherever_a_block_ends(bits, length, count, seed):
    ring, entropy = Ring(bits), SeededEntropy(seed)
    chosen = [(entropy.random_bytes(32), bool(at % 2)) for at in range(count)]
    words = np.frombuffer(entropy.random_bytes(length * ring.word_bytes), ring.dtype).copy()
    expected = words.copy()
    for key, added in chosen:
        mask = stream(key, length, ring.dtype)
        expected = expected + mask if added else expected - mask
    apply_masks(words, iter(chosen))
    np.testing.assert_array_equal(words, expected)


def test_more_masks_than_a_group_holds_are_all_applied(monkeypatch):
    monkeypatch.setattr(masks, "_GROUP", 3)
    entropy, ring = SeededEntropy(b"groups"), Ring(32)
    chosen = [(entropy.random_bytes(32), True) for _ in range(8)]
    words = ring.zeros(100)
    apply_masks(words, chosen)
    np.testing.assert_array_equal(words, sum(stream(key, 100, ring.dtype) for key, _ in chosen))
    apply_masks(words, [(key, False) for key, _ in chosen])
    assert not words.any()


@pytest.mark.parametrize("length", [0, 1, 32_767, 32_768, 32_769, 100_000])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_hash_of_words_is_that_of_their_bytes(bits, length):
    words = np.arange(length, dtype=Ring(bits).dtype)
    assert words_hash(words) == hashlib.sha256(words.tobytes()).digest()


def played(swapped, seed, number):
    """Return what the coordinator received of a round in which X and Y hold opposite updates, swapped or not."""
    party = cast(5, VectorSpec((Part("update", (LENGTH,), 1.0, 16, Treatment.UNWEIGHTED),)), number=number)
    party.entropy = SeededEntropy(b"game %d" % seed)
    held = {name: 0.1 * at for at, name in enumerate(party.names)} | {X: 0.9, Y: -0.9}
    if swapped:
        held[X], held[Y] = held[Y], held[X]
    words = {
        name: party.descriptor.vector.encode(
            {"update": np.full(LENGTH, value)}, weight=1, ring=party.descriptor.ring, entropy=party.entropy
        )
        for name, value in held.items()
    }
    return party, words, play(party, words)


def stored(received):
    """Return what a coordinator would find on its disk: header and payload of every message, by sender and kind."""
    found = {}
    for name, message in received:
        envelope = encode_secagg(message)
        found[name, type(message)] = envelope.header + b"".join(envelope.payload)
    return found


def own_mask(party, received, name):
    """Return the key of a survivor's own mask, as the coordinator reconstructs it."""
    shares = {
        holder: SECRETS.decode(dict(message.self_shares)[name])
        for holder, message in received
        if isinstance(message, Unmask)
    }
    chosen = list(shares)[: party.descriptor.threshold]
    weights = SECRETS.weights([party.names.index(holder) + 1 for holder in chosen])
    seed = SECRETS.combine(weights, [shares[holder] for holder in chosen])
    return keys.self_key(seed.to_bytes(KEY_BYTES, "big"), party.descriptor.sid, name)


def views(party, received):
    """Yield the words of X as the coordinator received them, and without X's own mask."""
    words = next(message.words for name, message in received if name == X and isinstance(message, Masked))
    yield words
    without = words.copy()
    apply_masks(without, [(own_mask(party, received, X), False)])
    yield without


def guess(words):
    """Say whether `words` hold the smaller update: by their mean, the strongest sign that unmasked words give."""
    return Ring(32).lift(words).mean() < 0


def test_who_holds_which_update_is_guessed_at_chance():
    rounds, right = 60, [0, 0]
    for at in range(rounds):
        swapped = at % 2 == 1
        party, words, done = played(swapped, at, at + 1)
        np.testing.assert_array_equal(
            completed(done).total, sum(words.values(), start=Ring(32).zeros(LENGTH)), "the game keeps the sum"
        )
        for which, view in enumerate(views(party, done.received)):
            right[which] += guess(view) == swapped
    for count in right:
        assert abs(count - rounds / 2) < 4 * (rounds / 4) ** 0.5


def test_without_masks_it_is_guessed_always():
    for at in range(10):
        swapped = at % 2 == 1
        _, words, _ = played(swapped, at, at + 1)
        assert guess(words[X]) == swapped


def chi_square(data):
    """Return chi-square of the 256 byte values against uniform ones; 255 degrees of freedom."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    return float(((counts - expected) ** 2 / expected).sum())


LIMIT = 255 + 5 * (2 * 255) ** 0.5


@pytest.mark.parametrize("place", range(4))
def test_every_byte_of_masked_words_is_uniform(place):
    party, _, done = played(False, 1, 1)
    bytes_of_all = b""
    for name, message in done.received:
        if isinstance(message, Masked):
            bytes_of_all += stored([(name, message)])[name, Masked][-4 * LENGTH :][place::4]
    for view in views(party, done.received):
        bytes_of_all += view.tobytes()[place::4]
    assert len(bytes_of_all) == 7 * LENGTH
    assert chi_square(bytes_of_all) < LIMIT


@pytest.mark.parametrize("place", range(4))
def test_bytes_of_words_without_masks_are_not(place):
    _, words, _ = played(False, 1, 1)
    assert chi_square(b"".join(each.tobytes()[place::4] for each in words.values())) > LIMIT


def test_no_update_stands_in_clear_in_what_the_coordinator_stored():
    """Nothing that was received holds eight words of anybody's update in a row; without masks it does."""
    _, words, done = played(False, 1, 1)
    everything = b"".join(stored(done.received).values())
    for held in words.values():
        assert held[:8].tobytes() not in everything
        assert held[:8].tobytes() in b"".join(each.tobytes() for each in words.values())
