"""One honest worker that is told something: what it answers, and that an abort is signed and leaves no secret."""

from __future__ import annotations

import pytest
from parties import cast, until, words_of

from fedpriv.secagg import client, statements
from fedpriv.secagg.messages import Abort
from fedpriv.secagg.reasons import Erased, Reason

ME = "worker-00002"


def refusal(step) -> tuple[Reason, str]:
    """Return reason and subject of the signed abort in `step`, after checking that nothing secret is left."""
    assert isinstance(step.state, client.Aborted)
    assert isinstance(step.message, Abort)
    assert step.state.abort == step.message
    return step.message.reason, step.message.subject


def check_signed(party, name, abort):
    party_key = party.identities[name].private.public_key()
    party_key.verify(abort.signature, statements.aborted(name, abort))


def told(phase, size=5, alter=lambda message, party: message, **options):
    """Tell an honest worker an altered message in `phase`; return its step and the cast."""
    party = cast(size, **options)
    state, message = until(party, words_of(party), phase)[ME]
    step = client.receive(state, alter(message, party))
    if isinstance(step.message, Abort):
        check_signed(party, ME, step.message)
        with pytest.raises(Erased):
            state.own.secrets.held  # noqa: B018 - every use raises
    return step, party


def stops(party, before, step, reason, subject=None):
    """Check that a step is a signed abort for `reason`, and that the state before holds no secret any more."""
    assert isinstance(step.state, client.Aborted), step
    assert step.message.reason is reason
    assert subject is None or step.message.subject == subject
    check_signed(party, ME, step.message)
    erased(before)


def erased(state):
    for secret in ("sealing", "masking", "seed", "held", "inbound", "masks"):
        with pytest.raises(Erased):
            getattr(state.own.secrets, secret)
