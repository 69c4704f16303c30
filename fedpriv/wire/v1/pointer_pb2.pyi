from fedpriv.wire.v1 import plan_pb2 as _plan_pb2
from fedpriv.wire.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TensorLayout(_message.Message):
    __slots__ = ("dtype", "shape", "strides")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    STRIDES_FIELD_NUMBER: _ClassVar[int]
    dtype: _tensor_pb2.DType
    shape: _containers.RepeatedScalarFieldContainer[int]
    strides: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., shape: _Optional[_Iterable[int]] = ..., strides: _Optional[_Iterable[int]] = ...) -> None: ...

class Definition(_message.Message):
    __slots__ = ("step", "plan", "operands", "numbers", "writes")
    STEP_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    OPERANDS_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    step: _plan_pb2.PlanStep
    plan: bytes
    operands: _containers.RepeatedCompositeFieldContainer[TensorLayout]
    numbers: int
    writes: bool
    def __init__(self, step: _Optional[_Union[_plan_pb2.PlanStep, _Mapping]] = ..., plan: _Optional[bytes] = ..., operands: _Optional[_Iterable[_Union[TensorLayout, _Mapping]]] = ..., numbers: _Optional[int] = ..., writes: _Optional[bool] = ...) -> None: ...

class Calls(_message.Message):
    __slots__ = ("sequence", "definitions", "words")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DEFINITIONS_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    definitions: _containers.RepeatedCompositeFieldContainer[Definition]
    words: bytes
    def __init__(self, sequence: _Optional[int] = ..., definitions: _Optional[_Iterable[_Union[Definition, _Mapping]]] = ..., words: _Optional[bytes] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("sequence", "first", "tags", "description", "values")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    first: int
    tags: _containers.RepeatedScalarFieldContainer[str]
    description: str
    values: _tensor_pb2.TensorSet
    def __init__(self, sequence: _Optional[int] = ..., first: _Optional[int] = ..., tags: _Optional[_Iterable[str]] = ..., description: _Optional[str] = ..., values: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ...) -> None: ...

class OpenDataset(_message.Message):
    __slots__ = ("sequence", "first", "dataset")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    first: int
    dataset: str
    def __init__(self, sequence: _Optional[int] = ..., first: _Optional[int] = ..., dataset: _Optional[str] = ...) -> None: ...

class OpenSession(_message.Message):
    __slots__ = ("request", "session")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    request: int
    session: bytes
    def __init__(self, request: _Optional[int] = ..., session: _Optional[bytes] = ...) -> None: ...

class SessionOpen(_message.Message):
    __slots__ = ("request", "sequence", "granted")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    request: int
    sequence: int
    granted: Granted
    def __init__(self, request: _Optional[int] = ..., sequence: _Optional[int] = ..., granted: _Optional[_Union[Granted, _Mapping]] = ...) -> None: ...

class Granted(_message.Message):
    __slots__ = ("memory", "values", "work")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    memory: int
    values: int
    work: int
    def __init__(self, memory: _Optional[int] = ..., values: _Optional[int] = ..., work: _Optional[int] = ...) -> None: ...

class Fetch(_message.Message):
    __slots__ = ("request", "id")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    request: int
    id: int
    def __init__(self, request: _Optional[int] = ..., id: _Optional[int] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("request", "values")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    request: int
    values: _tensor_pb2.TensorSet
    def __init__(self, request: _Optional[int] = ..., values: _Optional[_Union[_tensor_pb2.TensorSet, _Mapping]] = ...) -> None: ...

class AskObjects(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: int
    def __init__(self, request: _Optional[int] = ...) -> None: ...

class HeldObject(_message.Message):
    __slots__ = ("id", "layout", "tags", "description")
    ID_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: int
    layout: TensorLayout
    tags: _containers.RepeatedScalarFieldContainer[str]
    description: str
    def __init__(self, id: _Optional[int] = ..., layout: _Optional[_Union[TensorLayout, _Mapping]] = ..., tags: _Optional[_Iterable[str]] = ..., description: _Optional[str] = ...) -> None: ...

class Objects(_message.Message):
    __slots__ = ("request", "objects")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    request: int
    objects: _containers.RepeatedCompositeFieldContainer[HeldObject]
    def __init__(self, request: _Optional[int] = ..., objects: _Optional[_Iterable[_Union[HeldObject, _Mapping]]] = ...) -> None: ...

class AskRelease(_message.Message):
    __slots__ = ("request", "id", "reason")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    request: int
    id: int
    reason: str
    def __init__(self, request: _Optional[int] = ..., id: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Ticket(_message.Message):
    __slots__ = ("request", "ticket")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    request: int
    ticket: str
    def __init__(self, request: _Optional[int] = ..., ticket: _Optional[str] = ...) -> None: ...

class Collect(_message.Message):
    __slots__ = ("request", "ticket", "wait_seconds")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request: int
    ticket: str
    wait_seconds: float
    def __init__(self, request: _Optional[int] = ..., ticket: _Optional[str] = ..., wait_seconds: _Optional[float] = ...) -> None: ...
