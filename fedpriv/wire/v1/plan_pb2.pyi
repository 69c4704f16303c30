from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Plan(_message.Message):
    __slots__ = ("inputs", "outputs", "constants", "steps", "torch_version")
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    CONSTANTS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    inputs: _containers.RepeatedCompositeFieldContainer[PlanInput]
    outputs: _containers.RepeatedCompositeFieldContainer[PlanOutput]
    constants: _containers.RepeatedCompositeFieldContainer[PlanConstant]
    steps: _containers.RepeatedCompositeFieldContainer[PlanStep]
    torch_version: str
    def __init__(self, inputs: _Optional[_Iterable[_Union[PlanInput, _Mapping]]] = ..., outputs: _Optional[_Iterable[_Union[PlanOutput, _Mapping]]] = ..., constants: _Optional[_Iterable[_Union[PlanConstant, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[PlanStep, _Mapping]]] = ..., torch_version: _Optional[str] = ...) -> None: ...

class PlanInput(_message.Message):
    __slots__ = ("name", "role", "dtype", "shape")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class PlanOutput(_message.Message):
    __slots__ = ("name", "role", "slot")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    name: str
    role: str
    slot: int
    def __init__(self, name: _Optional[str] = ..., role: _Optional[str] = ..., slot: _Optional[int] = ...) -> None: ...

class PlanConstant(_message.Message):
    __slots__ = ("dtype", "shape", "content")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    content: bytes
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., content: _Optional[bytes] = ...) -> None: ...

class PlanStep(_message.Message):
    __slots__ = ("operation", "arguments", "keywords", "results")
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    KEYWORDS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    operation: str
    arguments: _containers.RepeatedCompositeFieldContainer[PlanArgument]
    keywords: _containers.RepeatedCompositeFieldContainer[PlanKeyword]
    results: int
    def __init__(self, operation: _Optional[str] = ..., arguments: _Optional[_Iterable[_Union[PlanArgument, _Mapping]]] = ..., keywords: _Optional[_Iterable[_Union[PlanKeyword, _Mapping]]] = ..., results: _Optional[int] = ...) -> None: ...

class PlanKeyword(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: PlanArgument
    def __init__(self, name: _Optional[str] = ..., value: _Optional[_Union[PlanArgument, _Mapping]] = ...) -> None: ...

class PlanArgument(_message.Message):
    __slots__ = ("slot", "dtype", "text", "flag", "integer", "number", "list", "nothing")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FLAG_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    NOTHING_FIELD_NUMBER: _ClassVar[int]
    slot: int
    dtype: str
    text: str
    flag: bool
    integer: int
    number: float
    list: PlanArguments
    nothing: bool
    def __init__(self, slot: _Optional[int] = ..., dtype: _Optional[str] = ..., text: _Optional[str] = ..., flag: _Optional[bool] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., list: _Optional[_Union[PlanArguments, _Mapping]] = ..., nothing: _Optional[bool] = ...) -> None: ...

class PlanArguments(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[PlanArgument]
    def __init__(self, items: _Optional[_Iterable[_Union[PlanArgument, _Mapping]]] = ...) -> None: ...
