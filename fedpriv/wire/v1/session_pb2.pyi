from fedpriv.wire.v1 import pointer_pb2 as _pointer_pb2
from fedpriv.wire.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Memory(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MEMORY_NONE: _ClassVar[Memory]
    MEMORY_FOUND: _ClassVar[Memory]
    MEMORY_ANEW: _ClassVar[Memory]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ERROR_CODE_UNSPECIFIED: _ClassVar[ErrorCode]
    ERROR_CODE_BAD_REQUEST: _ClassVar[ErrorCode]
    ERROR_CODE_UNKNOWN_DATASET: _ClassVar[ErrorCode]
    ERROR_CODE_UNKNOWN_PLAN: _ClassVar[ErrorCode]
    ERROR_CODE_PLAN_REFUSED: _ClassVar[ErrorCode]
    ERROR_CODE_OPERATION_NOT_ALLOWED: _ClassVar[ErrorCode]
    ERROR_CODE_OVER_QUOTA: _ClassVar[ErrorCode]
    ERROR_CODE_INPUT_MISMATCH: _ClassVar[ErrorCode]
    ERROR_CODE_RELEASE_DENIED: _ClassVar[ErrorCode]
    ERROR_CODE_STEP_FAILED: _ClassVar[ErrorCode]
    ERROR_CODE_TORCH_VERSION: _ClassVar[ErrorCode]
    ERROR_CODE_STORAGE_FULL: _ClassVar[ErrorCode]
    ERROR_CODE_SHUTTING_DOWN: _ClassVar[ErrorCode]
    ERROR_CODE_APPROVAL_PENDING: _ClassVar[ErrorCode]
    ERROR_CODE_RELEASE_LOST: _ClassVar[ErrorCode]
    ERROR_CODE_APPROVAL_DENIED: _ClassVar[ErrorCode]
    ERROR_CODE_OVER_WORK: _ClassVar[ErrorCode]
    ERROR_CODE_OVER_VALUES: _ClassVar[ErrorCode]
    ERROR_CODE_OVER_REQUESTS: _ClassVar[ErrorCode]
    ERROR_CODE_OVER_STEPS: _ClassVar[ErrorCode]
    ERROR_CODE_NOT_ENROLLED: _ClassVar[ErrorCode]
    ERROR_CODE_BUDGET_EXCEEDED: _ClassVar[ErrorCode]
    ERROR_CODE_SUM_TOO_SMALL: _ClassVar[ErrorCode]

class GoodbyeReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GOODBYE_REASON_UNSPECIFIED: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_NOT_EXPECTED: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_NAME_TAKEN: _ClassVar[GoodbyeReason]
    GOODBYE_REASON_LEDGER_REFUSED: _ClassVar[GoodbyeReason]
MEMORY_NONE: Memory
MEMORY_FOUND: Memory
MEMORY_ANEW: Memory
ERROR_CODE_UNSPECIFIED: ErrorCode
ERROR_CODE_BAD_REQUEST: ErrorCode
ERROR_CODE_UNKNOWN_DATASET: ErrorCode
ERROR_CODE_UNKNOWN_PLAN: ErrorCode
ERROR_CODE_PLAN_REFUSED: ErrorCode
ERROR_CODE_OPERATION_NOT_ALLOWED: ErrorCode
ERROR_CODE_OVER_QUOTA: ErrorCode
ERROR_CODE_INPUT_MISMATCH: ErrorCode
ERROR_CODE_RELEASE_DENIED: ErrorCode
ERROR_CODE_STEP_FAILED: ErrorCode
ERROR_CODE_TORCH_VERSION: ErrorCode
ERROR_CODE_STORAGE_FULL: ErrorCode
ERROR_CODE_SHUTTING_DOWN: ErrorCode
ERROR_CODE_APPROVAL_PENDING: ErrorCode
ERROR_CODE_RELEASE_LOST: ErrorCode
ERROR_CODE_APPROVAL_DENIED: ErrorCode
ERROR_CODE_OVER_WORK: ErrorCode
ERROR_CODE_OVER_VALUES: ErrorCode
ERROR_CODE_OVER_REQUESTS: ErrorCode
ERROR_CODE_OVER_STEPS: ErrorCode
ERROR_CODE_NOT_ENROLLED: ErrorCode
ERROR_CODE_BUDGET_EXCEEDED: ErrorCode
ERROR_CODE_SUM_TOO_SMALL: ErrorCode
GOODBYE_REASON_UNSPECIFIED: GoodbyeReason
GOODBYE_REASON_NOT_EXPECTED: GoodbyeReason
GOODBYE_REASON_NAME_TAKEN: GoodbyeReason
GOODBYE_REASON_LEDGER_REFUSED: GoodbyeReason

class Frame(_message.Message):
    __slots__ = ("header_bytes", "payload_bytes", "entry", "entry_key", "chunk")
    HEADER_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    ENTRY_KEY_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header_bytes: int
    payload_bytes: int
    entry: int
    entry_key: bytes
    chunk: bytes
    def __init__(self, header_bytes: _Optional[int] = ..., payload_bytes: _Optional[int] = ..., entry: _Optional[int] = ..., entry_key: _Optional[bytes] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("hello", "hello_proof", "announcement", "offer_plan", "train", "evaluate", "ask_statistics", "close_round", "plan_accepted", "update", "evaluation", "statistics", "failure", "goodbye", "ask_checkpoint", "checkpoint", "cosigned", "ask_mock", "mock", "calls", "put", "open_dataset", "fetch", "value", "ask_objects", "objects", "ask_release", "ticket", "collect", "open_session", "session_open", "ask_budget", "budget_left", "secagg")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HELLO_PROOF_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCEMENT_FIELD_NUMBER: _ClassVar[int]
    OFFER_PLAN_FIELD_NUMBER: _ClassVar[int]
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    ASK_STATISTICS_FIELD_NUMBER: _ClassVar[int]
    CLOSE_ROUND_FIELD_NUMBER: _ClassVar[int]
    PLAN_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    ASK_CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    COSIGNED_FIELD_NUMBER: _ClassVar[int]
    ASK_MOCK_FIELD_NUMBER: _ClassVar[int]
    MOCK_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    OPEN_DATASET_FIELD_NUMBER: _ClassVar[int]
    FETCH_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    ASK_OBJECTS_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    ASK_RELEASE_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    COLLECT_FIELD_NUMBER: _ClassVar[int]
    OPEN_SESSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_OPEN_FIELD_NUMBER: _ClassVar[int]
    ASK_BUDGET_FIELD_NUMBER: _ClassVar[int]
    BUDGET_LEFT_FIELD_NUMBER: _ClassVar[int]
    SECAGG_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    hello_proof: HelloProof
    announcement: Announcement
    offer_plan: OfferPlan
    train: Train
    evaluate: Evaluate
    ask_statistics: AskStatistics
    close_round: CloseRound
    plan_accepted: PlanAccepted
    update: Update
    evaluation: Evaluation
    statistics: Statistics
    failure: Failure
    goodbye: Goodbye
    ask_checkpoint: AskCheckpoint
    checkpoint: Checkpoint
    cosigned: Cosigned
    ask_mock: AskMock
    mock: Mock
    calls: _pointer_pb2.Calls
    put: _pointer_pb2.Put
    open_dataset: _pointer_pb2.OpenDataset
    fetch: _pointer_pb2.Fetch
    value: _pointer_pb2.Value
    ask_objects: _pointer_pb2.AskObjects
    objects: _pointer_pb2.Objects
    ask_release: _pointer_pb2.AskRelease
    ticket: _pointer_pb2.Ticket
    collect: _pointer_pb2.Collect
    open_session: _pointer_pb2.OpenSession
    session_open: _pointer_pb2.SessionOpen
    ask_budget: AskBudget
    budget_left: BudgetLeft
    secagg: bytes
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., hello_proof: _Optional[_Union[HelloProof, _Mapping]] = ..., announcement: _Optional[_Union[Announcement, _Mapping]] = ..., offer_plan: _Optional[_Union[OfferPlan, _Mapping]] = ..., train: _Optional[_Union[Train, _Mapping]] = ..., evaluate: _Optional[_Union[Evaluate, _Mapping]] = ..., ask_statistics: _Optional[_Union[AskStatistics, _Mapping]] = ..., close_round: _Optional[_Union[CloseRound, _Mapping]] = ..., plan_accepted: _Optional[_Union[PlanAccepted, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., ask_checkpoint: _Optional[_Union[AskCheckpoint, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., cosigned: _Optional[_Union[Cosigned, _Mapping]] = ..., ask_mock: _Optional[_Union[AskMock, _Mapping]] = ..., mock: _Optional[_Union[Mock, _Mapping]] = ..., calls: _Optional[_Union[_pointer_pb2.Calls, _Mapping]] = ..., put: _Optional[_Union[_pointer_pb2.Put, _Mapping]] = ..., open_dataset: _Optional[_Union[_pointer_pb2.OpenDataset, _Mapping]] = ..., fetch: _Optional[_Union[_pointer_pb2.Fetch, _Mapping]] = ..., value: _Optional[_Union[_pointer_pb2.Value, _Mapping]] = ..., ask_objects: _Optional[_Union[_pointer_pb2.AskObjects, _Mapping]] = ..., objects: _Optional[_Union[_pointer_pb2.Objects, _Mapping]] = ..., ask_release: _Optional[_Union[_pointer_pb2.AskRelease, _Mapping]] = ..., ticket: _Optional[_Union[_pointer_pb2.Ticket, _Mapping]] = ..., collect: _Optional[_Union[_pointer_pb2.Collect, _Mapping]] = ..., open_session: _Optional[_Union[_pointer_pb2.OpenSession, _Mapping]] = ..., session_open: _Optional[_Union[_pointer_pb2.SessionOpen, _Mapping]] = ..., ask_budget: _Optional[_Union[AskBudget, _Mapping]] = ..., budget_left: _Optional[_Union[BudgetLeft, _Mapping]] = ..., secagg: _Optional[bytes] = ...) -> None: ...

class NamedNumber(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("certificates", "nonce", "protocol", "software")
    CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    certificates: _containers.RepeatedScalarFieldContainer[bytes]
    nonce: bytes
    protocol: int
    software: str
    def __init__(self, certificates: _Optional[_Iterable[bytes]] = ..., nonce: _Optional[bytes] = ..., protocol: _Optional[int] = ..., software: _Optional[str] = ...) -> None: ...

class HelloProof(_message.Message):
    __slots__ = ("signature",)
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    signature: bytes
    def __init__(self, signature: _Optional[bytes] = ...) -> None: ...

class Column(_message.Message):
    __slots__ = ("name", "kind")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class DatasetDescription(_message.Message):
    __slots__ = ("name", "features", "feature_shape", "feature_dtype", "target", "target_dtype", "classes", "tags", "rows")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    FEATURE_SHAPE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    TARGET_DTYPE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    name: str
    features: _containers.RepeatedCompositeFieldContainer[Column]
    feature_shape: _containers.RepeatedScalarFieldContainer[int]
    feature_dtype: str
    target: Column
    target_dtype: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.RepeatedScalarFieldContainer[str]
    rows: int
    def __init__(self, name: _Optional[str] = ..., features: _Optional[_Iterable[_Union[Column, _Mapping]]] = ..., feature_shape: _Optional[_Iterable[int]] = ..., feature_dtype: _Optional[str] = ..., target: _Optional[_Union[Column, _Mapping]] = ..., target_dtype: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., tags: _Optional[_Iterable[str]] = ..., rows: _Optional[int] = ...) -> None: ...

class Announcement(_message.Message):
    __slots__ = ("torch_version", "datasets")
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    DATASETS_FIELD_NUMBER: _ClassVar[int]
    torch_version: str
    datasets: _containers.RepeatedCompositeFieldContainer[DatasetDescription]
    def __init__(self, torch_version: _Optional[str] = ..., datasets: _Optional[_Iterable[_Union[DatasetDescription, _Mapping]]] = ...) -> None: ...

class OfferPlan(_message.Message):
    __slots__ = ("request", "plan")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    request: int
    plan: bytes
    def __init__(self, request: _Optional[int] = ..., plan: _Optional[bytes] = ...) -> None: ...

class Train(_message.Message):
    __slots__ = ("request", "job", "round", "dataset", "plan", "epochs", "batch_size", "shuffle", "drop_last", "seed", "hyperparameters", "metrics", "purpose", "model", "invite", "privacy")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    DROP_LAST_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    HYPERPARAMETERS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INVITE_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    request: int
    job: str
    round: int
    dataset: str
    plan: bytes
    epochs: int
    batch_size: int
    shuffle: bool
    drop_last: bool
    seed: int
    hyperparameters: _containers.RepeatedCompositeFieldContainer[NamedNumber]
    metrics: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    model: _tensor_pb2.TensorSet
    invite: bytes
    privacy: Privacy
    def __init__(self, request: _Optional[int] = ..., job: _Optional[str] = ..., round: _Optional[int] = ..., dataset: _Optional[str] = ..., plan: _Optional[bytes] = ..., epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., shuffle: _Optional[bool] = ..., drop_last: _Optional[bool] = ..., seed: _Optional[int] = ..., hyperparameters: _Optional[_Iterable[_Union[NamedNumber, _Mapping]]] = ..., metrics: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., model: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ..., invite: _Optional[bytes] = ..., privacy: _Optional[_Union[Privacy, _Mapping]] = ...) -> None: ...

class Privacy(_message.Message):
    __slots__ = ("rounds", "workers", "clip", "noise_multiplier", "delta", "central", "distributed", "local", "example", "tree")
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    CENTRAL_FIELD_NUMBER: _ClassVar[int]
    DISTRIBUTED_FIELD_NUMBER: _ClassVar[int]
    LOCAL_FIELD_NUMBER: _ClassVar[int]
    EXAMPLE_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    rounds: int
    workers: int
    clip: float
    noise_multiplier: float
    delta: float
    central: CentralMode
    distributed: DistributedMode
    local: LocalMode
    example: ExampleMode
    tree: TreeMode
    def __init__(self, rounds: _Optional[int] = ..., workers: _Optional[int] = ..., clip: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., delta: _Optional[float] = ..., central: _Optional[_Union[CentralMode, _Mapping]] = ..., distributed: _Optional[_Union[DistributedMode, _Mapping]] = ..., local: _Optional[_Union[LocalMode, _Mapping]] = ..., example: _Optional[_Union[ExampleMode, _Mapping]] = ..., tree: _Optional[_Union[TreeMode, _Mapping]] = ...) -> None: ...

class CentralMode(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DistributedMode(_message.Message):
    __slots__ = ("mechanism", "scale_bits", "colluding")
    MECHANISM_FIELD_NUMBER: _ClassVar[int]
    SCALE_BITS_FIELD_NUMBER: _ClassVar[int]
    COLLUDING_FIELD_NUMBER: _ClassVar[int]
    mechanism: str
    scale_bits: int
    colluding: int
    def __init__(self, mechanism: _Optional[str] = ..., scale_bits: _Optional[int] = ..., colluding: _Optional[int] = ...) -> None: ...

class LocalMode(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExampleMode(_message.Message):
    __slots__ = ("sgd", "adam", "adamw")
    SGD_FIELD_NUMBER: _ClassVar[int]
    ADAM_FIELD_NUMBER: _ClassVar[int]
    ADAMW_FIELD_NUMBER: _ClassVar[int]
    sgd: Sgd
    adam: Adam
    adamw: Adam
    def __init__(self, sgd: _Optional[_Union[Sgd, _Mapping]] = ..., adam: _Optional[_Union[Adam, _Mapping]] = ..., adamw: _Optional[_Union[Adam, _Mapping]] = ...) -> None: ...

class TreeMode(_message.Message):
    __slots__ = ("bands",)
    BANDS_FIELD_NUMBER: _ClassVar[int]
    bands: int
    def __init__(self, bands: _Optional[int] = ...) -> None: ...

class Sgd(_message.Message):
    __slots__ = ("lr", "momentum", "weight_decay", "nesterov", "dampening")
    LR_FIELD_NUMBER: _ClassVar[int]
    MOMENTUM_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    NESTEROV_FIELD_NUMBER: _ClassVar[int]
    DAMPENING_FIELD_NUMBER: _ClassVar[int]
    lr: float
    momentum: float
    weight_decay: float
    nesterov: bool
    dampening: float
    def __init__(self, lr: _Optional[float] = ..., momentum: _Optional[float] = ..., weight_decay: _Optional[float] = ..., nesterov: _Optional[bool] = ..., dampening: _Optional[float] = ...) -> None: ...

class Adam(_message.Message):
    __slots__ = ("lr", "beta1", "beta2", "eps", "weight_decay")
    LR_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPS_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    def __init__(self, lr: _Optional[float] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., eps: _Optional[float] = ..., weight_decay: _Optional[float] = ...) -> None: ...

class Evaluate(_message.Message):
    __slots__ = ("request", "job", "round", "dataset", "plan", "batch_size", "metrics", "purpose", "model", "invite")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    INVITE_FIELD_NUMBER: _ClassVar[int]
    request: int
    job: str
    round: int
    dataset: str
    plan: bytes
    batch_size: int
    metrics: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    model: _tensor_pb2.TensorSet
    invite: bytes
    def __init__(self, request: _Optional[int] = ..., job: _Optional[str] = ..., round: _Optional[int] = ..., dataset: _Optional[str] = ..., plan: _Optional[bytes] = ..., batch_size: _Optional[int] = ..., metrics: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., model: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ..., invite: _Optional[bytes] = ...) -> None: ...

class AskStatistics(_message.Message):
    __slots__ = ("request", "dataset", "kinds", "purpose", "invite")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    INVITE_FIELD_NUMBER: _ClassVar[int]
    request: int
    dataset: str
    kinds: _containers.RepeatedScalarFieldContainer[str]
    purpose: str
    invite: bytes
    def __init__(self, request: _Optional[int] = ..., dataset: _Optional[str] = ..., kinds: _Optional[_Iterable[str]] = ..., purpose: _Optional[str] = ..., invite: _Optional[bytes] = ...) -> None: ...

class CloseRound(_message.Message):
    __slots__ = ("job", "round")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    job: str
    round: int
    def __init__(self, job: _Optional[str] = ..., round: _Optional[int] = ...) -> None: ...

class PlanAccepted(_message.Message):
    __slots__ = ("request", "plan")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    request: int
    plan: bytes
    def __init__(self, request: _Optional[int] = ..., plan: _Optional[bytes] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("request", "round", "weight", "metrics", "delta", "memory")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    request: int
    round: int
    weight: float
    metrics: _containers.RepeatedCompositeFieldContainer[NamedNumber]
    delta: _tensor_pb2.TensorSet
    memory: Memory
    def __init__(self, request: _Optional[int] = ..., round: _Optional[int] = ..., weight: _Optional[float] = ..., metrics: _Optional[_Iterable[_Union[NamedNumber, _Mapping]]] = ..., delta: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ..., memory: _Optional[_Union[Memory, str]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("request", "round", "weight", "metrics")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    request: int
    round: int
    weight: float
    metrics: _containers.RepeatedCompositeFieldContainer[NamedNumber]
    def __init__(self, request: _Optional[int] = ..., round: _Optional[int] = ..., weight: _Optional[float] = ..., metrics: _Optional[_Iterable[_Union[NamedNumber, _Mapping]]] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("request", "values")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    request: int
    values: _tensor_pb2.TensorSet
    def __init__(self, request: _Optional[int] = ..., values: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("request", "code", "step", "operation")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    request: int
    code: ErrorCode
    step: int
    operation: str
    def __init__(self, request: _Optional[int] = ..., code: _Optional[_Union[ErrorCode, str]] = ..., step: _Optional[int] = ..., operation: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: GoodbyeReason
    def __init__(self, reason: _Optional[_Union[GoodbyeReason, str]] = ...) -> None: ...

class AskCheckpoint(_message.Message):
    __slots__ = ("request", "held")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    request: int
    held: bytes
    def __init__(self, request: _Optional[int] = ..., held: _Optional[bytes] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("request", "note", "proof", "vkey")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    VKEY_FIELD_NUMBER: _ClassVar[int]
    request: int
    note: bytes
    proof: _containers.RepeatedScalarFieldContainer[bytes]
    vkey: str
    def __init__(self, request: _Optional[int] = ..., note: _Optional[bytes] = ..., proof: _Optional[_Iterable[bytes]] = ..., vkey: _Optional[str] = ...) -> None: ...

class Cosigned(_message.Message):
    __slots__ = ("vkey", "signature")
    VKEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    vkey: str
    signature: bytes
    def __init__(self, vkey: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class AskBudget(_message.Message):
    __slots__ = ("request", "dataset")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    request: int
    dataset: str
    def __init__(self, request: _Optional[int] = ..., dataset: _Optional[str] = ...) -> None: ...

class BudgetLeft(_message.Message):
    __slots__ = ("request", "epsilon", "delta", "unit", "spent")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    request: int
    epsilon: float
    delta: float
    unit: str
    spent: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, request: _Optional[int] = ..., epsilon: _Optional[float] = ..., delta: _Optional[float] = ..., unit: _Optional[str] = ..., spent: _Optional[_Iterable[float]] = ...) -> None: ...

class AskMock(_message.Message):
    __slots__ = ("request", "dataset")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    request: int
    dataset: str
    def __init__(self, request: _Optional[int] = ..., dataset: _Optional[str] = ...) -> None: ...

class Mock(_message.Message):
    __slots__ = ("request", "values")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    request: int
    values: _tensor_pb2.TensorSet
    def __init__(self, request: _Optional[int] = ..., values: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ...) -> None: ...
