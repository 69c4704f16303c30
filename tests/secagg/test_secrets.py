"""Secrets do not print, are gone when a round ends, and differ from round to round."""

from __future__ import annotations

import gc
import logging

import numpy as np
import pytest
from parties import PHASES, cast, completed, play, until, words_of

from fedpriv.entropy import SeededEntropy, SystemEntropy
from fedpriv.secagg import client, keys
from fedpriv.secagg.messages import Advertise
from fedpriv.secagg.reasons import Erased
from fedpriv.secagg.sharing import RoundSecrets, SharePair

ME = "worker-00002"


def spellings(secret: bytes) -> list[str]:
    """Return how a secret would look in a text."""
    return [secret.hex(), repr(secret)[2:-1], str(int.from_bytes(secret, "big")), str(list(secret))]


def secrets_of(own) -> list[bytes]:
    secrets = own.secrets
    found = [pair for each in secrets.held.values() for pair in (each.of_seed, each.of_key)] if secrets._held else []
    if secrets._sealing:
        found += [secrets.sealing.private_bytes, secrets.masking.private_bytes, secrets.seed]
        found += [*secrets.inbound.values(), *(key for key, _ in secrets.masks)]
    return [*found, own.identity.private.private_bytes_raw()]


@pytest.mark.parametrize("phase", PHASES[1:])
def test_no_state_prints_a_secret(phase):
    party = cast(5)
    state, message = until(party, words_of(party), phase)[ME]
    secrets = secrets_of(state.own)
    after = client.receive(state, message)
    secrets += secrets_of(after.state.own) if hasattr(after.state, "own") else []
    assert len(secrets) > 1
    for text in (repr(state), str(state), repr(after), str(after), repr(state.own.secrets)):
        for secret in secrets:
            assert not any(each in text for each in spellings(secret))


def test_the_search_for_printed_secrets_can_find_one():
    secret = SystemEntropy().random_bytes(32)
    assert any(each in repr({"seed": secret}) for each in spellings(secret))
    assert any(each in f"{int.from_bytes(secret, 'big')}" for each in spellings(secret))


def test_no_error_and_no_abort_names_a_secret(caplog):
    party = cast(5)
    state, delivery = until(party, words_of(party), "mask")[ME]
    secrets = secrets_of(state.own)
    wrong = ((delivery.ciphertexts[0][0], bytes(len(delivery.ciphertexts[0][1]))), *delivery.ciphertexts[1:])
    with caplog.at_level(logging.DEBUG):
        step = client.receive(state, type(delivery)(delivery.sid, delivery.members, wrong))
    assert isinstance(step.state, client.Aborted)
    for text in (repr(step), step.state.explanation, caplog.text):
        for secret in secrets:
            assert not any(each in text for each in spellings(secret))


def test_pairs_and_keys_print_nothing():
    assert repr(SharePair(b"secret", b"secret")) == "SharePair()"
    assert "secret" not in repr(keys.fresh_pair(SeededEntropy(b"secret")))
    assert repr(keys.Identity(cast(3).identities[ME].private)) == "Identity()"


def test_masked_words_and_shares_do_not_print():
    party = cast(5)
    state, message = until(party, words_of(party), "mask")[ME]
    step = client.submit(client.receive(state, message).state, np.full(7, 123456789, "<u4"))
    assert "123456789" not in repr(step)
    assert "words" not in repr(step.message)


def test_after_the_words_are_out_own_keys_are_gone_and_shares_of_others_stay():
    party = cast(5)
    state, message = until(party, words_of(party), "mask")[ME]
    ready = client.receive(state, message).state
    secrets = ready.own.secrets
    seed = secrets._seed
    client.submit(ready, words_of(party)[ME])
    for gone in ("sealing", "masking", "seed", "inbound", "masks"):
        with pytest.raises(Erased):
            getattr(secrets, gone)
    assert bytes(seed) == bytes(32), "the bytes that are ours are overwritten"
    assert len(secrets.held) == 5


def test_words_cannot_be_submitted_twice():
    """A second vector under the same masks would give their difference away."""
    party = cast(5)
    state, message = until(party, words_of(party), "mask")[ME]
    ready = client.receive(state, message).state
    client.submit(ready, words_of(party)[ME])
    with pytest.raises(Erased, match="begin a new one"):
        client.submit(ready, words_of(party)[ME])


def test_erasing_twice_is_harmless():
    secrets = RoundSecrets.fresh(SystemEntropy())
    secrets.erase()
    secrets.erase()
    with pytest.raises(Erased):
        secrets.held  # noqa: B018 - every use raises


def test_when_a_round_ends_no_secret_of_it_can_be_reached():
    party, before = cast(5), {id(each) for each in gc.get_objects() if type(each) is RoundSecrets}
    played = play(party, words_of(party))
    completed(played)
    gc.collect()
    for state in played.workers.values():
        assert isinstance(state, client.Finished)
        assert not hasattr(state, "own")
    left = [each for each in gc.get_objects() if type(each) is RoundSecrets and id(each) not in before]
    assert not any(each._seed or each._held for each in left)


def test_two_rounds_share_no_key():
    party, seen = cast(5), set()
    party.entropy = SystemEntropy()
    for _ in range(2):
        for name in party.names:
            message = party.begin(name).message
            assert isinstance(message, Advertise)
            seen |= {message.sealing, message.masking, message.commitment}
    assert len(seen) == 2 * 5 * 3


def test_every_key_has_its_own_session_direction_and_purpose():
    agreed, sid, other = b"a" * 32, b"s" * 32, b"o" * 32
    one, two = ("alice", b"A" * 32), ("bob", b"B" * 32)
    derived = [
        keys.share_key(agreed, sid, ("alice", "bob"), (one[1], two[1])),
        keys.share_key(agreed, sid, ("bob", "alice"), (two[1], one[1])),
        keys.share_key(agreed, other, ("alice", "bob"), (one[1], two[1])),
        keys.pairwise_key(agreed, sid, one, two),
        keys.pairwise_key(agreed, other, one, two),
        keys.self_key(agreed, sid, "alice"),
        keys.self_key(agreed, sid, "bob"),
        keys.self_key(agreed, other, "alice"),
    ]
    assert len(set(derived)) == len(derived)
    assert keys.pairwise_key(agreed, sid, two, one) == keys.pairwise_key(agreed, sid, one, two)
