"""The privacy of an order in protobuf: every mode and optimiser is a message of its own, none is named by a text."""

from __future__ import annotations

from fedpriv.errors import UsageError, WireError
from fedpriv.learning.local import SGD, Adam, AdamW, Optimizer
from fedpriv.privacy.modes import CentralDP, DistributedDP, ExampleDP, LocalDP, Mode, TreeDP
from fedpriv.wire.private import Private
from fedpriv.wire.v1 import session_pb2 as v1


def pack_private(private: Private, body: v1.Privacy) -> None:
    """Write `private` into `body`."""
    mode = private.mode
    assert mode.noise_multiplier is not None  # `Private` promises it
    body.rounds, body.workers = private.rounds, private.workers
    body.clip, body.noise_multiplier, body.delta = mode.clip, mode.noise_multiplier, mode.delta
    match mode:
        case CentralDP():
            body.central.SetInParent()
        case LocalDP():
            body.local.SetInParent()
        case DistributedDP(mechanism=mechanism, scale_bits=scale_bits):
            assert scale_bits is not None  # as above
            body.distributed.mechanism = mechanism
            body.distributed.scale_bits, body.distributed.colluding = scale_bits, private.colluding
        case ExampleDP():
            assert private.optimizer is not None  # as above
            body.example.SetInParent()
            _pack_optimizer(private.optimizer, body.example)
        case TreeDP(bands=bands):
            body.tree.bands = bands or 0
            body.tree.SetInParent()


def read_private(body: v1.Privacy) -> Private:
    """Return what `body` says; raise `WireError` for numbers from which no noise follows."""
    try:
        colluding = body.distributed.colluding if body.HasField("distributed") else 0
        optimizer = _optimizer(body.example) if body.HasField("example") else None
        return Private(_mode(body), body.rounds, body.workers, colluding, optimizer)
    except UsageError as error:
        raise WireError(f"the privacy of an order makes no sense: {error}") from None


def _mode(body: v1.Privacy) -> Mode:
    clip, delta, multiplier = body.clip, body.delta, body.noise_multiplier
    match body.WhichOneof("mode"):
        case "central":
            return CentralDP(clip, None, delta, multiplier)
        case "distributed":
            ours = body.distributed
            return DistributedDP(clip, None, delta, multiplier, ours.mechanism, ours.scale_bits)
        case "local":
            return LocalDP(clip, None, delta, multiplier)
        case "example":
            return ExampleDP(clip, None, delta, multiplier)
        case "tree":
            return TreeDP(clip, None, delta, multiplier, body.tree.bands or None)
        case _:
            raise WireError("an order is private in a mode that is not known here; use the same version on both sides")


def _pack_optimizer(rule: Optimizer, body: v1.ExampleMode) -> None:
    match rule:
        case SGD():
            body.sgd.MergeFrom(
                v1.Sgd(
                    lr=rule.lr, momentum=rule.momentum, weight_decay=rule.weight_decay, nesterov=rule.nesterov,
                    dampening=rule.dampening,
                )
            )  # fmt: skip  # one line of numbers
        case Adam() | AdamW():
            into = body.adam if isinstance(rule, Adam) else body.adamw
            into.lr, into.eps, into.weight_decay = rule.lr, rule.eps, rule.weight_decay
            into.beta1, into.beta2 = rule.betas


def _optimizer(body: v1.ExampleMode) -> Optimizer:
    match body.WhichOneof("optimizer"):
        case "sgd":
            ours = body.sgd
            return SGD(ours.lr, ours.momentum, ours.weight_decay, ours.nesterov, ours.dampening)
        case "adam":
            return Adam(body.adam.lr, (body.adam.beta1, body.adam.beta2), body.adam.eps, body.adam.weight_decay)
        case "adamw":
            theirs = body.adamw
            return AdamW(theirs.lr, (theirs.beta1, theirs.beta2), theirs.eps, theirs.weight_decay)
        case _:
            raise WireError("an order names an optimiser that is not known here; use the same version on both sides")
