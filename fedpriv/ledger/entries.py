"""One ledger entry per outbound message: its fields, its canonical bytes, its digest.

An entry is RFC 8785 canonical JSON of strings, integers, one list and one object, so that anyone can parse it and
nobody can write the same entry in two ways. The digest is an HMAC under a key of that entry alone: a plain hash of a
small payload could be guessed. No payload is ever in an entry. No IO, no clock, no threads here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from json.encoder import encode_basestring as _quoted

from fedpriv import canonical
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ids import WorkerName

VERSION = 1
CHUNK_BYTES = 1 << 20
MAXIMUM_ENTRY_BYTES = 0xFFFF  # tlog-tiles prefixes each entry with a uint16
MAXIMUM_INTEGER = (1 << 53) - 1  # RFC 8785 numbers are IEEE doubles

_FOUR_HEX = re.compile(r"[0-9a-f]* [0-9a-f]* [0-9a-f]* [0-9a-f]{64}")

# The canonical form is a regular language, a few conditions aside: what matches need not be encoded again to compare.
_TEXT, _HEX, _COUNT = r'"([^"\\\x00-\x1f]*)"', '"([0-9a-f]*)"', "(0|[1-9][0-9]{0,15})"
_LABELS = _TEXT.replace("(", "").replace(")", "")
_PLAIN = re.compile(
    f'{{"approval":{_TEXT},"bytes":{_COUNT},"digest":"([0-9a-f]{{64}})",'
    f'"dp":{{"event":{_TEXT},"limit":{_TEXT},"relation":{_TEXT},"spent":{_TEXT}}},'
    f'"kind":{_TEXT},"labels":\\[((?:{_LABELS}(?:,{_LABELS})*)?)\\],"legal_basis":{_TEXT},'
    f'"method":{_TEXT},"model":{_HEX},"peer":{_TEXT},"plan":{_HEX},"policy":{_TEXT},'
    f'"purpose":{_TEXT},"round":(-1|{_COUNT[1:]},"seq":{_COUNT},"sid":{_HEX},"source":(-1|{_COUNT[1:]},"time":{_COUNT},'
    f'"v":{VERSION},"worker":{_TEXT}}}'
)


@dataclass(frozen=True, slots=True)
class PrivacySpend:
    """What a release costs: the event, the relation it protects, epsilon spent and allowed, all as text; no floats."""

    event: str = ""
    relation: str = ""
    spent: str = ""
    limit: str = ""


NO_SPEND = PrivacySpend()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the door knows of a message before it has a number; `bytes` is its exact size on the wire.

    `labels` are "data set/principal", sorted, each once. `plan`, `model` and `sid` are hexadecimal or empty; `round` is
    -1 outside a round. `source` is the number of the entry that records these bytes already: an earlier one of this
    ledger when a message is sent again, the sender's own in a ledger of what was received; -1 otherwise.
    """

    peer: str
    method: str
    kind: str
    bytes: int
    labels: tuple[str, ...] = ()
    policy: str = ""
    approval: str = ""
    plan: str = ""
    model: str = ""
    sid: str = ""
    round: int = -1
    dp: PrivacySpend = NO_SPEND
    purpose: str = ""
    legal_basis: str = ""
    source: int = -1


@dataclass(frozen=True, slots=True)
class Entry:
    """A draft with its place in one worker's ledger; `time` is milliseconds since 1970-01-01 UTC."""

    draft: Draft
    worker: WorkerName
    seq: int
    time: int
    digest: str = field(repr=False)
    v: int = VERSION


_KEYS = frozenset({"digest", "seq", "time", "v", "worker"}.union(field.name for field in fields(Draft)))
_DP_KEYS = frozenset(field.name for field in fields(PrivacySpend))


