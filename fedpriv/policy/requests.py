"""What a peer asks to be let out, in full, and what the owner answered: values that are stored, shown and cited.

Equal requests are the same request, whatever the order in which kinds were named; a grant holds for exactly one
request and one rule, so many times, until it expires. Digests are canonical, so that a ledger can cite them; an `id`
is only a name for people, and nothing is permitted because an id matches. It stores nothing and reads no clock.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any

from fedpriv import canonical
from fedpriv.errors import UsageError
from fedpriv.ids import DatasetName, PeerName

ID_DIGITS = 32
"""Hex digits of an id, 128 bits: to find two requests with one id takes about 2**64 tries, whoever chooses both."""
YEAR_10000 = 253_402_300_800
"""The first second that no calendar of ours can write."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A peer as its certificate names it: who it is and what it may be."""

    name: PeerName
    role: str


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """One order of a peer, with everything that an owner would want to know before saying yes.

    `releases` are of "update", "metrics", "statistics" and "mock"; `kinds` the metrics or statistics asked for; both
    are kept sorted and once each. `plan` is its digest in hex, "" where there is none. `masked_among` is the least
    number of workers in whose sum the answer leaves, 0 where it leaves in clear. `privacy` says how it is clipped and
    noised, "" where it is not; `epsilon` what the whole job costs the data set's budget, None where this worker adds no
    noise of its own. What a peer wrote is kept as it is: a request that no rule permits is still a request.
    """

    recipient: Recipient
    dataset: DatasetName
    releases: tuple[str, ...]
    kinds: tuple[str, ...]
    plan: str
    purpose: str
    epochs: int = 0
    batch_size: int = 0
    masked_among: int = 0
    privacy: str = ""
    epsilon: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "releases", tuple(sorted(set(self.releases))))
        object.__setattr__(self, "kinds", tuple(sorted(set(self.kinds))))

    @property
    def id(self) -> str:
        """The first `ID_DIGITS` hex digits of a canonical digest of every field."""
        return canonical.digest("fedpriv/request/v1", *_fields(self)).hex()[:ID_DIGITS]

    def to_json(self) -> str:
        """Return the request as one line of JSON, the same for equal requests."""
        return _json(_as_value(self))

    @classmethod
    def from_json(cls, text: str) -> ReleaseRequest:
        """Return the request that `to_json` wrote; raise `UsageError` for any other text."""
        try:
            request = _request(json.loads(text))
            same = request.to_json() == text and bool(request.id)
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        if not same:
            raise UsageError(f"this is no request as one is written: {text!r:.80}; ask for it again")
        return request


@dataclass(frozen=True, slots=True)
class Grant:
    """An owner's approval: `request` may be carried out `releases` times under the rule cited, before `expires`.

    `expires` is in seconds since 1970 UTC; raise `UsageError` unless it is a date and `releases` is positive.
    """

    request: ReleaseRequest
    rule: str
    releases: int
    expires: float

    def __post_init__(self) -> None:
        if isinstance(self.releases, bool) or not isinstance(self.releases, int) or self.releases < 1:
            raise UsageError(f"an approval of {self.releases!r} releases approves nothing; give 1 or more")
        if not (math.isfinite(self.expires) and 0 <= self.expires < YEAR_10000):
            raise UsageError(f"an approval cannot expire at {self.expires!r}; give a time between 1970 and 9999")
        object.__setattr__(self, "expires", float(self.expires))

    @property
    def digest(self) -> str:
        """64 hex digits: a canonical digest of the whole approval, which ledger entries cite."""
        return canonical.digest(
            "fedpriv/approval/v1", _fields(self.request), self.rule, self.releases, self.expires
        ).hex()

    def to_json(self) -> str:
        """Return the approval as one line of JSON, the same for equal approvals."""
        return _json({**asdict(self), "request": _as_value(self.request)})

    @classmethod
    def from_json(cls, text: str) -> Grant:
        """Return the approval that `to_json` wrote; raise `UsageError` for any other text."""
        try:
            value = json.loads(text)
            grant = cls(_request(value["request"]), value["rule"], value["releases"], value["expires"])
            same = isinstance(grant.rule, str) and grant.to_json() == text and bool(grant.digest)
        except (ValueError, KeyError, TypeError, RecursionError):
            same = False
        if not same:
            raise UsageError(f"this is no approval as one is written: {text!r:.80}; approve the request again")
        return grant


def _fields(request: ReleaseRequest) -> list[canonical.Field]:
    return [
        request.recipient.name,
        request.recipient.role,
        request.dataset,
        request.releases,
        request.kinds,
        request.plan,
        request.purpose,
        request.epochs,
        request.batch_size,
        *((request.masked_among,) if request.masked_among or request.privacy else ()),
        *((request.privacy, request.epsilon) if request.privacy else ()),
    ]


def _as_value(request: ReleaseRequest) -> dict[str, Any]:
    """Return the request for JSON; one in clear and without noise is written as before there were others."""
    value = asdict(request)
    if not request.masked_among:
        del value["masked_among"]
    if not request.privacy:
        del value["privacy"], value["epsilon"]
    return value


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _request(value: dict[str, Any]) -> ReleaseRequest:
    """Return the request in `value`; raise `TypeError` or `KeyError` for what is missing or of another type."""
    recipient = value["recipient"]
    texts = (recipient["name"], recipient["role"], value["dataset"], value["plan"], value["purpose"])
    lists = (value["releases"], value["kinds"])
    numbers = (value["epochs"], value["batch_size"], value.get("masked_among", 0))
    privacy, epsilon = value.get("privacy", ""), value.get("epsilon")
    if not (
        all(isinstance(text, str) for text in (*texts, *lists[0], *lists[1]))
        and all(isinstance(each, list) for each in lists)
        and all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        and isinstance(privacy, str)
        and (epsilon is None or isinstance(epsilon, float))
    ):
        raise TypeError("a field is of another type")
    return ReleaseRequest(
        recipient=Recipient(PeerName(texts[0]), texts[1]),
        dataset=DatasetName(texts[2]),
        releases=tuple(lists[0]),
        kinds=tuple(lists[1]),
        plan=texts[3],
        purpose=texts[4],
        epochs=numbers[0],
        batch_size=numbers[1],
        masked_among=numbers[2],
        privacy=privacy,
        epsilon=epsilon,
    )
