"""Whole rounds without a network: honest workers and an honest coordinator, and room for one that cheats.

A `Cast` makes identities, a roster and a descriptor; `play` lets messages travel in memory, drops workers where told,
and keeps everything that the coordinator received. A cheat is a function that may change what a worker is told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedpriv.entropy import Entropy, SeededEntropy
from fedpriv.secagg import client, harary, server
from fedpriv.secagg.checks import Expectation, Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import GraphKind, GraphSpec
from fedpriv.secagg.keys import Identity
from fedpriv.secagg.messages import Invite
from fedpriv.secagg.ring import ring_for
from fedpriv.secagg.roster import Member, Roster
from fedpriv.secagg.server_states import Complete
from fedpriv.secagg.thresholds import colluding, least_threshold
from fedpriv.secagg.vector import Part, Treatment, VectorSpec

LOST = Fraction(1, 20)
PHASES = ("advertise", "share", "mask", "confirm", "unmask")
PLAIN = VectorSpec((Part("update", (7,), 1.0, 16, Treatment.UNWEIGHTED),))


def identity(seed: str) -> Identity:
    return Identity(Ed25519PrivateKey.from_private_bytes(SeededEntropy(seed.encode()).random_bytes(32)))


@dataclass
class Cast:
    """The workers of one round, what they were told, and what they hold."""

    names: list[str]
    identities: dict[str, Identity]
    roster: Roster
    descriptor: Descriptor
    terms: Terms
    entropy: Entropy = field(repr=False)

    @property
    def expected(self) -> Expectation:
        d = self.descriptor
        return Expectation(
            roster=self.roster, round=d.round, model=d.model, plan=d.plan, vector=d.vector, privacy=d.privacy
        )

    def begin(self, name: str, **changes) -> client.Step:
        """Begin a round at a worker that expects what `changes` of the descriptor do not say."""
        invite = Invite(replace(self.descriptor, **changes))
        return client.begin(
            invite, self.expected, name=name, identity=self.identities[name], terms=self.terms, entropy=self.entropy
        )

    def serve(self) -> server.Turn:
        return server.begin(self.descriptor, self.roster, self.names, self.terms)


def cast(
    size: int, vector: VectorSpec = PLAIN, *, graph: str = "complete", number: int = 1, seed: str = "cast"
) -> Cast:
    names = [f"worker-{at:05d}" for at in range(size)]
    identities = {name: identity(f"{seed}/{name}") for name in names}
    roster = Roster("clinics", 1, tuple(Member(name, identities[name].public) for name in names))
    spec, threshold, terms = GraphSpec(), least_threshold(size, colluding(size)), Terms()
    if graph == "harary":
        terms = Terms(colluding=Fraction(1, 20))
        population = harary.Population.of(size, terms.colluding, LOST)
        choice = harary.search(population)
        spec, threshold = GraphSpec(GraphKind.HARARY, choice.degree, population.lost), choice.threshold
    descriptor = Descriptor(
        federation="clinics",
        roster=roster.digest,
        round=number,
        model=b"m" * 32,
        plan=b"p" * 32,
        vector=vector,
        modulus_bits=ring_for(vector.bits_needed(size)).bits,
        workers=size,
        threshold=threshold,
        minimum_cohort=3,
        graph=spec,
        deadlines_seconds=(30.0,) * 5,
    )
    return Cast(names, identities, roster, descriptor, terms, SeededEntropy(seed.encode()))


Alter = Callable[[str, object], object]
"""(worker, message) -> the message that is delivered instead, or None to lose it."""


@dataclass
class Played:
    """What came of a round: the coordinator's last state, each worker's, and all that the coordinator received."""

    state: object
    workers: dict[str, client.State]
    received: list[tuple[str, object]]

    @property
    def aborts(self) -> dict[str, client.Aborted]:
        return {name: state for name, state in self.workers.items() if isinstance(state, client.Aborted)}


def words_of(cast: Cast, seed: int = 0) -> dict[str, np.ndarray]:
    """Return words of each worker as its vector might have them, drawn within the bound; the same for the same seed."""
    random, spec = np.random.default_rng(seed), cast.descriptor.vector
    drawn = {}
    for name in cast.names:
        values = {part.name: (random.uniform(-1, 1, part.shape) * part.bound).astype(part.dtype) for part in spec.parts}
        weight = int(random.integers(0, spec.maximum_weight + 1)) if spec.maximum_weight > 1 else 1
        rounding = SeededEntropy(f"rounding/{seed}/{name}".encode())
        drawn[name] = spec.encode(values, weight=weight, ring=cast.descriptor.ring, entropy=rounding)
    return drawn


def play(
    cast: Cast,
    words: Mapping[str, np.ndarray],
    *,
    drops: Mapping[str, str] | None = None,
    down: Alter = lambda worker, message: message,
    up: Alter = lambda worker, message: message,
    before: dict | None = None,
    after: dict | None = None,
) -> Played:
    """Play a round; `drops` says in which phase a worker is gone before it answers.

    `before` and `after` receive each worker's state before and after its last answer, for cheats that sign anew.
    """
    drops, received = drops or {}, []
    states, earlier = {} if after is None else after, {} if before is None else before
    turn = cast.serve()
    for phase in PHASES:
        told, state, outgoing = dict(turn.outgoing), turn.state, ()
        for name in sorted(told):
            if name in drops and PHASES.index(drops[name]) <= PHASES.index(phase):
                turn = server.lost(state, name)
            else:
                earlier[name] = states.get(name)
                answer = up(name, _answer(cast, states, name, down(name, told[name]), words))
                if answer is None:
                    turn = server.lost(state, name)
                else:
                    received.append((name, answer))
                    turn = server.receive(state, name, answer)
            state, outgoing = turn.state, turn.outgoing or outgoing
        turn = server.Turn(state, outgoing)
    return Played(turn.state, states, received)


def until(cast: Cast, words, phase: str, *, drops=None) -> dict[str, tuple[client.State, object]]:
    """Return, for each worker that is told something in `phase`, its state before and the honest message."""
    drops, states, turn = drops or {}, {}, cast.serve()
    for each in PHASES:
        told, outgoing = dict(turn.outgoing), ()
        if each == phase:
            return {name: (states.get(name), message) for name, message in told.items()}
        for name in sorted(told):
            if drops.get(name) == each:
                turn = server.lost(turn.state, name)
            else:
                turn = server.receive(turn.state, name, _answer(cast, states, name, told[name], words))
            outgoing = turn.outgoing or outgoing
        turn = server.Turn(turn.state, outgoing)
    raise AssertionError(phase)


def _answer(cast, states, name, message, words):
    if message is None:
        return None
    if isinstance(message, Invite):
        step = client.begin(
            message,
            cast.expected,
            name=name,
            identity=cast.identities[name],
            terms=cast.terms,
            entropy=cast.entropy,
        )
    else:
        step = client.receive(states[name], message)
    if isinstance(step.state, client.Ready):
        step = client.submit(step.state, words[name])
    states[name] = step.state
    return step.message


def plain_sum(words: Mapping[str, np.ndarray], members) -> np.ndarray:
    return np.sum([words[name] for name in members], axis=0, dtype=next(iter(words.values())).dtype)


def completed(played: Played) -> Complete:
    assert isinstance(played.state, Complete), played.state
    return played.state
