"""What a worker checks before it says the next thing: one function for each line of the table A.3.

Each raises `Refused` with the reason that the worker signs when it aborts. None needs a secret; the shares' own checks
are in `sharing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fedpriv.errors import counted
from fedpriv.ids import WorkerName
from fedpriv.secagg import harary, statements
from fedpriv.secagg.descriptor import PROTOCOL, Descriptor
from fedpriv.secagg.explaining import ROSTER_VERSION
from fedpriv.secagg.graph import GraphKind
from fedpriv.secagg.keys import check_agreement_key, check_signature, key_text
from fedpriv.secagg.messages import Advertise, Named
from fedpriv.secagg.reasons import Reason, Refused
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.statements import History
from fedpriv.secagg.thresholds import DEFAULT_COLLUDING, HONEST, LEAST_WORKERS, colluding, least_threshold
from fedpriv.secagg.vector import VectorSpec


@dataclass(frozen=True, slots=True)
class Terms:
    """What the owner insists on; a coordinator can ask for more, never for less.

    `colluding` is the share of all workers on the roster that may work together with the coordinator, which may invite
    all of them and few others. `last_round` is the highest
    round of this federation that the worker ever began, durable before its first message; -1 if there was none.
    """

    minimum_cohort: int = LEAST_WORKERS
    colluding: Fraction = DEFAULT_COLLUDING
    last_round: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the worker knows of the round by itself: from its order, the model that it received, and its rules."""

    roster: Roster
    round: int
    model: bytes
    plan: bytes
    vector: VectorSpec
    privacy: str = ""


def check_descriptor(descriptor: Descriptor, expected: Expectation) -> None:
    """Refuse a descriptor that is about something else; name the first field that differs."""
    mine = {
        "protocol": PROTOCOL,
        "federation": expected.roster.federation,
        "roster": expected.roster.digest,
        "round": expected.round,
        "model": expected.model,
        "plan": expected.plan,
        "vector": expected.vector,
        "privacy": expected.privacy,
    }
    for name, value in mine.items():
        if getattr(descriptor, name) != value:
            version = expected.roster.version if name == "roster" else None
            which = "" if version is None else f" (version {version})"
            message = (
                f"the coordinator's {name} of round {descriptor.round} is not what this worker has{which}; "
                "both sides need the same federation, roster, model and plan"
            )
            subject = name if version is None else f"{ROSTER_VERSION}{version}"
            raise Refused(Reason.DESCRIPTOR_DIFFERS, message, subject=subject)


def check_round(descriptor: Descriptor, terms: Terms) -> None:
    """Refuse a round that is not newer than all before: the same again without one worker would single it out."""
    if descriptor.round <= terms.last_round:
        message = (
            f"round {descriptor.round} is not after round {terms.last_round}, which this worker began already; "
            "a retry is a new round"
        )
        raise Refused(Reason.ROUND_NOT_NEW, message, subject="round")


def check_cohort(descriptor: Descriptor, roster: Roster, terms: Terms) -> None:
    """Refuse a cohort in which this worker could not hide.

    That is: fewer than three or than the owner's minimum, fewer than two besides those who may collude, a minimum below
    either, and a minimum that the round cannot reach.
    """
    hostile, owner = colluding(len(roster.keys), terms.colluding), max(LEAST_WORKERS, terms.minimum_cohort)
    least = max(owner, hostile + HONEST)
    reachable = owner <= descriptor.minimum_cohort <= descriptor.workers <= len(roster.keys)
    if not reachable or min(descriptor.workers, descriptor.least) < least:
        message = (
            f"{descriptor.workers} of {len(roster.keys)} workers on the roster are invited; with a minimum of "
            f"{descriptor.minimum_cohort}, {descriptor.least} have to be in the sum; this worker hides among {least} "
            f"or more, as {hostile} may collude"
        )
        raise Refused(Reason.COHORT_TOO_SMALL, message, subject="minimum_cohort")


