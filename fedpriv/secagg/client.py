"""The worker's side of a round, as a state machine: a message in, the next state and one message out.

    Advertised -Roll-> Shared -Delivery-> Ready -words-> Submitted -Survivors-> Confirmed -Agreement-> Finished

`begin` makes the first state, `receive` the next ones, `submit` the one that needs the worker's own words; each returns
a `Step` whose message is to be sent. A check that fails makes the step (Aborted, Abort) and erases the secrets; a
message out of turn raises `OutOfTurn` and changes nothing. A state is used once: what shares are shown for must not
branch. Before `begin` the caller has decided that roster and plan are allowed, reserved the budget, and made the number
of the round durable; before it sends the `Unmask` it has made the ledger entry durable. No IO, no clock.

Bonawitz et al. 2017, active-adversary variant; Bell et al. 2020 for the Harary graph. The checks are A.3's (`checks`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from fedpriv.entropy import Entropy
from fedpriv.errors import UsageError
from fedpriv.ids import WorkerName
from fedpriv.secagg import checks, rolls, sharing, statements
from fedpriv.secagg.checks import Expectation, Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import Neighbourhood
from fedpriv.secagg.keys import Identity
from fedpriv.secagg.masks import apply_masks
from fedpriv.secagg.messages import (
    Abort,
    Advertise,
    Agreement,
    Confirm,
    Delivery,
    FromCoordinator,
    FromWorker,
    Invite,
    Masked,
    Named,
    Roll,
    Shares,
    Survivors,
    Unmask,
)
from fedpriv.secagg.reasons import OutOfTurn, Reason, Refused
from fedpriv.secagg.ring import Words
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.sharing import RoundSecrets
from fedpriv.secagg.statements import History


@dataclass(frozen=True, slots=True)
class Own:
    """Who this worker is in the round, and what it holds; the same object in every state of it."""

    name: WorkerName
    identity: Identity
    descriptor: Descriptor
    roster: Roster
    terms: Terms
    entropy: Entropy = field(repr=False)
    secrets: RoundSecrets = field(repr=False)


@dataclass(frozen=True, slots=True)
class Advertised:
    """Keys are out; the roll of everybody's is awaited."""

    own: Own
    advertisement: Advertise


@dataclass(frozen=True, slots=True)
class Shared:
    """Shares are out; those of the neighbours are awaited. `everybody` is U1, `members` has the neighbours' keys."""

    own: Own
    history: History
    everybody: tuple[WorkerName, ...]
    members: Mapping[WorkerName, Advertise]
    around: Neighbourhood = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ready:
    """Shares are in and masks are known; the worker's own words are awaited. `sharers` is U2."""

    own: Own
    history: History
    sharers: tuple[WorkerName, ...]
    around: Neighbourhood = field(repr=False)