def encode_entry(entry: Entry) -> bytes:
    """Return the canonical JSON of `entry`; raise `UsageError` for a field that no entry may hold."""
    _check(entry)
    d, q = entry.draft, _quoted
    text = (
        f'{{"approval":{q(d.approval)},"bytes":{d.bytes},"digest":"{entry.digest}",'
        f'"dp":{{"event":{q(d.dp.event)},"limit":{q(d.dp.limit)},"relation":{q(d.dp.relation)},"spent":{q(d.dp.spent)}}},'
        f'"kind":{q(d.kind)},"labels":[{",".join(map(q, d.labels))}],"legal_basis":{q(d.legal_basis)},'
        f'"method":{q(d.method)},"model":"{d.model}","peer":{q(d.peer)},"plan":"{d.plan}","policy":{q(d.policy)},'
        f'"purpose":{q(d.purpose)},"round":{d.round},"seq":{entry.seq},"sid":"{d.sid}","source":{d.source},"time":{entry.time},'
        f'"v":{entry.v},"worker":{q(entry.worker)}}}'
    )
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"entry {entry.seq} holds text that is not Unicode; RFC 8785 cannot express it") from error
    if len(data) > MAXIMUM_ENTRY_BYTES:
        raise UsageError(
            f"entry {entry.seq} would take {len(data)} bytes, but an entry holds at most {MAXIMUM_ENTRY_BYTES}; "
            "shorten its purpose or its labels"
        )
    return data


def decode_entry(data: bytes) -> Entry:
    """Return the entry that `data` canonically encodes; raise `VerificationFailed` naming what is wrong."""
    return _decoded_plain(data) or _decoded_slowly(data)


def _decoded_plain(data: bytes) -> Entry | None:
    """Return the entry if its texts need no escapes, as nearly all do; None leaves the verdict to the slow way."""
    try:
        match = _PLAIN.fullmatch(data.decode())
    except UnicodeDecodeError:
        return None
    if match is None or len(data) > MAXIMUM_ENTRY_BYTES:
        return None
    (
        approval, count, digest, event, limit, relation, spent, kind, labels, legal_basis, method, model, peer, plan,
        policy, purpose, number, seq, sid, source, time, worker,
    ) = match.groups()  # fmt: skip  # in the order of the keys
    numbers = (int(count), int(number), int(seq), int(source), int(time))
    ordered = tuple(labels[1:-1].split('","')) if labels else ()
    if max(numbers) > MAXIMUM_INTEGER or (len(model) | len(plan) | len(sid)) & 1 or not _ascend(ordered):
        return None
    dp = PrivacySpend(event, relation, spent, limit) if event or relation or spent or limit else NO_SPEND
    draft = Draft(
        peer=peer, method=method, kind=kind, bytes=numbers[0], labels=ordered, policy=policy, approval=approval,
        plan=plan, model=model, sid=sid, round=numbers[1], dp=dp, purpose=purpose, legal_basis=legal_basis,
        source=numbers[3],
    )  # fmt: skip  # as above
    return Entry(draft, WorkerName(worker), numbers[2], numbers[4], digest)


def _decoded_slowly(data: bytes) -> Entry:
    found = _object(_parsed(data), _KEYS, "the entry")
    dp = _object(found["dp"], _DP_KEYS, "dp")
    draft = Draft(
        peer=_text(found, "peer"),
        method=_text(found, "method"),
        kind=_text(found, "kind"),
        bytes=_integer(found, "bytes"),
        labels=_texts(found, "labels"),
        policy=_text(found, "policy"),
        approval=_text(found, "approval"),
        plan=_text(found, "plan"),
        model=_text(found, "model"),
        sid=_text(found, "sid"),
        round=_integer(found, "round"),
        dp=PrivacySpend(_text(dp, "event"), _text(dp, "relation"), _text(dp, "spent"), _text(dp, "limit")),
        purpose=_text(found, "purpose"),
        legal_basis=_text(found, "legal_basis"),
        source=_integer(found, "source"),
    )
    entry = Entry(
        draft,
        worker=WorkerName(_text(found, "worker")),
        seq=_integer(found, "seq"),
        time=_integer(found, "time"),
        digest=_text(found, "digest"),
        v=_integer(found, "v"),
    )
    try:
        again = encode_entry(entry)
    except UsageError as error:
        raise VerificationFailed(str(error)) from error
    if again != data:
        raise VerificationFailed(f"entry {entry.seq} is not in canonical form (RFC 8785)")
    return entry