def check_threshold(descriptor: Descriptor, roster: Roster, terms: Terms) -> None:
    """Refuse a threshold at which two stories about who is alive could both be believed; A.2."""
    hostile = colluding(len(roster.keys), terms.colluding)
    if descriptor.graph.kind is GraphKind.HARARY:
        check_graph(descriptor, descriptor.workers, roster, terms)
        return
    least = least_threshold(descriptor.workers, hostile)
    if not least <= descriptor.threshold <= descriptor.workers:
        message = (
            f"threshold {descriptor.threshold} of {descriptor.workers} workers; "
            f"this worker accepts {least} to {descriptor.workers}, as {hostile} of {len(roster.keys)} on the roster "
            f"may collude; the job needs colluding = {float(terms.colluding):g}, or its owner a smaller share"
        )
        raise Refused(Reason.THRESHOLD_TOO_LOW, message, subject="threshold")


def check_graph(descriptor: Descriptor, members: int, roster: Roster, terms: Terms) -> None:
    """Refuse a Harary graph over `members` that is too thin for the owner's colluding share, at 2**-80."""
    spec, invited = descriptor.graph, descriptor.workers
    if spec.kind is GraphKind.COMPLETE:
        return
    population = spec.population(invited, members, math.floor(terms.colluding * len(roster.keys)))
    if spec.degree > members - 2 or not harary.connected(population, spec.degree):
        message = (
            f"degree {spec.degree} does not keep {members} workers connected when {population.hostile} are hostile "
            f"and {population.lost} lost; {_degrees(population)}, which takes colluding = {float(terms.colluding):g} "
            "in the job, or the complete graph"
        )
        raise Refused(Reason.GRAPH_TOO_THIN, message, subject="graph")
    least = harary.least_safe_threshold(population, spec.degree)
    if not least <= descriptor.threshold <= spec.degree:
        message = (
            f"threshold {descriptor.threshold} of {spec.degree} neighbours; "
            f"this worker accepts {least} to {spec.degree}, as {population.hostile} of {members} may be hostile; the "
            f"job needs colluding = {float(terms.colluding):g}, or its owner a smaller share"
        )
        raise Refused(Reason.THRESHOLD_TOO_LOW, message, subject="threshold")


def _degrees(population: harary.Population) -> str:
    """Return which degrees would keep `population` connected, in words."""
    degrees = range(2, population.workers - 1, 2)
    least = next((each for each in degrees if harary.connected(population, each)), None)
    return "none does among so few" if least is None else f"this worker accepts {least} or more"


def check_modulus(descriptor: Descriptor) -> None:
    """Refuse a ring in which the sum of n workers could wrap; A.5."""
    needed = descriptor.vector.bits_needed(descriptor.workers)
    if descriptor.modulus_bits < needed:
        message = f"sums of {descriptor.workers} workers need {needed} bits, the modulus has {descriptor.modulus_bits}"
        raise Refused(Reason.MODULUS_TOO_SMALL, message, subject="modulus_bits")


def check_own_key(roster: Roster, me: WorkerName, public: bytes) -> None:
    """Refuse when this worker is not on the roster, or with another key."""
    listed = roster.key_of(me)
    if listed != public:
        message = (
            f"the roster has the key {key_text(listed)} for {me!r}, and this worker holds {key_text(public)}; have "
            "the administrator sign a roster with this one"
        )
        raise Refused(Reason.NOT_ON_ROSTER, message, subject=me)


def check_size(count: int, descriptor: Descriptor) -> None:
    """Refuse to go on with fewer workers than the larger of the threshold and the minimum cohort."""
    if count < descriptor.least:
        message = (
            f"{counted(count, 'worker')} left of {descriptor.workers}, and {descriptor.least} are needed in the sum"
        )
        raise Refused(Reason.TOO_FEW_MEMBERS, message)


