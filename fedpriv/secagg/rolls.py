"""U1 as the coordinator calls it and a worker reads it: all names, and the keys that concern the worker.

h1 is a hash of the session, everybody's name and the root of a tree over everybody's keys; the graph is drawn from it.
Each worker gets its own entry, its neighbours', and one proof that these are in the tree. What costs (signatures,
agreements, shares, masks) is done for the neighbours alone; the names of all are hashed, sorted, and looked up in the
roster. So every worker knows for itself that U1 is a set of workers on the roster, and how large; that nobody is in it
twice; and that h1 was not known before its own fresh keys were. It does not know that the keys of the others are
signed: whoever masks with them checks that.

In a complete graph everybody is a neighbour, the names are those of the entries, and the proof is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fedpriv.ids import WorkerName
from fedpriv.secagg import checks, statements
from fedpriv.secagg.checks import Terms
from fedpriv.secagg.descriptor import Descriptor
from fedpriv.secagg.graph import Neighbourhood, Topology, neighbourhood, topology
from fedpriv.secagg.messages import Advertise, Roll
from fedpriv.secagg.reasons import Reason, Refused
from fedpriv.secagg.roster import Roster
from fedpriv.secagg.statements import History
from fedpriv.secagg.tree import Tree, root_of


def calls(
    history: History, descriptor: Descriptor, members: Mapping[WorkerName, Advertise]
) -> tuple[History, Topology, Iterator[tuple[WorkerName, Roll]]]:
    """Return the history with h1, the graph that it draws over `members`, by name in order, and each worker's roll."""
    everybody = tuple(members)
    tree = Tree([statements.entry_hash(each) for each in members.values()])
    after = replace(history, h1=statements.roll_hash(history.sid, everybody, tree.root))
    graph = topology(descriptor.graph, everybody, after.h1)
    if not graph.cycle:
        roll = Roll(history.sid, tuple(members.values()))
        return after, graph, ((name, roll) for name in everybody)
    return after, graph, ((name, _roll_for(name, history.sid, graph, members, tree)) for name in everybody)


def _roll_for(
    worker: WorkerName, sid: bytes, graph: Topology, members: Mapping[WorkerName, Advertise], tree: Tree
) -> Roll:
    around = sorted((worker, *graph.neighbours(worker)))
    proof = tree.proof(graph.points[name] - 1 for name in around)
    return Roll(sid, tuple(members[name] for name in around), graph.members, proof)


def read(
    roll: Roll, descriptor: Descriptor, own: Advertise, roster: Roster, terms: Terms
) -> tuple[History, tuple[WorkerName, ...], Neighbourhood, Mapping[WorkerName, Advertise]]:
    """Return h1, U1, what the graph is around this worker, and the entries of its neighbours and its own, verified.

    Raises `Refused` for whatever is wrong in the round-1 line of A.3.
    """
    everybody = roll.everybody or tuple(each.worker for each in roll.members)
    checks.check_members(everybody, descriptor, roster)
    checks.check_keys(roll.members)
    members = {each.worker: each for each in roll.members}
    checks.check_own_entry(members, own)
    checks.check_graph(descriptor, len(everybody), roster, terms)
    ordered = tuple(sorted(everybody))
    places = {worker: place for place, worker in enumerate(ordered) if worker in members}
    if len(places) != len(members):
        raise _other_entries(len(members))
    leaves = {places[name]: statements.entry_hash(each) for name, each in members.items()}
    root = root_of(len(ordered), leaves, roll.proof)
    history = History(descriptor.sid, statements.roll_hash(descriptor.sid, ordered, root))
    around = neighbourhood(descriptor.graph, ordered, history.h1, own.worker)
    if set(around.neighbours) != members.keys() - {own.worker}:
        raise _other_entries(len(members))
    for neighbour in around.neighbours:
        checks.check_advertisement(members[neighbour], descriptor.sid, roster)
    return history, ordered, around, members


def _other_entries(count: int) -> Refused:
    message = f"{count} entries came that are not those of this worker and its neighbours; the roll was altered"
    return Refused(Reason.MALFORMED_MESSAGE, message)
