"""Sealed shares that are reflected, misrouted, replayed, or malformed by a worker that colludes: each is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from parties import cast, until, words_of
from witnesses import stops

from fedpriv.entropy import SeededEntropy
from fedpriv.secagg import client, keys, statements
from fedpriv.secagg.reasons import Reason
from fedpriv.secagg.shamir import SECRETS

VICTIM = "worker-00002"


def delivered(alter):
    """Return the cast, the victim's state and its step after a delivery that `alter` made from everybody's."""
    party = cast(5)
    at = until(party, words_of(party), "mask")
    state, delivery = at[VICTIM]
    sealed = {(sender, name): data for name, (_, each) in at.items() for sender, data in each.ciphertexts}
    changed = dict(delivery.ciphertexts)
    alter(changed, sealed)
    return party, state, client.receive(state, replace(delivery, ciphertexts=tuple(changed.items())))


def test_a_share_that_is_reflected_to_its_sender():
    def alter(changed, sealed):
        changed["worker-00000"] = sealed[VICTIM, "worker-00000"]

    party, state, step = delivered(alter)
    stops(party, state, step, Reason.UNDECIPHERABLE_SHARE, f"worker-00000 -> {VICTIM}")


def test_a_share_that_was_meant_for_somebody_else():
    def alter(changed, sealed):
        changed["worker-00000"] = sealed["worker-00000", "worker-00001"]

    party, state, step = delivered(alter)
    stops(party, state, step, Reason.UNDECIPHERABLE_SHARE, f"worker-00000 -> {VICTIM}")


def test_a_share_that_claims_another_sender():
    def alter(changed, sealed):
        changed["worker-00000"], changed["worker-00001"] = changed["worker-00001"], changed["worker-00000"]

    party, state, step = delivered(alter)
    stops(party, state, step, Reason.UNDECIPHERABLE_SHARE, f"worker-00000 -> {VICTIM}")


def test_a_share_that_is_replayed_from_an_earlier_round():
    earlier, later = cast(5, number=1), cast(5, number=2)
    later.entropy = SeededEntropy(b"later")
    old = until(earlier, words_of(earlier), "mask")[VICTIM][1]
    state, delivery = until(later, words_of(later), "mask")[VICTIM]
    replayed = (old.ciphertexts[0], *delivery.ciphertexts[1:])
    step = client.receive(state, replace(delivery, ciphertexts=replayed))
    stops(later, state, step, Reason.UNDECIPHERABLE_SHARE, f"worker-00000 -> {VICTIM}")


def colluder(alter_plaintext):
    """Let worker 0 seal an altered plaintext for the victim, rightly encrypted; return the cast, state and step."""
    party = cast(5)
    at = until(party, words_of(party), "mask")
    state, delivery = at[VICTIM]
    sharer, history = at["worker-00000"][0], state.history
    route, members = ("worker-00000", VICTIM), state.members
    agreed = sharer.own.secrets.sealing.agree(VICTIM, members[VICTIM].sealing)
    key = keys.share_key(agreed, history.sid, route, tuple(members[name].sealing for name in route))
    bound = statements.sealed_for(history, *route)
    plaintext = keys.unseal(key, dict(delivery.ciphertexts)["worker-00000"], bound)
    forged = keys.seal(key, alter_plaintext(plaintext), bound)
    changed = (("worker-00000", forged), *delivery.ciphertexts[1:])
    return party, state, client.receive(state, replace(delivery, ciphertexts=changed))


def point_header(point):
    return lambda plain: statements.share_header("worker-00000", VICTIM, point) + plain[-66:]


MALFORMED = {
    "one byte short": lambda plain: plain[:-1],
    "one byte long": lambda plain: plain + b"\0",
    "no shares": lambda plain: plain[:-66],
    "empty": lambda plain: b"",
    "a megabyte": lambda plain: plain + bytes(1 << 20),
    "not reduced": lambda plain: plain[:-33] + SECRETS.encode(SECRETS.prime - 1)[:-1] + b"\xff",
    "the prime itself": lambda plain: plain[:-33] + SECRETS.prime.to_bytes(33, "big"),
    "all ones": lambda plain: plain[:-66] + b"\xff" * 66,
    "x = 0": point_header(0),
    "x of somebody else": point_header(1),
    "the other direction": lambda plain: statements.share_header(VICTIM, "worker-00000", 3) + plain[-66:],
}


@pytest.mark.parametrize("how", MALFORMED)
def test_a_share_that_decrypts_but_is_malformed(how):
    party, state, step = colluder(MALFORMED[how])
    stops(party, state, step, Reason.MALFORMED_SHARE, f"worker-00000 -> {VICTIM}")


def test_the_colluders_unaltered_share_is_accepted():
    """Show that the cheat above fails for what it alters, and not for how it is made."""
    _, _, step = colluder(lambda plain: plain)
    assert isinstance(step.state, client.Ready)