def check_members(members: Sequence[WorkerName], descriptor: Descriptor, roster: Roster) -> None:
    """Refuse U1 where it is too small, larger than was said, names a worker twice, or one that is not on the roster."""
    check_size(len(members), descriptor)
    if len(members) > descriptor.workers:
        message = (
            f"{len(members)} workers came, {descriptor.workers} were announced; the threshold holds for those only"
        )
        raise Refused(Reason.TOO_MANY_MEMBERS, message)
    check_distinct(members, "worker {!r} is listed twice")
    if strangers := sorted(set(members) - roster.keys.keys()):
        roster.key_of(strangers[0])


def check_keys(members: Sequence[Advertise]) -> None:
    """Refuse entries of which two are of one worker, or have a key in common."""
    check_distinct([each.worker for each in members], "the keys of {!r} are listed twice")
    keys: dict[bytes, WorkerName] = {}
    for each in members:
        for key in (each.sealing, each.masking):
            if key in keys:
                message = f"workers {keys[key]!r} and {each.worker!r} have the same key; one of them copied it"
                raise Refused(Reason.DUPLICATE_KEY, message, subject=each.worker)
            keys[key] = each.worker


def check_advertisement(each: Advertise, sid: bytes, roster: Roster) -> None:
    """Refuse keys that are not those of a worker on the roster, signed by it for this session."""
    statement = statements.advertised(sid, each.worker, each.sealing, each.masking, each.commitment)
    check_signature(each.worker, roster.key_of(each.worker), each.signature, statement)
    for key in (each.sealing, each.masking):
        check_agreement_key(each.worker, key)


def check_own_entry(members: Mapping[WorkerName, Advertise], own: Advertise) -> None:
    """Refuse U1 without this worker, or with another entry for it than it sent."""
    if own.worker not in members:
        raise Refused(Reason.LEFT_OUT, "this worker advertised, but is not among those who did", subject=own.worker)
    if members[own.worker] != own:
        message = "this worker's own keys came back changed; whoever passed them on altered them"
        raise Refused(Reason.OWN_ENTRY_CHANGED, message, subject=own.worker)


def check_subset(members: Sequence[WorkerName], of: Iterable[WorkerName], me: WorkerName, what: str) -> None:
    """Refuse a later set that is not part of the earlier one, repeats a worker, or leaves this one out."""
    check_distinct(members, "worker {!r} is listed twice")
    strangers = sorted(set(members).difference(of))
    if strangers:
        message = f"worker {strangers[0]!r} is among {what}, but was not there before; nobody can join later"
        raise Refused(Reason.NOT_A_SUBSET, message, subject=strangers[0])
    if me not in members:
        raise Refused(Reason.LEFT_OUT, f"this worker is not among {what}, though it sent all it had to", subject=me)


def check_agreement(
    signatures: Named,
    signers: Iterable[WorkerName],
    history: History,
    key_of: Callable[[WorkerName], bytes],
    *,
    own: WorkerName,
    threshold: int,
) -> None:
    """Refuse to unmask unless `threshold` of `signers` signed the identical U3; stops at enough.

    `signers` are the survivors who hold shares of this worker. Its own signature counts where it is one of them.
    """
    check_distinct([signer for signer, _ in signatures], "the signature of {!r} is listed twice")
    allowed = set(signers)
    valid = int(own in allowed)
    for signer, signature in signatures:
        if valid >= threshold:
            return
        if signer in allowed and signer != own:
            try:
                check_signature(signer, key_of(signer), signature, statements.confirmed(history, signer))
            except Refused:
                continue  # a worker may have signed nonsense; what counts is how many signed this
            valid += 1
    if valid < threshold:
        signed = f"{counted(valid, 'worker')} signed the same survivors"
        message = f"{signed}, {threshold} have to; the coordinator may have told others"
        raise Refused(Reason.NOT_AGREED, message)


def check_distinct(workers: Sequence[WorkerName], message: str) -> None:
    """Refuse a list that names a worker twice."""
    if len(set(workers)) == len(workers):
        return
    seen: set[WorkerName] = set()
    for worker in workers:
        if worker in seen:
            raise Refused(Reason.DUPLICATE_MEMBER, message.format(worker), subject=worker)
        seen.add(worker)
