"""Mechanisms as others read them: an event of dp-accounting, and JSON for a bill and a ledger entry.

What has no event there becomes none: dp-accounting 0.6.0 knows neither Skellam nor discrete Gaussian noise, and a
zero-concentrated event in their place is understood by its RDP accountant alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fedpriv.errors import UsageError, nearest
from fedpriv.privacy.mechanisms import (
    DiscreteGaussian,
    Gaussian,
    Mechanism,
    PoissonSampled,
    Repeated,
    Skellam,
    Together,
)

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_NAMES: dict[str, type[Mechanism]] = {
    "gaussian": Gaussian,
    "skellam": Skellam,
    "discrete-gaussian": DiscreteGaussian,
    "poisson-sampled": PoissonSampled,
    "repeated": Repeated,
    "together": Together,
}
_NAME_OF = {kind: name for name, kind in _NAMES.items()}


def dp_event(mechanism: Mechanism) -> DpEvent | None:
    """Return the dp-accounting event that both its accountants understand, or None where there is none.

    The event knows no sensitivity: under REPLACE_ONE its PLD accountant doubles it and its RDP accountant does not.
    """
    dp = accounting()
    match mechanism:
        case Gaussian(multiplier):
            return dp.GaussianDpEvent(multiplier)
        case PoissonSampled(rate, inner):
            return dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(inner.noise_multiplier))
        case Repeated(inner, times):
            event = dp_event(inner)
            return None if event is None else dp.SelfComposedDpEvent(event, times)
        case Together(parts):
            events = [dp_event(each) for each in parts]
            known = [each for each in events if each is not None]
            return dp.ComposedDpEvent(known) if len(known) == len(events) else None
        case Skellam() | DiscreteGaussian():
            return None


def accounting() -> ModuleType:
    """Return dp-accounting, loaded when first needed since it takes seconds; raise `UsageError` where it is missing."""
    try:
        import dp_accounting  # noqa: PLC0415  see above
        import dp_accounting.pld  # noqa: PLC0415
        import dp_accounting.rdp  # noqa: PLC0415
    except ImportError as missing:
        raise UsageError("privacy accounting needs dp-accounting: pip install 'fedpriv[privacy]'") from missing
    found: ModuleType = dp_accounting
    return found


def to_json(mechanism: Mechanism, terms: Mapping[str, object] | None = None) -> str:
    """Return `mechanism` as one line of JSON, the same for equal values; under its name, beside `terms`, if given."""
    said = _plain(mechanism) if terms is None else {"mechanism": _plain(mechanism), "terms": dict(terms)}
    return json.dumps(said, sort_keys=True, separators=(",", ":"))


def from_json(text: str) -> Mechanism:
    """Return the mechanism that `to_json` wrote, whatever stands beside it; raise `UsageError` for anything else."""
    try:
        value = json.loads(text)
        if isinstance(value, dict) and "kind" not in value and "mechanism" in value:
            value = value["mechanism"]
        return _mechanism(value)
    except (ValueError, RecursionError):
        raise UsageError(f"not the JSON of a mechanism: {text!r:.80}") from None


def _plain(value: Any) -> Any:  # noqa: ANN401  a mechanism, or one of its fields
    if type(value) in _NAME_OF:
        held = {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
        return {"kind": _NAME_OF[type(value)], **held}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value


def _mechanism(value: Any) -> Mechanism:  # noqa: ANN401  whatever JSON held
    if not isinstance(value, dict) or not isinstance(kind := value.pop("kind", None), str):
        raise UsageError(f"a mechanism is an object with a kind, not {value!r:.80}")
    if kind not in _NAMES:
        raise UsageError(f"mechanism {kind[:40]!r} is not known{nearest(kind, _NAMES)}; known are {', '.join(_NAMES)}")
    wanted = _NAMES[kind]
    if value.keys() != {each.name for each in fields(wanted)}:
        raise UsageError(f"a {kind} has {', '.join(each.name for each in fields(wanted))}; this one has other fields")
    if wanted is Together:
        given = value["mechanisms"] if isinstance(value["mechanisms"], list) else []
        parts: tuple[Any, ...] = tuple(_mechanism(each) for each in given)  # its own checks judge them
        return Together(parts)
    if "mechanism" in value:
        value["mechanism"] = _mechanism(value["mechanism"])
    return wanted(**value)