def entry_key(secret: bytes, seq: int) -> bytes:
    """Return the digest key of entry `seq`, 32 bytes: HKDF-SHA256 (RFC 5869) of the owner's secret, without salt."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, canonical.encode("fedpriv/ledger/v1/entry-key", seq) + b"\x01", "sha256")


def message_digest(key: bytes, header: bytes, chunks: Sequence[bytes], payload_bytes: int) -> bytes:
    """Return the HMAC-SHA256 of a message: its header, its payload's length and the digests of its chunks."""
    return hmac.digest(key, canonical.encode("fedpriv/ledger/v1/message", header, payload_bytes, chunks), "sha256")


def chunk_digests(payload: Sequence[memoryview]) -> list[bytes]:
    """Return SHA-256 of every 1 MiB of the concatenated parts; the last chunk may be shorter, no payload has none."""
    return [chunk_digest(chunk) for chunk in chunked(payload)]


def chunk_digest(chunk: Sequence[memoryview]) -> bytes:
    """Return SHA-256 of one chunk that is given in pieces."""
    running = hashlib.sha256()
    for piece in chunk:
        running.update(piece)
    return running.digest()


def chunked(payload: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """Yield the pieces of each 1 MiB chunk of the concatenated parts, without copying a byte."""
    pieces: list[memoryview] = []
    room = CHUNK_BYTES
    for part in payload:
        rest = part.cast("B") if part.nbytes else part[:0]
        while rest.nbytes:
            piece, rest = rest[:room], rest[room:]
            pieces.append(piece)
            room -= piece.nbytes
            if not room:
                yield pieces
                pieces, room = [], CHUNK_BYTES
    if pieces:
        yield pieces


def _check(entry: Entry) -> None:
    draft = entry.draft
    if entry.v != VERSION:
        raise UsageError(f"entry {entry.seq} has version {entry.v}; this fedpriv knows version {VERSION}")
    for name, value, least in (
        ("bytes", draft.bytes, 0),
        ("seq", entry.seq, 0),
        ("time", entry.time, 0),
        ("round", draft.round, -1),
        ("source", draft.source, -1),
    ):
        if not least <= value <= MAXIMUM_INTEGER:
            raise UsageError(f"entry {entry.seq}: {name} is {value}, outside what a ledger can hold")
    four = f"{draft.plan} {draft.model} {draft.sid} {entry.digest}"
    if not _FOUR_HEX.fullmatch(four) or (len(draft.plan) | len(draft.model) | len(draft.sid)) & 1:
        raise UsageError(
            f"entry {entry.seq}: plan, model, sid (or empty) and digest (64 digits) are lower-case hexadecimal"
        )
    if not _ascend(draft.labels):
        raise UsageError(f"entry {entry.seq}: labels are not in ascending order, each once")


def _ascend(labels: Sequence[str]) -> bool:
    return len(labels) < 2 or all(a < b for a, b in pairwise(labels))


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise VerificationFailed("the entry is not JSON in UTF-8") from error


def _object(value: object, keys: frozenset[str], where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise VerificationFailed(f"{where} is not a JSON object")
    if value.keys() != keys:
        wrong = sorted(value.keys() ^ keys)[0]
        raise VerificationFailed(
            f"{where} {'has the unknown key' if wrong in value else 'lacks the key'} {wrong[:40]!r}"
        )
    return value


def _text(found: dict[str, object], key: str) -> str:
    value = found[key]
    if not isinstance(value, str):
        raise VerificationFailed(f"the entry's {key!r} is not a string")
    return value


def _integer(found: dict[str, object], key: str) -> int:
    value = found[key]
    if type(value) is not int:
        raise VerificationFailed(f"the entry's {key!r} is not an integer")
    return value


def _texts(found: dict[str, object], key: str) -> tuple[str, ...]:
    value = found[key]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise VerificationFailed(f"the entry's {key!r} is not a list of strings")
    return tuple(value)