@dataclass(frozen=True, slots=True)
class Submitted:
    """Masked words are out, own secrets erased; who survived is awaited."""

    own: Own
    history: History
    sharers: tuple[WorkerName, ...]
    around: Neighbourhood = field(repr=False)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """U3 is signed; signatures of the others are awaited."""

    own: Own
    history: History
    sharers: tuple[WorkerName, ...]
    survivors: tuple[WorkerName, ...]
    around: Neighbourhood = field(repr=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """Shares were shown, once; secrets are erased."""

    sid: bytes


@dataclass(frozen=True, slots=True)
class Aborted:
    """A check failed, or the worker withdrew; secrets are erased. `explanation` is for the owner's own records."""

    sid: bytes
    abort: Abort
    explanation: str


State: TypeAlias = Advertised | Shared | Ready | Submitted | Confirmed | Finished | Aborted
Running: TypeAlias = Advertised | Shared | Ready | Submitted | Confirmed


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event, and what to send; nothing after a `Delivery`, when `submit` is due."""

    state: State
    message: FromWorker | None


def begin(
    invite: Invite,
    expected: Expectation,
    *,
    name: WorkerName,
    identity: Identity,
    terms: Terms,
    entropy: Entropy,
) -> Step:
    """Return (Advertised, Advertise) for a round that the worker accepts, (Aborted, Abort) for another."""
    descriptor = invite.descriptor
    own = Own(name, identity, descriptor, expected.roster, terms, entropy, RoundSecrets.fresh(entropy))
    try:
        checks.check_descriptor(descriptor, expected)
        checks.check_round(descriptor, terms)
        checks.check_cohort(descriptor, expected.roster, terms)
        checks.check_threshold(descriptor, expected.roster, terms)
        checks.check_modulus(descriptor)
        checks.check_own_key(expected.roster, name, identity.public)
    except Refused as refusal:
        return _aborted(own, 0, refusal)
    committed = statements.commitment(descriptor.sid, name, own.secrets.seed)
    publics = own.secrets.sealing.public, own.secrets.masking.public
    signature = identity.sign(statements.advertised(descriptor.sid, name, *publics, committed))
    advertisement = Advertise(descriptor.sid, name, *publics, committed, signature)
    return Step(Advertised(own, advertisement), advertisement)


def receive(state: State, message: FromCoordinator) -> Step:
    """Return the step after `message`; raise `OutOfTurn`, with nothing changed, if `state` does not await it."""
    if isinstance(state, Finished | Aborted) or message.sid != state.own.descriptor.sid:
        raise _out_of_turn(state, message)
    try:
        match state:
            case Advertised() if isinstance(message, Roll):
                return _share(state, message)
            case Shared() if isinstance(message, Delivery):
                return _open(state, message)
            case Submitted() if isinstance(message, Survivors):
                return _confirm(state, message)
            case Confirmed() if isinstance(message, Agreement):
                return _unmask(state, message)
    except Refused as refusal:
        return _aborted(state.own, _round_of(state), refusal)
    raise _out_of_turn(state, message)


def submit(state: Ready, words: Words) -> Step:
    """Return (Submitted, Masked) for the worker's own words, shape (d,), as `VectorSpec.encode` makes them.

    They are left as they are. Raises `UsageError` for words of another length or ring.
    """
    own, descriptor = state.own, state.own.descriptor
    if words.dtype != descriptor.ring.dtype or words.shape != (descriptor.vector.length,):
        raise UsageError(
            f"words of {words.dtype} {words.shape}; the round has {descriptor.vector.length} of {descriptor.ring.dtype}"
        )
    masked = words.copy()
    apply_masks(masked, own.secrets.masks)
    own.secrets.erase_own()
    signature = own.identity.sign(statements.masked(state.history, own.name, masked))
    after = Submitted(own, state.history, state.sharers, state.around)
    return Step(after, Masked(descriptor.sid, masked, signature))


def withdraw(state: Running, explanation: str) -> Step:
    """Return (Aborted, Abort) because the worker itself cannot go on; `explanation` stays with it."""
    return _aborted(state.own, _round_of(state), Refused(Reason.WITHDRAWN, explanation))


def _share(state: Advertised, roll: Roll) -> Step:
    own, descriptor = state.own, state.own.descriptor
    history, everybody, around, members = rolls.read(roll, descriptor, state.advertisement, own.roster, own.terms)
    ciphertexts = tuple(
        sharing.share_out(
            own.secrets, history, around, members, me=own.name, threshold=descriptor.threshold, entropy=own.entropy
        )
    )
    signature = own.identity.sign(statements.shared(history, own.name, ciphertexts))
    return Step(Shared(own, history, everybody, members, around), Shares(descriptor.sid, ciphertexts, signature))


def _open(state: Shared, delivery: Delivery) -> Step:
    own, descriptor = state.own, state.own.descriptor
    checks.check_size(len(delivery.members), descriptor)
    checks.check_subset(delivery.members, state.everybody, own.name, "those whose shares arrived")
    arrived = set(delivery.members)
    peers = [each for each in state.around.neighbours if each in arrived]
    if sorted(sender for sender, _ in delivery.ciphertexts) != peers:
        message = f"{len(delivery.ciphertexts)} sealed shares came; one from each of {len(peers)} neighbours is due"
        raise Refused(Reason.WRONG_CIPHERTEXTS, message)
    point = state.around.points[own.name]
    for sender, ciphertext in delivery.ciphertexts:
        key = own.secrets.inbound[sender]
        own.secrets.held[sender] = sharing.open_shares(key, ciphertext, state.history, sender, own.name, point)
    sharing.derive_masks(own.secrets, descriptor.sid, {peer: state.members[peer] for peer in peers}, own.name)
    history = replace(state.history, h2=statements.sharers_hash(state.history, delivery.members))
    return Step(Ready(own, history, delivery.members, state.around), None)


def _confirm(state: Submitted, survivors: Survivors) -> Step:
    own = state.own
    checks.check_size(len(survivors.members), own.descriptor)
    checks.check_subset(survivors.members, state.sharers, own.name, "those whose masked words arrived")
    history = replace(state.history, h3=statements.survivors_hash(state.history, survivors.members))
    signature = own.identity.sign(statements.confirmed(history, own.name))
    after = Confirmed(own, history, state.sharers, survivors.members, state.around)
    return Step(after, Confirm(own.descriptor.sid, signature))


def _unmask(state: Confirmed, agreement: Agreement) -> Step:
    own, descriptor = state.own, state.own.descriptor
    survivors, related = set(state.survivors), state.around.holders
    checks.check_agreement(
        agreement.signatures,
        survivors.intersection(related),
        state.history,
        own.roster.key_of,
        own=own.name,
        threshold=descriptor.threshold,
    )
    held, lost = own.secrets.held, set(state.sharers) - survivors
    self_shares: Named = tuple((peer, held[peer].of_seed) for peer in related if peer in survivors)
    key_shares: Named = tuple((peer, held[peer].of_key) for peer in related if peer in lost)
    signature = own.identity.sign(statements.unmasked(state.history, own.name, self_shares, key_shares))
    own.secrets.erase()
    return Step(Finished(descriptor.sid), Unmask(descriptor.sid, self_shares, key_shares, signature))


def _aborted(own: Own, number: int, refusal: Refused) -> Step:
    """Erase every secret and return the signed reason."""
    own.secrets.erase()
    sid = own.descriptor.sid
    unsigned = Abort(sid, number, refusal.reason, refusal.subject, b"")
    abort = replace(unsigned, signature=own.identity.sign(statements.aborted(own.name, unsigned)))
    return Step(Aborted(sid, abort, str(refusal)), abort)


def _round_of(state: Running) -> int:
    """Return the round of messages that the worker would send next."""
    return _ROUNDS[type(state)]


_ROUNDS: Mapping[type[Running], int] = {Advertised: 1, Shared: 2, Ready: 2, Submitted: 3, Confirmed: 4}


def _out_of_turn(state: State, message: FromCoordinator) -> OutOfTurn:
    return OutOfTurn(
        f"a {type(message).__name__} came while this worker was {type(state).__name__.lower()}, or of another session; "
        "it was dropped"
    )
