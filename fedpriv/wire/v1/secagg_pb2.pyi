from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Secagg(_message.Message):
    __slots__ = ("sid", "invite", "advertise", "roll", "shares", "delivery", "masked", "survivors", "confirm", "agreement", "unmask", "abort")
    SID_FIELD_NUMBER: _ClassVar[int]
    INVITE_FIELD_NUMBER: _ClassVar[int]
    ADVERTISE_FIELD_NUMBER: _ClassVar[int]
    ROLL_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    UNMASK_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    sid: bytes
    invite: SecaggDescriptor
    advertise: SecaggAdvertise
    roll: SecaggRoll
    shares: SecaggShares
    delivery: SecaggDelivery
    masked: SecaggMasked
    survivors: SecaggSurvivors
    confirm: SecaggConfirm
    agreement: SecaggAgreement
    unmask: SecaggUnmask
    abort: SecaggAbort
    def __init__(self, sid: _Optional[bytes] = ..., invite: _Optional[_Union[SecaggDescriptor, _Mapping]] = ..., advertise: _Optional[_Union[SecaggAdvertise, _Mapping]] = ..., roll: _Optional[_Union[SecaggRoll, _Mapping]] = ..., shares: _Optional[_Union[SecaggShares, _Mapping]] = ..., delivery: _Optional[_Union[SecaggDelivery, _Mapping]] = ..., masked: _Optional[_Union[SecaggMasked, _Mapping]] = ..., survivors: _Optional[_Union[SecaggSurvivors, _Mapping]] = ..., confirm: _Optional[_Union[SecaggConfirm, _Mapping]] = ..., agreement: _Optional[_Union[SecaggAgreement, _Mapping]] = ..., unmask: _Optional[_Union[SecaggUnmask, _Mapping]] = ..., abort: _Optional[_Union[SecaggAbort, _Mapping]] = ...) -> None: ...

class SecaggPart(_message.Message):
    __slots__ = ("name", "dtype", "shape", "bound", "fraction_bits", "treatment")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    FRACTION_BITS_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    name: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    bound: float
    fraction_bits: int
    treatment: str
    def __init__(self, name: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., bound: _Optional[float] = ..., fraction_bits: _Optional[int] = ..., treatment: _Optional[str] = ...) -> None: ...

class SecaggGraph(_message.Message):
    __slots__ = ("kind", "degree", "lost")
    KIND_FIELD_NUMBER: _ClassVar[int]
    DEGREE_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    kind: str
    degree: int
    lost: int
    def __init__(self, kind: _Optional[str] = ..., degree: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...

class SecaggDescriptor(_message.Message):
    __slots__ = ("protocol", "federation", "roster", "round", "model", "plan", "parts", "maximum_weight", "noise_bound", "modulus_bits", "workers", "threshold", "minimum_cohort", "graph", "privacy", "deadlines_seconds")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NOISE_BOUND_FIELD_NUMBER: _ClassVar[int]
    MODULUS_BITS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_COHORT_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    DEADLINES_SECONDS_FIELD_NUMBER: _ClassVar[int]
    protocol: str
    federation: str
    roster: bytes
    round: int
    model: bytes
    plan: bytes
    parts: _containers.RepeatedCompositeFieldContainer[SecaggPart]
    maximum_weight: int
    noise_bound: int
    modulus_bits: int
    workers: int
    threshold: int
    minimum_cohort: int
    graph: SecaggGraph
    privacy: str
    deadlines_seconds: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, protocol: _Optional[str] = ..., federation: _Optional[str] = ..., roster: _Optional[bytes] = ..., round: _Optional[int] = ..., model: _Optional[bytes] = ..., plan: _Optional[bytes] = ..., parts: _Optional[_Iterable[_Union[SecaggPart, _Mapping]]] = ..., maximum_weight: _Optional[int] = ..., noise_bound: _Optional[int] = ..., modulus_bits: _Optional[int] = ..., workers: _Optional[int] = ..., threshold: _Optional[int] = ..., minimum_cohort: _Optional[int] = ..., graph: _Optional[_Union[SecaggGraph, _Mapping]] = ..., privacy: _Optional[str] = ..., deadlines_seconds: _Optional[_Iterable[float]] = ...) -> None: ...

class SecaggAdvertise(_message.Message):
    __slots__ = ("worker", "sealing", "masking", "commitment", "signature")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SEALING_FIELD_NUMBER: _ClassVar[int]
    MASKING_FIELD_NUMBER: _ClassVar[int]
    COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    worker: str
    sealing: bytes
    masking: bytes
    commitment: bytes
    signature: bytes
    def __init__(self, worker: _Optional[str] = ..., sealing: _Optional[bytes] = ..., masking: _Optional[bytes] = ..., commitment: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SecaggNamed(_message.Message):
    __slots__ = ("worker", "content")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    worker: str
    content: bytes
    def __init__(self, worker: _Optional[str] = ..., content: _Optional[bytes] = ...) -> None: ...

class SecaggRoll(_message.Message):
    __slots__ = ("members", "everybody", "proof")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[SecaggAdvertise]
    everybody: _containers.RepeatedScalarFieldContainer[str]
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, members: _Optional[_Iterable[_Union[SecaggAdvertise, _Mapping]]] = ..., everybody: _Optional[_Iterable[str]] = ..., proof: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SecaggShares(_message.Message):
    __slots__ = ("ciphertexts", "signature")
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    ciphertexts: _containers.RepeatedCompositeFieldContainer[SecaggNamed]
    signature: bytes
    def __init__(self, ciphertexts: _Optional[_Iterable[_Union[SecaggNamed, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SecaggDelivery(_message.Message):
    __slots__ = ("members", "ciphertexts")
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedScalarFieldContainer[str]
    ciphertexts: _containers.RepeatedCompositeFieldContainer[SecaggNamed]
    def __init__(self, members: _Optional[_Iterable[str]] = ..., ciphertexts: _Optional[_Iterable[_Union[SecaggNamed, _Mapping]]] = ...) -> None: ...

class SecaggMasked(_message.Message):
    __slots__ = ("modulus_bits", "signature")
    MODULUS_BITS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    modulus_bits: int
    signature: bytes
    def __init__(self, modulus_bits: _Optional[int] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SecaggSurvivors(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, members: _Optional[_Iterable[str]] = ...) -> None: ...

class SecaggConfirm(_message.Message):
    __slots__ = ("signature",)
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    def __init__(self, signature: _Optional[bytes] = ...) -> None: ...

class SecaggAgreement(_message.Message):
    __slots__ = ("signatures",)
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.RepeatedCompositeFieldContainer[SecaggNamed]
    def __init__(self, signatures: _Optional[_Iterable[_Union[SecaggNamed, _Mapping]]] = ...) -> None: ...

class SecaggUnmask(_message.Message):
    __slots__ = ("self_shares", "key_shares", "signature")
    SELF_SHARES_FIELD_NUMBER: _ClassVar[int]
    KEY_SHARES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    self_shares: _containers.RepeatedCompositeFieldContainer[SecaggNamed]
    key_shares: _containers.RepeatedCompositeFieldContainer[SecaggNamed]
    signature: bytes
    def __init__(self, self_shares: _Optional[_Iterable[_Union[SecaggNamed, _Mapping]]] = ..., key_shares: _Optional[_Iterable[_Union[SecaggNamed, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SecaggAbort(_message.Message):
    __slots__ = ("round", "reason", "subject", "signature")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    round: int
    reason: str
    subject: str
    signature: bytes
    def __init__(self, round: _Optional[int] = ..., reason: _Optional[str] = ..., subject: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...
