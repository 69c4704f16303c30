"""What others computed: RFC 7748, RFC 5869, SP 800-38D, Shamir over a small field, graphs; and what is refused."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from fedpriv.entropy import SeededEntropy
from fedpriv.secagg.harary import Choice, Population, search
from fedpriv.secagg.keys import (
    KeyPair,
    check_agreement_key,
    check_signature,
    derive,
    fresh_pair,
    is_identity_key,
    seal,
    unseal,
)
from fedpriv.secagg.masks import apply_masks
from fedpriv.secagg.reasons import Reason, Refused
from fedpriv.secagg.ring import Ring
from fedpriv.secagg.shamir import SECRETS, PrimeField
from fedpriv.secagg.thresholds import colluding, least_threshold

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "secagg.json").read_text())
SHAMIR, X25519, MASK = VECTORS["shamir"], VECTORS["x25519"], VECTORS["mask"]
ORDER = (1 << 252) + 27742317777372353535851937790883648493  # of Ed25519's base point, RFC 8032


def octets(text):
    return bytes.fromhex(text)


@pytest.mark.parametrize("chosen", [(1, 2, 3), (1, 2, 4), (3, 4, 5), (5, 1, 3), (2, 4, 5)])
def test_any_three_published_shares_give_the_published_words(chosen):
    field = PrimeField(SHAMIR["prime"])
    weights = field.weights(chosen)
    for word, secret in enumerate(SHAMIR["secrets"]):
        shares = [field.decode(octets(SHAMIR["shares"][point - 1])[4 * word : 4 * word + 4]) for point in chosen]
        assert field.combine(weights, shares) == secret


def test_the_field_of_secrets_is_a_prime_field():
    base, prime = 3, SECRETS.prime
    odd, twos = prime - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):  # Miller and Rabin
        power = pow(base, odd, prime)
        assert power in (1, prime - 1) or any(pow(power, 1 << each, prime) == prime - 1 for each in range(1, twos))
    assert SECRETS.share_bytes == 33


@pytest.mark.parametrize("case", VECTORS["hkdf"]["cases"])
def test_hkdf_is_that_of_rfc_5869(case):
    assert derive(octets(case["ikm"]), octets(case["salt"]), octets(case["info"])).hex() == case["okm"]


@pytest.mark.parametrize("case", X25519["cases"])
def test_agreement_is_that_of_rfc_7748(case):
    assert KeyPair.of(octets(case["private"])).agree("peer", octets(case["public"])).hex() == case["agreed"]


def test_a_thousand_agreements_in_a_row_are_those_of_rfc_7748():
    key, point = (9).to_bytes(32, "little"), (9).to_bytes(32, "little")
    for count in range(1, 1001):
        key, point = X25519PrivateKey.from_private_bytes(key).exchange(X25519PublicKey.from_public_bytes(point)), key
        if str(count) in X25519["iterated"]:
            assert key.hex() == X25519["iterated"][str(count)]


@pytest.mark.parametrize("case", X25519["refused"], ids=lambda case: case["comment"])
def test_a_key_of_low_order_or_in_a_second_spelling_is_refused(case):
    with pytest.raises(Refused) as refused:
        check_agreement_key("mallory", octets(case["public"]))
    assert (refused.value.reason, refused.value.subject) == (Reason.UNUSABLE_KEY, "mallory")


@pytest.mark.parametrize("case", X25519["refused"][:7], ids=lambda case: case["comment"])
def test_agreeing_with_a_point_of_low_order_is_refused_too(case):
    with pytest.raises(Refused, match="low order"):
        fresh_pair(SeededEntropy(b"low")).agree("mallory", octets(case["public"]))


def test_an_ordinary_key_passes():
    check_agreement_key("alice", fresh_pair(SeededEntropy(b"alice")).public)


def test_a_mask_is_what_gcm_makes_of_zeros():
    words = Ring(32).zeros(4)
    apply_masks(words, [(octets(MASK["key"]), True)])
    assert words.tobytes().hex() == MASK["words"]


@pytest.mark.parametrize(
    ("workers", "hostile", "lost", "semi_honest", "degree", "threshold"), VECTORS["harary"]["cases"]
)
def test_the_search_finds_the_published_graphs(workers, hostile, lost, semi_honest, degree, threshold):
    population = Population.of(workers, Fraction(hostile), Fraction(lost))
    found = search(population, security_bits=40, correctness_bits=20, semi_honest=semi_honest)
    assert found == Choice(degree, threshold)


@pytest.mark.parametrize(("workers", "colluders", "threshold"), VECTORS["thresholds"])
def test_thresholds_are_those_of_the_table(workers, colluders, threshold):
    assert (colluding(workers), least_threshold(workers, colluding(workers))) == (colluders, threshold)
    assert 2 * threshold > workers + colluders >= 2 * (threshold - 1)


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STATEMENT = b"what was said"
SIGNATURE = KEY.sign(STATEMENT)


def malleable(signature):
    return signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")


@pytest.mark.parametrize(
    ("public", "signature", "statement"),
    [
        (KEY.public_key().public_bytes_raw(), malleable(SIGNATURE), STATEMENT),
        (KEY.public_key().public_bytes_raw(), SIGNATURE[:-1], STATEMENT),
        (KEY.public_key().public_bytes_raw(), SIGNATURE + b"\0", STATEMENT),
        (KEY.public_key().public_bytes_raw(), b"", STATEMENT),
        (KEY.public_key().public_bytes_raw(), bytes(64), STATEMENT),
        (KEY.public_key().public_bytes_raw(), SIGNATURE[32:] + SIGNATURE[:32], STATEMENT),
        (KEY.public_key().public_bytes_raw(), bytes([SIGNATURE[0] ^ 1]) + SIGNATURE[1:], STATEMENT),
        (KEY.public_key().public_bytes_raw(), SIGNATURE[:-1] + bytes([SIGNATURE[-1] ^ 0x80]), STATEMENT),
        (KEY.public_key().public_bytes_raw(), SIGNATURE, STATEMENT + b"!"),
        (Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw(), SIGNATURE, STATEMENT),
        (b"short", SIGNATURE, STATEMENT),
    ],
    ids=[
        "malleable", "truncated", "too long", "empty", "zero", "swapped", "altered R", "altered S", "another statement",
        "wrong key", "no key",
    ],
)  # fmt: skip
def test_a_signature_that_is_not_exactly_right_is_refused(public, signature, statement):
    with pytest.raises(Refused) as refused:
        check_signature("mallory", public, signature, statement)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_the_right_signature_passes():
    check_signature("alice", KEY.public_key().public_bytes_raw(), SIGNATURE, STATEMENT)


SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    ((1 << 255) - 20).to_bytes(32, "little"),
    octets("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    octets("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("public", SMALL_ORDER, ids=lambda key: key.hex()[:8])
def test_a_key_that_anybody_can_sign_for_is_no_identity(public, sign):
    assert not is_identity_key(public[:-1] + bytes([public[-1] | sign]))


def test_keys_of_small_order_do_verify_what_nobody_signed():
    """Show that the refusal is needed: with R = identity and S = 0 some statement verifies under each of them."""
    forged = (1).to_bytes(32, "little") + bytes(32)
    for public in SMALL_ORDER[3:]:
        key, accepted = Ed25519PublicKey.from_public_bytes(public), 0
        for at in range(200):
            try:
                key.verify(forged, b"statement %d" % at)
            except InvalidSignature:
                continue
            accepted += 1
        assert accepted


def test_an_ordinary_key_is_an_identity():
    assert is_identity_key(KEY.public_key().public_bytes_raw())


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 20])
def test_a_ciphertext_with_a_truncated_tag_does_not_open(cut):
    sealed = seal(bytes(32), b"a pair of shares", b"route")
    assert unseal(bytes(32), sealed[:cut], b"route") is None
    assert unseal(bytes(32), sealed[:-1], b"route") is None


@pytest.mark.parametrize("at", [0, 5, 15, 16, 25, 31])
def test_a_ciphertext_with_any_bit_altered_does_not_open(at):
    sealed = bytearray(seal(bytes(32), b"a pair of shares", b"route"))
    sealed[at] ^= 0x01
    assert unseal(bytes(32), bytes(sealed), b"route") is None


def test_a_ciphertext_opens_with_its_key_and_route_alone():
    sealed = seal(bytes(32), b"a pair of shares", b"route")
    assert unseal(bytes(32), sealed, b"route") == b"a pair of shares"
    assert unseal(bytes(31) + b"\1", sealed, b"route") is None
    assert unseal(bytes(32), sealed, b"other") is None
