"""RFC 6962 roots and proofs: the recorded vectors, every proof of small trees, and proofs that must fail."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from pathlib import Path

import pytest

from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root,
    root_at,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "ledger_merkle.json").read_text(encoding="utf-8"))
LEAVES = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1000)]


# The definitions of RFC 6962, section 2.1, over LEAVES[first : first + size], as they stand there: recursions.


def split(size):
    """Return the largest power of two smaller than `size`."""
    power = 1
    while power * 2 < size:
        power *= 2
    return power


@functools.cache
def mth(first, size):
    """Return the Merkle tree hash of D[first : first + size], whose leaves are hashed already."""
    if size == 0:
        return hashlib.sha256().digest()
    if size == 1:
        return LEAVES[first]
    k = split(size)
    return hashlib.sha256(b"\x01" + mth(first, k) + mth(first + k, size - k)).digest()


def path(m, first, size):
    """Return PATH(m, D[n]) of section 2.1.1."""
    if size == 1:
        return []
    k = split(size)
    if m < k:
        return [*path(m, first, k), mth(first + k, size - k)]
    return [*path(m - k, first + k, size - k), mth(first, k)]


def subproof(m, first, size, whole):
    """Return SUBPROOF(m, D[n], b) of section 2.1.2."""
    if m == size:
        return [] if whole else [mth(first, size)]
    k = split(size)
    if m <= k:
        return [*subproof(m, first, k, whole), mth(first + k, size - k)]
    return [*subproof(m - k, first + k, size - k, False), mth(first, k)]


def consistency(old, new):
    """Return PROOF(m, D[n]) of section 2.1.2; between nothing and anything there is nothing to prove."""
    return subproof(old, 0, new, True) if 0 < old < new else []


@pytest.mark.parametrize("size", VECTORS["roots"])
def test_the_roots_are_the_recorded_ones(size):
    leaves = [leaf_hash(bytes.fromhex(entry)) for entry in VECTORS["leaves"][: int(size)]]
    assert root(leaves).hex() == VECTORS["roots"][size]
    assert root_at(int(size), Tree(leaves).node).hex() == VECTORS["roots"][size]


def check_size(node, size, indices, olds):
    """Compare proofs and roots with the definitions, and verify them."""
    assert root_at(size, node) == mth(0, size)
    for index in indices:
        proof = prove_inclusion(index, size, node)
        assert proof == path(index, 0, size)
        verify_inclusion(LEAVES[index], index, size, proof, mth(0, size))
    for old in olds:
        proof = prove_consistency(old, size, node)
        assert proof == consistency(old, size)
        verify_consistency(old, mth(0, old), size, mth(0, size), proof)


def test_every_proof_up_to_64_entries_is_the_defined_one_and_verifies():
    node = Tree(LEAVES[:64]).node
    for size in range(65):
        check_size(node, size, range(size), range(size + 1))


def test_proofs_of_every_size_up_to_1000_are_the_defined_ones_and_verify():
    node, draw = Tree(LEAVES).node, random.Random(6962)
    for size in range(1001):
        indices = {0, size - 1, *(draw.randrange(size) for _ in range(2))} if size else ()
        check_size(node, size, indices, {0, size, size - size % 256, *(draw.randrange(size + 1) for _ in range(2))})


@pytest.mark.slow
def test_every_proof_up_to_1000_entries_verifies():
    node = Tree(LEAVES).node
    for size in range(1001):
        for index in range(size):
            verify_inclusion(LEAVES[index], index, size, prove_inclusion(index, size, node), mth(0, size))
        for old in range(size + 1):
            verify_consistency(old, mth(0, old), size, mth(0, size), prove_consistency(old, size, node))


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
    node = Tree(LEAVES[:size]).node
    expected_root = mth(0, size)
    for index in range(size):
        proof = prove_inclusion(index, size, node)

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
    node = Tree(LEAVES[: new + 1]).node
    roots = [mth(0, size) for size in range(new + 1)]
    for old in range(new + 1):
        proof = prove_consistency(old, new, node)

        def verify(proof, old=old, old_root=roots[old], new=new, new_root=roots[new]):
            verify_consistency(old, old_root, new, new_root, proof)

        others = [(proof, old, LEAVES[-1]), (proof, new + 1), (proof, -1), (proof, old, roots[old], -1)]
        if old:
            others.append((proof, old, roots[old], new, LEAVES[-1]))
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
        lambda node: prove_inclusion(3, 3, node),
        lambda node: prove_inclusion(-1, 3, node),
        lambda node: prove_consistency(4, 3, node),
        lambda node: prove_consistency(-1, 3, node),
    ],
)
def test_a_tree_proves_nothing_beyond_its_leaves(ask):
    tree = Tree(LEAVES[:3])
    assert tree.size == 3
    with pytest.raises(UsageError, match="3 leaves"):
        ask(tree.node)
