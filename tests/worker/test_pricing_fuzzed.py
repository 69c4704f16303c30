"""Whatever numbers an order names, a worker has a price for it or says what is wrong and what to use instead."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import strategies as st
from test_pricing import CHANGED, HELD, ORDER, asked, invited

import fedpriv as fp
from fedpriv.errors import UsageError
from fedpriv.privacy.accountants import guarantee_of
from fedpriv.privacy.budget import Budget
from fedpriv.privacy.mechanisms import over_rounds
from fedpriv.privacy.modes import LARGEST_MULTIPLIER, LEAST_MULTIPLIER
from fedpriv_worker.pricing import price_of

KINDS = {
    "central": fp.CentralDP,
    "distributed": fp.DistributedDP,
    "local": fp.LocalDP,
    "example": fp.ExampleDP,
    "tree": fp.TreeDP,
}
POSITIVE = st.floats(5e-324, 1.7e308)
COUNTS = st.one_of(st.integers(1, 50), st.integers(1, 1 << 20))
WIRE_INTEGERS = st.one_of(st.integers(1, 200), st.integers(1, (1 << 31) - 1))
DELTAS = st.one_of(st.floats(1e-12, 1e-4), st.floats(5e-324, 1.0, exclude_max=True))
TERMS = st.fixed_dictionaries(
    {"kind": st.sampled_from(sorted(KINDS))},
    optional={
        "clip": st.one_of(st.floats(1e-6, 1e6), POSITIVE),
        "multiplier": st.one_of(st.floats(1e-3, 1e4), st.floats(0.5, 20.0), POSITIVE),
        "delta": DELTAS,
        "rounds": COUNTS,
        "workers": COUNTS,
        "epochs": WIRE_INTEGERS,
        "batch": WIRE_INTEGERS,
        "rows": st.integers(1, 1 << 40),
        "scale_bits": st.integers(0, 40),
        "budget": st.builds(Budget, POSITIVE, DELTAS, st.sampled_from(["row", "worker", "patient"])),
    },
)


def priced(changes: dict[str, object]):
    terms = base(**changes)
    kind, more = terms["kind"], {}
    if kind == "distributed":
        more["scale_bits"] = terms["scale_bits"]
    if kind == "tree":
        terms = {**terms, "rounds": min(terms["rounds"], 64)}  # its matrix takes a while
    mode = KINDS[kind](terms["clip"], None, terms["delta"], terms["multiplier"], **more)
    said = asked(mode, rounds=terms["rounds"], workers=terms["workers"])
    order = replace(ORDER, privacy=said, epochs=terms["epochs"], batch_size=terms["batch"])
    if kind == "distributed":
        order = invited(order)
    held = replace(HELD, rows=terms["rows"])
    return price_of(order, said, held, terms["budget"], CHANGED, Fraction(1, 3)), said


def base(**changes: object) -> dict[str, object]:
    plain = {
        "kind": "local", "clip": 1.0, "multiplier": 1.0, "delta": 1e-5, "rounds": 3, "workers": 10, "epochs": 1,
        "batch": 10, "rows": 1000, "scale_bits": 10, "budget": Budget(8.0, 1e-5),
    }  # fmt: skip  # one line of numbers
    return {**plain, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "example", "rows": 1 << 40, "batch": 1, "rounds": 1},
        {"kind": "example", "rows": 100, "batch": 99, "multiplier": 1e-3},
        {"multiplier": 1e-3, "rounds": 1 << 20},
        {"multiplier": 0.7, "rounds": 1 << 20},
        {"multiplier": 1e4, "delta": 5e-324},
    ],
    ids=str,
)
def test_every_price_can_be_reported_or_it_is_said_why_not(changes: dict[str, object]) -> None:
    """A loss distribution of little noise would take tens of gigabytes."""
    try:
        price, said = priced(changes)
        whole = price.noise.mechanism if price.whole else over_rounds(price.noise.mechanism, said.rounds)
        found = guarantee_of(whole, delta=said.mode.delta, relation=said.mode.relation, unit="row")
    except UsageError as error:
        text = str(error)
        assert "cannot cover" in text or "use" in text, text
        return
    assert math.isfinite(found.epsilon)
    assert found.epsilon >= 0


@pytest.mark.parametrize("multiplier", [LEAST_MULTIPLIER * 0.999, LARGEST_MULTIPLIER * 1.001, 1e-300, 1e300])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_noise_beyond_what_is_drawn_and_billed_is_refused_with_what_to_use(kind: str, multiplier: float) -> None:
    with pytest.raises(UsageError, match=r"noise multiplier .* use one from 0\.001 to 10000"):
        priced(base(kind=kind, multiplier=multiplier))
