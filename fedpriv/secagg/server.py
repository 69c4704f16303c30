"""The coordinator's side of a round, as a state machine: who sent what in, the next state and messages out.

    Advertising -> Sharing -> Masking -> Confirming -> Unmasking -> Complete | Abandoned

`begin` invites, `receive` takes a worker's message, `lost` a worker that went away, `close` ends a phase whose deadline
passed. A phase also ends when everybody it waits for has answered or is gone; below the least number the round is
`Abandoned`, and only a new one, with a new number, can follow. Whatever a worker sends wrongly counts as its loss and
is a `Finding`; a message out of turn raises `OutOfTurn` and changes nothing.

States take messages in place, so each is used once. Masked words are added as they arrive and dropped: memory is the
sum, and the shares. `Unmasking` removes the masks when it ends, which is the one long computation. No IO, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import numpy as np

from fedpriv.errors import UsageError, counted
from fedpriv.ids import WorkerName
from fedpriv.secagg import checks, explaining, rolls, statements
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.keys import check_signature
from fedpriv.secagg.masks import apply_masks
from fedpriv.secagg.messages import (
    Abort,
    Advertise,
    Agreement,
    Confirm,
    Delivery,
    FromWorker,
    Invite,
    Masked,
    Named,
    Shares,
    Survivors,
    Unmask,
)
from fedpriv.secagg.reasons import OutOfTurn, Reason, Refused
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.server_states import (
    Abandoned,
    Advertising,
    Cohort,
    Complete,
    Confirming,
    Finding,
    Masking,
    Round,
    Running,
    Sharing,
    State,
    Turn,
    Unmasking,
)
from fedpriv.secagg.shamir import SECRETS
from fedpriv.secagg.statements import History
from fedpriv.secagg.unmasking import Outlier, Recovery, Roles, masks_to_remove

_AWAITED: dict[type[Running], str] = {
    Advertising: "keys",
    Sharing: "sealed shares",
    Masking: "masked vectors",
    Confirming: "signatures over who is in the sum",
    Unmasking: "shares that take the masks off",
}


def begin(descriptor: Descriptor, roster: Roster, invited: Iterable[WorkerName], terms: Terms) -> Turn:
    """Return the first state and an `Invite` to each of `invited`.

    `terms` are the coordinator's own; a worker's may be stricter. Raises `Refused` for a round that they do not allow,
    `UsageError` where `invited` is not as many workers as the descriptor says.
    """
    names = sorted(set(invited))
    if len(names) != descriptor.workers or descriptor.roster != roster.digest:
        raise UsageError(f"{len(names)} workers for a round of {descriptor.workers}, or another roster than it names")
    for name in names:
        roster.key_of(name)
    checks.check_cohort(descriptor, roster, terms)
    checks.check_threshold(descriptor, roster, terms)
    checks.check_modulus(descriptor)
    state = Advertising(Round(descriptor, roster, terms), History(descriptor.sid), set(names))
    return Turn(state, tuple((name, Invite(descriptor)) for name in names))


def receive(state: State, sender: WorkerName, message: FromWorker) -> Turn:
    """Return the turn after `message`, which the link of `sender` brought; raise `OutOfTurn` if it is not awaited.

    A message that is awaited and wrong loses its sender.
    """
    if isinstance(state, Complete | Abandoned) or message.sid != state.history.sid or sender in state.round.gone:
        raise _out_of_turn(state, sender, message)
    try:
        if isinstance(message, Abort):
            return _hear_abort(state, sender, message)
        if sender not in state.waiting or not _take(state, sender, message):
            raise _out_of_turn(state, sender, message)
    except Refused as refusal:
        return _lose(state, Finding(sender, refusal.reason, str(refusal)))
    state.waiting.discard(sender)
    return _settled(state)


def lost(state: State, worker: WorkerName) -> Turn:
    """Return the turn after the link of `worker` was lost for good."""
    if isinstance(state, Complete | Abandoned) or worker in state.round.gone:
        return Turn(state)
    return _lose(
        state, Finding(worker, None, f"worker {worker!r} went away while {_AWAITED[type(state)]} were awaited")
    )


def close(state: State) -> Turn:
    """Return the turn after the deadline of the phase: on with those who answered, or `Abandoned`."""
    if isinstance(state, Complete | Abandoned):
        return Turn(state)
    for worker in sorted(state.waiting):
        awaited = _AWAITED[type(state)]
        state.round.findings.append(
            Finding(worker, None, f"worker {worker!r} did not answer in time: {awaited} were awaited")
        )
    state.round.gone.update(state.waiting)
    state.waiting.clear()
    return _settled(state)


def _take(state: Running, sender: WorkerName, message: FromWorker) -> bool:
    """Keep an answer that verifies and return True; False where `state` awaits another kind of message.

    Raises `Refused` for one that is wrong.
    """
    match state:
        case Advertising() if isinstance(message, Advertise):
            _take_keys(state, sender, message)
        case Sharing() if isinstance(message, Shares):
            _take_shares(state, sender, message)
        case Masking() if isinstance(message, Masked):
            _take_words(state, sender, message)
        case Confirming() if isinstance(message, Confirm):
            _check(state, sender, message.signature, statements.confirmed(state.history, sender))
            state.answers[sender] = message.signature
        case Unmasking() if isinstance(message, Unmask):
            _take_unmasking(state, sender, message)
    return sender in state.answers


def _take_keys(state: Advertising, sender: WorkerName, message: Advertise) -> None:
    if message.worker != sender:
        text = f"{sender!r} sent the keys of {message.worker!r}; a worker speaks for itself alone"
        raise Refused(Reason.MALFORMED_MESSAGE, text, subject=sender)
    checks.check_advertisement(message, state.history.sid, state.round.roster)
    given = {message.sealing, message.masking}
    if len(given) < 2 or not state.keys.isdisjoint(given):
        raise Refused(
            Reason.DUPLICATE_KEY, f"{sender!r} sent a key that is there already; it was copied", subject=sender
        )
    state.keys.update(given)
    state.answers[sender] = message


def _take_shares(state: Sharing, sender: WorkerName, message: Shares) -> None:
    graph = state.cohort.graph
    _check(state, sender, message.signature, statements.shared(state.history, sender, message.ciphertexts))
    sealed, neighbours = dict(message.ciphertexts), graph.neighbours(sender)
    shortest = statements.shortest_ciphertext(sender)
    sizes = [shortest + len(peer) for peer in neighbours]
    if len(message.ciphertexts) != len(neighbours) or [len(sealed.get(peer, b"")) for peer in neighbours] != sizes:
        text = (
            f"{sender!r} sent {len(message.ciphertexts)} sealed shares; one of the right size to each neighbour is due"
        )
        raise Refused(Reason.WRONG_CIPHERTEXTS, text, subject=sender)
    state.answers[sender] = sealed


def _take_words(state: Masking, sender: WorkerName, message: Masked) -> None:
    words = message.words
    if words.dtype != state.total.dtype or words.shape != state.total.shape:
        text = f"{sender!r} sent words of {words.dtype} {words.shape}; {state.total.dtype} {state.total.shape} are due"
        raise Refused(Reason.MALFORMED_MESSAGE, text, subject=sender)
    _check(state, sender, message.signature, statements.masked(state.history, sender, words))
    np.add(state.total, words, out=state.total)
    state.answers.add(sender)


def _take_unmasking(state: Unmasking, sender: WorkerName, message: Unmask) -> None:
    statement = statements.unmasked(state.history, sender, message.self_shares, message.key_shares)
    _check(state, sender, message.signature, statement)
    related = state.roles.graph.holders(sender)
    due = tuple([each for each in related if each in shares] for shares in (state.self_shares, state.key_shares))
    if (sorted(name for name, _ in message.self_shares), sorted(name for name, _ in message.key_shares)) != due:
        text = f"{sender!r} sent shares of others than it holds; one of each survivor and of each lost worker is due"
        raise Refused(Reason.MALFORMED_SHARE, text, subject=sender)
    try:
        SECRETS.check(*(share for _, share in (*message.self_shares, *message.key_shares)))
    except UsageError:
        raise Refused(Reason.MALFORMED_SHARE, f"a share from {sender!r} is no share", subject=sender) from None
    for name, share in message.self_shares:
        state.self_shares[name][sender] = share
    for name, share in message.key_shares:
        state.key_shares[name][sender] = share
    state.answers.add(sender)


def _hear_abort(state: Running, sender: WorkerName, abort: Abort) -> Turn:
    if sender not in state.round.roster.keys:
        raise _out_of_turn(state, sender, abort)
    _check(state, sender, abort.signature, statements.aborted(sender, abort))
    text = explaining.stopped(sender, abort, state.round.descriptor, state.round.roster)
    return _lose(state, Finding(sender, abort.reason, text, abort))


def _check(state: Running, signer: WorkerName, signature: bytes, statement: bytes) -> None:
    check_signature(signer, state.round.roster.key_of(signer), signature, statement)


def _lose(state: Running, finding: Finding) -> Turn:
    state.round.findings.append(finding)
    state.round.gone.add(finding.worker)
    if finding.worker not in state.waiting:
        return Turn(state)  # it had answered; what it sent stands, and nobody waits for it any more
    state.waiting.discard(finding.worker)
    return _settled(state)


def _settled(state: Running) -> Turn:  # noqa: PLR0911 - one for each state
    """Go on to the next phase when nobody is waited for."""
    if state.waiting:
        return Turn(state)
    try:
        match state:
            case Advertising():
                return _call_roll(state)
            case Sharing():
                return _deliver(state)
            case Masking():
                return _tell_survivors(state)
            case Confirming():
                return _show_agreement(state)
        return _unmask(state)
    except Refused as refusal:
        if refusal.reason is Reason.INCONSISTENT_SHARES:
            state.round.findings.append(Finding(WorkerName(refusal.subject), refusal.reason, str(refusal)))
        return Turn(Abandoned(state.round, refusal.reason, str(refusal)))


def _call_roll(state: Advertising) -> Turn:
    descriptor = state.round.descriptor
    members = {name: state.answers[name] for name in sorted(state.answers) if name not in state.round.gone}
    checks.check_size(len(members), descriptor)
    checks.check_graph(descriptor, len(members), state.round.roster, state.round.terms)
    history, graph, called = rolls.calls(state.history, descriptor, members)
    return Turn(Sharing(state.round, history, set(members), Cohort(members, graph)), tuple(called))


def _deliver(state: Sharing) -> Turn:
    descriptor, answers = state.round.descriptor, state.answers
    sharers = tuple(name for name in sorted(answers) if name not in state.round.gone)
    checks.check_size(len(sharers), descriptor)
    history = replace(state.history, h2=statements.sharers_hash(state.history, sharers))
    sealed: dict[WorkerName, list[tuple[WorkerName, bytes]]] = {name: [] for name in sharers}
    for sender in sharers:
        for recipient, ciphertext in answers[sender].items():
            if recipient in sealed:
                sealed[recipient].append((sender, ciphertext))
    total = descriptor.ring.zeros(descriptor.vector.length)
    after = Masking(state.round, history, set(sharers), state.cohort, sharers, total)
    return Turn(after, tuple((name, Delivery(descriptor.sid, sharers, tuple(each))) for name, each in sealed.items()))


def _tell_survivors(state: Masking) -> Turn:
    descriptor = state.round.descriptor
    survivors = tuple(sorted(state.answers))
    checks.check_size(len(survivors), descriptor)
    history = replace(state.history, h3=statements.survivors_hash(state.history, survivors))
    waiting = set(survivors) - state.round.gone
    after = Confirming(state.round, history, waiting, state.cohort, state.sharers, survivors, state.total)
    return _sent(after, tuple((name, Survivors(descriptor.sid, survivors)) for name in sorted(waiting)))


def _show_agreement(state: Confirming) -> Turn:
    descriptor, graph = state.round.descriptor, state.cohort.graph
    _check_enough(len(state.answers), descriptor)
    outgoing = []
    waiting = sorted(set(state.answers) - state.round.gone)
    for name in waiting:
        peers = (peer for peer in graph.holders(name) if peer in state.answers and peer != name)
        signed: Named = tuple((peer, state.answers[peer]) for peer in islice(peers, descriptor.threshold))
        outgoing.append((name, Agreement(descriptor.sid, signed)))
    survivors = set(state.survivors)
    lost_ones = tuple(name for name in state.sharers if name not in survivors)
    roles = Roles(descriptor.sid, state.cohort.members, state.survivors, lost_ones, graph)
    self_shares: dict[WorkerName, dict[WorkerName, bytes]] = {name: {} for name in state.survivors}
    key_shares: dict[WorkerName, dict[WorkerName, bytes]] = {name: {} for name in lost_ones}
    after = Unmasking(state.round, state.history, set(waiting), roles, state.total, self_shares, key_shares)
    return _sent(after, tuple(outgoing))


def _unmask(state: Unmasking) -> Turn:
    descriptor = state.round.descriptor
    _check_enough(len(state.answers), descriptor)
    recovery = Recovery(descriptor.threshold, state.roles.graph.points)
    apply_masks(state.total, masks_to_remove(state.roles, recovery, state.self_shares, state.key_shares))
    state.round.findings.extend(_misfit(each) for each in recovery.outliers)
    return Turn(Complete(state.round, tuple(state.roles.survivors), state.total))


def _misfit(outlier: Outlier) -> Finding:
    sender, holder = outlier.sender, outlier.holder
    text = f"a share of {sender!r}, held by {holder!r}, did not fit the others: one of the two made it wrong"
    return Finding(sender, Reason.INCONSISTENT_SHARES, text, holder=holder)


def _sent(state: Running, outgoing: tuple[tuple[WorkerName, Survivors | Agreement], ...]) -> Turn:
    """Return the turn into `state`, which may wait for nobody because all of its workers are gone."""
    return Turn(state, outgoing) if state.waiting else _settled(state)


def _check_enough(count: int, descriptor: Descriptor) -> None:
    if count < descriptor.threshold:
        answered = f"{counted(count, 'worker')} answered of {descriptor.workers}"
        text = f"{answered}, and {descriptor.threshold} are needed to take the masks off"
        raise Refused(Reason.TOO_FEW_MEMBERS, text)


def _out_of_turn(state: State, sender: WorkerName, message: FromWorker) -> OutOfTurn:
    return OutOfTurn(
        f"a {type(message).__name__} of {sender!r} is not awaited while {type(state).__name__.lower()}, or is of "
        "another session; it was dropped"
    )
