"""RFC 6962 roots and proofs: the recorded vectors, every proof of small trees, and proofs that must fail."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    leaf_hash,
    node_hash,
    root,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger_merkle.json").read_text(encoding="utf-8"))
LEAVES = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1000)]


def reference(leaves):
    """Return the root as RFC 6962, 2.1 defines it, by recursion."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else EMPTY_ROOT
    middle = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(reference(leaves[:middle]), reference(leaves[middle:]))


@pytest.mark.parametrize("size", VECTORS["roots"])
def test_the_roots_are_the_recorded_ones(size):
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in VECTORS["leaves"][: int(size)]]
    assert root(leaves).hex() == VECTORS["roots"][size]
    assert Tree(leaves).root(int(size)).hex() == VECTORS["roots"][size]


def every_proof_verifies(sizes):
    tree = Tree(LEAVES[: max(sizes)])
    roots = [tree.root(size) for size in range(max(sizes) + 1)]
    for size in sizes:
        for index in range(size):
            verify_inclusion(LEAVES[index], index, size, tree.inclusion_proof(index, size), roots[size])
        for old in range(size + 1):
            verify_consistency(old, roots[old], size, roots[size], tree.consistency_proof(old, size))
    return roots


def test_every_proof_up_to_200_entries_verifies():
    roots = every_proof_verifies(range(201))
    assert roots[:70] == [reference(LEAVES[:size]) for size in range(70)]


@pytest.mark.slow
def test_every_proof_up_to_1000_entries_verifies():
    assert len(every_proof_verifies(range(1001))) == 1001


def refusals(verify, proof, *others):
    """Return how many of the ways to damage `proof`, or what it is checked against, are refused."""
    damaged = [
        proof[:-1],
        [*proof, EMPTY_ROOT],
        *([*proof[:at], EMPTY_ROOT, *proof[at + 1 :]] for at in range(len(proof))),
    ]
    refused = 0
    for arguments in [*((each,) for each in damaged if each != proof), *others]:
        with pytest.raises(VerificationFailed):
            verify(*arguments)
        refused += 1
    return refused


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 37])
def test_a_damaged_inclusion_proof_is_refused(size):
    tree = Tree(LEAVES[:size])
    expected_root = tree.root(size)
    for index in range(size):
        proof = tree.inclusion_proof(index, size)

        def verify(proof, index=index, leaf=LEAVES[index], size=size, expected=expected_root):
            verify_inclusion(leaf, index, size, proof, expected)

        others = [
            (proof, index, LEAVES[-1]),
            (proof, size),
            (proof, -1),
            (proof, index, LEAVES[index], size, EMPTY_ROOT),
            *((proof, other) for other in range(size) if other != index),
        ]
        assert refusals(verify, proof, *others) >= 5


@pytest.mark.parametrize("new", [1, 2, 3, 7, 8, 9, 37])
def test_a_damaged_consistency_proof_is_refused(new):
    tree = Tree(LEAVES[: new + 1])
    roots = [tree.root(size) for size in range(new + 1)]
    for old in range(new + 1):
        proof = tree.consistency_proof(old, new)

        def verify(proof, old=old, old_root=roots[old], new=new, new_root=roots[new]):
            verify_consistency(old, old_root, new, new_root, proof)

        others = [(proof, old, LEAVES[-1]), (proof, new + 1), (proof, -1), (proof, old, tree.root(old), -1)]
        if old:
            others.append((proof, old, tree.root(old), new, LEAVES[-1]))
        assert refusals(verify, proof, *others) >= 4


def test_an_empty_proof_between_powers_of_two_is_refused():
    with pytest.raises(VerificationFailed, match="too short"):
        verify_consistency(3, root(LEAVES[:3]), 5, root(LEAVES[:5]), [])


def test_a_frontier_needs_one_peak_for_every_bit_of_its_size():
    with pytest.raises(UsageError, match="3 leaves has 2 peaks"):
        Frontier(3, [EMPTY_ROOT])


@pytest.mark.parametrize(
    "ask",
    [
        lambda tree: tree.root(4),
        lambda tree: tree.root(-1),
        lambda tree: tree.inclusion_proof(3, 3),
        lambda tree: tree.inclusion_proof(0, 4),
        lambda tree: tree.consistency_proof(2, 4),
        lambda tree: tree.consistency_proof(3, 2),
    ],
)
def test_a_tree_proves_nothing_beyond_its_leaves(ask):
    with pytest.raises(UsageError, match="3 leaves"):
        ask(Tree(LEAVES[:3]))
