"""The fields of each message, in protobuf and as values: one entry of `KINDS` per message type.

Lengths and counts are bounded here, enumerations are closed. Tensors and framing are not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedpriv.errors import UsageError, WireError
from fedpriv.ids import DatasetName, JobId
from fedpriv.privacy.budget import Account, Budget
from fedpriv.sealed import Envelope
from fedpriv.secagg.messages import Invite
from fedpriv.updates import DTYPES, TensorSet
from fedpriv.wire import messages as m
from fedpriv.wire import value_bodies
from fedpriv.wire.fields import DIGEST_BYTES, Kind, bounded, digest, kinds, purpose, short, text, texts
from fedpriv.wire.plans import decode_plan, encode_plan
from fedpriv.wire.private_bodies import pack_private, read_private
from fedpriv.wire.secagg import decode_secagg, encode_secagg
from fedpriv.wire.tensors import read_shape
from fedpriv.wire.v1 import session_pb2 as v1

NONCE_BYTES = 32
MAXIMUM_CERTIFICATES = 4
MAXIMUM_CERTIFICATE_BYTES = 8192
MAXIMUM_NOTE_BYTES = 1 << 16
MAXIMUM_SIGNATURE_BYTES = 1024
MAXIMUM_PROOF_HASHES = 64


def _pack_hello(hello: m.Hello, body: v1.Hello) -> None:
    body.certificates.extend(hello.certificates)
    body.nonce, body.protocol, body.software = hello.nonce, hello.protocol, hello.software


def _hello(body: v1.Hello, _: TensorSet) -> m.Hello:
    certificates = tuple(body.certificates)
    if not 0 < len(certificates) <= MAXIMUM_CERTIFICATES:
        raise WireError(f"a hello with {len(certificates)} certificates; 1 to {MAXIMUM_CERTIFICATES} are accepted")
    if max(map(len, certificates)) > MAXIMUM_CERTIFICATE_BYTES or len(body.nonce) != NONCE_BYTES:
        raise WireError("a hello with a certificate or a nonce of the wrong length")
    return m.Hello(certificates, body.nonce, body.protocol, text(body.software))


def _pack_hello_proof(proof: m.HelloProof, body: v1.HelloProof) -> None:
    body.signature = proof.signature


def _hello_proof(body: v1.HelloProof, _: TensorSet) -> m.HelloProof:
    return m.HelloProof(short(body.signature, 256, "a signature"))


def _pack_announcement(announcement: m.Announcement, body: v1.Announcement) -> None:
    body.torch_version = announcement.torch_version
    for dataset in announcement.datasets:
        entry = body.datasets.add(
            name=dataset.name,
            features=[v1.Column(name=column.name, kind=column.kind) for column in dataset.features],
            feature_shape=dataset.feature_shape,
            feature_dtype=dataset.feature_dtype,
            target=v1.Column(name=dataset.target.name, kind=dataset.target.kind),
            target_dtype=dataset.target_dtype,
            classes=dataset.classes,
            tags=dataset.tags,
        )
        if dataset.rows is not None:
            entry.rows = dataset.rows


def _announcement(body: v1.Announcement, _: TensorSet) -> m.Announcement:
    return m.Announcement(text(body.torch_version), tuple(map(_dataset, bounded(body.datasets))))


def _dataset(body: v1.DatasetDescription) -> m.DatasetDescription:
    if body.feature_dtype not in DTYPES or body.target_dtype not in DTYPES:
        raise WireError("a data set is announced with a dtype that does not travel")
    return m.DatasetDescription(
        name=DatasetName(text(body.name)),
        features=tuple(map(_column, bounded(body.features))),
        feature_shape=read_shape(body.feature_shape),
        feature_dtype=body.feature_dtype,
        target=_column(body.target),
        target_dtype=body.target_dtype,
        classes=texts(body.classes),
        tags=texts(body.tags),
        rows=body.rows if body.HasField("rows") else None,
    )


def _column(body: v1.Column) -> m.Column:
    return m.Column(text(body.name), text(body.kind))


def _pack_offer_plan(offer: m.OfferPlan, body: v1.OfferPlan) -> None:
    body.request, body.plan = offer.request, encode_plan(offer.plan)


def _offer_plan(body: v1.OfferPlan, _: TensorSet) -> m.OfferPlan:
    return m.OfferPlan(body.request, decode_plan(body.plan))


def _pack_train(train: m.Train, body: v1.Train) -> None:
    body.request, body.job, body.round = train.request, train.job, train.round
    body.dataset, body.plan = train.dataset, train.plan
    body.epochs, body.batch_size = train.epochs, train.batch_size
    body.shuffle, body.drop_last, body.seed = train.shuffle, train.drop_last, train.seed
    body.hyperparameters.extend(_named(train.hyperparameters))
    body.metrics.extend(kinds(train.metrics))
    body.purpose = purpose(train.purpose)
    body.invite = _pack_invite(train.invite)
    if train.privacy is not None:
        pack_private(train.privacy, body.privacy)


def _train(body: v1.Train, tensors: TensorSet) -> m.Train:
    return m.Train(
        request=body.request,
        job=JobId(text(body.job)),
        round=body.round,
        dataset=DatasetName(text(body.dataset)),
        plan=digest(body.plan),
        epochs=body.epochs,
        batch_size=body.batch_size,
        shuffle=body.shuffle,
        drop_last=body.drop_last,
        seed=body.seed,
        hyperparameters=_numbers(body.hyperparameters),
        metrics=kinds(body.metrics),
        purpose=purpose(body.purpose),
        model=tensors,
        invite=_invite(body.invite),
        privacy=read_private(body.privacy) if body.HasField("privacy") else None,
    )


def _pack_evaluate(evaluate: m.Evaluate, body: v1.Evaluate) -> None:
    body.request, body.job, body.round = evaluate.request, evaluate.job, evaluate.round
    body.dataset, body.plan, body.batch_size = evaluate.dataset, evaluate.plan, evaluate.batch_size
    body.metrics.extend(kinds(evaluate.metrics))
    body.purpose = purpose(evaluate.purpose)
    body.invite = _pack_invite(evaluate.invite)


def _evaluate(body: v1.Evaluate, tensors: TensorSet) -> m.Evaluate:
    return m.Evaluate(
        request=body.request,
        job=JobId(text(body.job)),
        round=body.round,
        dataset=DatasetName(text(body.dataset)),
        plan=digest(body.plan),
        batch_size=body.batch_size,
        metrics=kinds(body.metrics),
        purpose=purpose(body.purpose),
        model=tensors,
        invite=_invite(body.invite),
    )


def _pack_ask_statistics(ask: m.AskStatistics, body: v1.AskStatistics) -> None:
    body.request, body.dataset, body.purpose = ask.request, ask.dataset, purpose(ask.purpose)
    body.kinds.extend(kinds(ask.kinds))
    body.invite = _pack_invite(ask.invite)


def _ask_statistics(body: v1.AskStatistics, _: TensorSet) -> m.AskStatistics:
    invite = _invite(body.invite)
    return m.AskStatistics(
        body.request, DatasetName(text(body.dataset)), kinds(body.kinds), purpose(body.purpose), invite
    )


def _pack_invite(invite: Invite | None) -> bytes:
    return b"" if invite is None else encode_secagg(invite).header


def _invite(body: bytes) -> Invite | None:
    """Return the invitation to a round of secure aggregation that an order brings, None where there is none."""
    if not body:
        return None
    invite = decode_secagg(Envelope(body))
    if not isinstance(invite, Invite):
        raise WireError("an order brings another message of secure aggregation than an invitation")
    return invite


def _pack_ask_mock(ask: m.AskMock, body: v1.AskMock) -> None:
    body.request, body.dataset = ask.request, ask.dataset


def _ask_mock(body: v1.AskMock, _: TensorSet) -> m.AskMock:
    return m.AskMock(body.request, DatasetName(text(body.dataset)))


def _pack_ask_checkpoint(ask: m.AskCheckpoint, body: v1.AskCheckpoint) -> None:
    body.request, body.held = ask.request, ask.held


def _ask_checkpoint(body: v1.AskCheckpoint, _: TensorSet) -> m.AskCheckpoint:
    return m.AskCheckpoint(body.request, short(body.held, MAXIMUM_NOTE_BYTES, "a note"))


def _pack_ask_budget(ask: m.AskBudget, body: v1.AskBudget) -> None:
    body.request, body.dataset = ask.request, ask.dataset


def _ask_budget(body: v1.AskBudget, _: TensorSet) -> m.AskBudget:
    return m.AskBudget(body.request, DatasetName(text(body.dataset)))


def _pack_budget_left(left: m.BudgetLeft, body: v1.BudgetLeft) -> None:
    body.request = left.request
    if left.account is not None:
        budget = left.account.budget
        body.epsilon, body.delta, body.unit = budget.epsilon, budget.delta, budget.unit
        body.spent.extend(left.account.rdp)


def _budget_left(body: v1.BudgetLeft, _: TensorSet) -> m.BudgetLeft:
    try:
        account = (
            Account(Budget(body.epsilon, body.delta, text(body.unit)), tuple(body.spent)) if body.epsilon else None
        )
    except UsageError as error:
        raise WireError(f"a budget that is none: {error}") from None
    return m.BudgetLeft(body.request, account)


def _pack_close_round(close: m.CloseRound, body: v1.CloseRound) -> None:
    body.job, body.round = close.job, close.round


def _close_round(body: v1.CloseRound, _: TensorSet) -> m.CloseRound:
    return m.CloseRound(JobId(text(body.job)), body.round)


def _pack_cosigned(cosigned: m.Cosigned, body: v1.Cosigned) -> None:
    body.vkey, body.signature = cosigned.vkey, cosigned.signature


def _cosigned(body: v1.Cosigned, _: TensorSet) -> m.Cosigned:
    return m.Cosigned(text(body.vkey), short(body.signature, MAXIMUM_SIGNATURE_BYTES, "a signature line"))


def _pack_plan_accepted(accepted: m.PlanAccepted, body: v1.PlanAccepted) -> None:
    body.request, body.plan = accepted.request, accepted.plan


def _plan_accepted(body: v1.PlanAccepted, _: TensorSet) -> m.PlanAccepted:
    return m.PlanAccepted(body.request, digest(body.plan))


def _pack_update(update: m.Update, body: v1.Update) -> None:
    memory = f"MEMORY_{update.memory.name}"
    body.MergeFrom(v1.Update(request=update.request, round=update.round, weight=update.weight, memory=memory))
    body.metrics.extend(_named(update.metrics))


def _update(body: v1.Update, tensors: TensorSet) -> m.Update:
    try:
        memory = m.Memory(body.memory)
    except ValueError:
        raise WireError(f"memory {body.memory} is unknown; both sides need the same protocol version") from None
    return m.Update(body.request, body.round, body.weight, _numbers(body.metrics), tensors, memory)


def _pack_evaluation(evaluation: m.Evaluation, body: v1.Evaluation) -> None:
    body.request, body.round, body.weight = evaluation.request, evaluation.round, evaluation.weight
    body.metrics.extend(_named(evaluation.metrics))


def _evaluation(body: v1.Evaluation, _: TensorSet) -> m.Evaluation:
    return m.Evaluation(body.request, body.round, body.weight, _numbers(body.metrics))


def _pack_statistics(statistics: m.Statistics, body: v1.Statistics) -> None:
    body.request = statistics.request


def _statistics(body: v1.Statistics, tensors: TensorSet) -> m.Statistics:
    return m.Statistics(body.request, tensors)


def _pack_mock(mock: m.Mock, body: v1.Mock) -> None:
    body.request = mock.request


def _mock(body: v1.Mock, tensors: TensorSet) -> m.Mock:
    return m.Mock(body.request, tensors)


def _pack_checkpoint(checkpoint: m.Checkpoint, body: v1.Checkpoint) -> None:
    body.request, body.note, body.vkey = checkpoint.request, checkpoint.note, checkpoint.vkey
    body.proof.extend(checkpoint.proof)


def _checkpoint(body: v1.Checkpoint, _: TensorSet) -> m.Checkpoint:
    proof = tuple(body.proof)
    if len(proof) > MAXIMUM_PROOF_HASHES or any(len(each) != DIGEST_BYTES for each in proof):
        raise WireError(f"a proof of other than at most {MAXIMUM_PROOF_HASHES} hashes of {DIGEST_BYTES} bytes")
    return m.Checkpoint(body.request, short(body.note, MAXIMUM_NOTE_BYTES, "a note"), proof, text(body.vkey))


def _pack_failure(failure: m.Failure, body: v1.Failure) -> None:
    code = f"ERROR_CODE_{failure.code.name}"
    body.MergeFrom(v1.Failure(request=failure.request, code=code, operation=failure.operation))
    if failure.step >= 0:
        body.step = failure.step


def _failure(body: v1.Failure, _: TensorSet) -> m.Failure:
    try:
        code = m.ErrorCode(body.code)
    except ValueError:
        raise WireError(f"error code {body.code} is unknown; both sides need the same protocol version") from None
    return m.Failure(body.request, code, body.step if body.HasField("step") else -1, text(body.operation))


def _pack_goodbye(goodbye: m.Goodbye, body: v1.Goodbye) -> None:
    if goodbye.reason is not m.Parting.DONE:
        body.MergeFrom(v1.Goodbye(reason=f"GOODBYE_REASON_{goodbye.reason.name}"))


def _goodbye(body: v1.Goodbye, _: TensorSet) -> m.Goodbye:
    try:
        return m.Goodbye(m.Parting(body.reason))
    except ValueError:
        raise WireError(f"goodbye {body.reason} is unknown; both sides need the same protocol version") from None


def _named(numbers: Mapping[str, float]) -> list[v1.NamedNumber]:
    return [v1.NamedNumber(name=name, value=value) for name, value in numbers.items()]


def _numbers(body: Sequence[v1.NamedNumber]) -> dict[str, float]:
    numbers = {text(number.name): number.value for number in bounded(body)}
    if len(numbers) != len(body):
        raise WireError("two numbers of one message have the same name")
    return numbers


KINDS: Mapping[type, Kind] = {
    m.Hello: Kind("hello", _pack_hello, _hello),
    m.HelloProof: Kind("hello_proof", _pack_hello_proof, _hello_proof),
    m.Announcement: Kind("announcement", _pack_announcement, _announcement),
    m.OfferPlan: Kind("offer_plan", _pack_offer_plan, _offer_plan),
    m.Train: Kind("train", _pack_train, _train, tensors="model"),
    m.Evaluate: Kind("evaluate", _pack_evaluate, _evaluate, tensors="model"),
    m.AskStatistics: Kind("ask_statistics", _pack_ask_statistics, _ask_statistics),
    m.CloseRound: Kind("close_round", _pack_close_round, _close_round),
    m.PlanAccepted: Kind("plan_accepted", _pack_plan_accepted, _plan_accepted),
    m.Update: Kind("update", _pack_update, _update, tensors="delta"),
    m.Evaluation: Kind("evaluation", _pack_evaluation, _evaluation),
    m.Statistics: Kind("statistics", _pack_statistics, _statistics, tensors="values"),
    m.Failure: Kind("failure", _pack_failure, _failure),
    m.Goodbye: Kind("goodbye", _pack_goodbye, _goodbye),
    m.AskBudget: Kind("ask_budget", _pack_ask_budget, _ask_budget),
    m.BudgetLeft: Kind("budget_left", _pack_budget_left, _budget_left),
    m.AskCheckpoint: Kind("ask_checkpoint", _pack_ask_checkpoint, _ask_checkpoint),
    m.Checkpoint: Kind("checkpoint", _pack_checkpoint, _checkpoint),
    m.Cosigned: Kind("cosigned", _pack_cosigned, _cosigned),
    m.AskMock: Kind("ask_mock", _pack_ask_mock, _ask_mock),
    m.Mock: Kind("mock", _pack_mock, _mock, tensors="values"),
    **value_bodies.KINDS,
}
KINDS_BY_FIELD: Mapping[str, Kind] = {kind.field: kind for kind in KINDS.values()}
