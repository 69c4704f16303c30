"""What each kind of message is, for people who have to allow it, and in which form it lets something be read.

A kind is what the worker's ledger calls a message; its door names it after the type of the message that it seals. One
that this version does not know is said to be unknown, and never taken for harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fedpriv.cli.audit.summing import Tally, joined


class Form(StrEnum):
    """What a recipient can read in a message; as the report names it, what tells most of the data first."""

    CLEAR = "In clear"
    UNKNOWN = "Unknown"
    MASKED = "Masked"
    PROTOCOL = "Keys and shares"
    CONTROL = "Control messages"


FORMS = {
    Form.CLEAR: "results computed from this worker's rows alone, readable by whoever received them",
    Form.UNKNOWN: "kinds of message that this version of fedpriv does not know; ask who wrote the ledger",
    Form.MASKED: (
        "results with random masks added, unreadable alone; the masks cancel in the sum over all workers in it, and "
        "only that sum can be read"
    ),
    Form.PROTOCOL: (
        "what workers need to make masks and to take them off a sum: public keys, shares of fresh random secrets, "
        "signatures; computed from no row"
    ),
    Form.CONTROL: (
        "who this worker is, its data sets as the owner described them, receipts, error codes, signed sizes of this "
        "ledger, stand-in rows"
    ),
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a kind of message is: its form, one and several of it in plain words, and what is in it."""

    form: Form
    one: str
    several: str
    holds: str

    def counted(self, times: int) -> str:
        """Return "1 update", "41 masked vectors"."""
        return f"{times:,} {self.one if times == 1 else self.several}"


MEANINGS: Mapping[str, Meaning] = {
    "update": Meaning(
        Form.CLEAR, "update", "updates", "what training on this worker's rows changed in a model, in clear"
    ),
    "evaluation": Meaning(
        Form.CLEAR, "evaluation", "evaluations", "how well a model does on rows held out here, in clear"
    ),
    "statistics": Meaning(
        Form.CLEAR, "set of statistics", "sets of statistics", "counts and sums over this worker's rows, in clear"
    ),
    "value": Meaning(
        Form.CLEAR, "value", "values", "a tensor in clear: the recipient's own, or one that the owner approved"
    ),
    "secagg-masked": Meaning(
        Form.MASKED,
        "masked vector",
        "masked vectors",
        (
            "an update, metrics or statistics under random masks: no number in it can be read, only the sum "
            "over all workers in it"
        ),
    ),
    "secagg-advertise": Meaning(
        Form.PROTOCOL, "set of public keys", "sets of public keys", "fresh public keys for one sum, signed"
    ),
    "secagg-shares": Meaning(
        Form.PROTOCOL,
        "set of encrypted shares",
        "sets of encrypted shares",
        (
            "pieces of this worker's fresh secrets, each encrypted for one other worker; the coordinator "
            "passes them on and cannot open them"
        ),
    ),
    "secagg-confirm": Meaning(
        Form.PROTOCOL, "signature", "signatures", "a signature over the list of who is in the sum"
    ),
    "secagg-unmask": Meaning(
        Form.PROTOCOL,
        "set of unmasking shares",
        "sets of unmasking shares",
        (
            "pieces of secrets that take the masks off the sum, and never off one vector; counted as a "
            "release, since the sum becomes readable by it"
        ),
    ),
    "secagg-abort": Meaning(
        Form.PROTOCOL, "signed refusal", "signed refusals", "why this worker stopped, as one of a fixed list of codes"
    ),
    "hello": Meaning(Form.CONTROL, "greeting", "greetings", "this worker's certificate and a random number"),
    "hello-proof": Meaning(
        Form.CONTROL, "proof of identity", "proofs of identity", "a signature that proves whose certificate it is"
    ),
    "announcement": Meaning(
        Form.CONTROL,
        "announcement",
        "announcements",
        "names and columns of data sets, and the row count as exactly as the owner lets it be told",
    ),
    "plan-accepted": Meaning(Form.CONTROL, "receipt", "receipts", "that a training plan passed this worker's checks"),
    "checkpoint": Meaning(Form.CONTROL, "checkpoint", "checkpoints", "size and root of this ledger, signed"),
    "budget-left": Meaning(
        Form.CONTROL, "budget", "budgets", "what the owner set as privacy budget, and what of it was spent"
    ),
    "failure": Meaning(Form.CONTROL, "error code", "error codes", "that a request was not carried out, as a code"),
    "goodbye": Meaning(Form.CONTROL, "goodbye", "goodbyes", "that the link is closed, as a code"),
    "session-open": Meaning(Form.CONTROL, "session", "sessions", "a number, and what the owner grants the recipient"),
    "objects": Meaning(
        Form.CONTROL, "list of values", "lists of values", "names and shapes of the recipient's own values"
    ),
    "ticket": Meaning(Form.CONTROL, "ticket", "tickets", "the id of a request that waits for the owner"),
    "mock": Meaning(Form.CONTROL, "stand-in", "stand-ins", "rows that the owner wrote to stand for real ones"),
}


def meaning_of(kind: str) -> Meaning:
    """Return what `kind` means; of one that is not known, that."""
    return MEANINGS.get(kind, Meaning(Form.UNKNOWN, kind, kind, "not known to this version of fedpriv"))


def by_form(kinds: Mapping[str, Tally]) -> Iterator[tuple[Form, Tally]]:
    """Yield each form of which there are messages, and what they come to, what tells most of the data first."""
    for form in Form:
        whole = joined(tally for kind, tally in kinds.items() if meaning_of(kind).form is form)
        if whole.messages:
            yield form, whole
