"""Whether a model, a loss and the workers' data sets fit together, and in words where they do not.

Tracing finds every misfit; torch's own words for it rarely name the model or the data set. What is said here comes
from the module at the researcher and from announced schemas alone: there is no row to quote.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fedpriv.errors import TraceError, UsageError
from fedpriv.learning.local import LocalTraining
from fedpriv.wire.messages import Column, DatasetDescription

SHOWN = 5
"""So many names are listed before the rest is counted."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def check_code(model: object, loss: object, local: object) -> None:
    """Raise `UsageError` for a model, loss or local training that is not of the right kind."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UsageError(f"model is {what}; pass an instance of torch.nn.Module")
    if isinstance(loss, type):
        raise UsageError(f"loss is the class {loss.__name__}; pass an instance, {loss.__name__}(), or a function")
    if not callable(loss):
        raise UsageError(
            f"loss is a {type(loss).__name__}; pass a function of (prediction, target), such as "
            "torch.nn.functional.cross_entropy"
        )
    if not isinstance(local, LocalTraining):
        raise UsageError(
            f"local is a {type(local).__name__}; pass fp.LocalTraining(epochs=1, batch_size=32, "
            "optimizer=fp.SGD(lr=0.1))"
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise UsageError(
                f"the model's {name!r} is on the device meta and has no values; make the model on a real device, or "
                "load its weights first"
            )


def explained(error: TraceError, model: nn.Module, schema: DatasetDescription) -> TraceError:
    """Return `error` with what a person can do about it, where the schema shows why the model could not be traced."""
    misfit = _first_layer(model, schema) or _dtypes(model, schema)
    return TraceError(f"{misfit} ({error})") if misfit else error


def disagreement(first: str, schema: DatasetDescription, worker: str, other: DatasetDescription) -> str:
    """Return how two workers' schemas of one data set differ, in words; "" when they do not."""
    found = [
        *_columns_apart(first, schema.features, worker, other.features),
        *_each("rows of shape", first, _shape(schema), worker, _shape(other)),
        *_each("features of type", first, schema.feature_dtype, worker, other.feature_dtype),
        *_each("the target", first, _column(schema.target), worker, _column(other.target)),
        *_each("a target of type", first, schema.target_dtype, worker, other.target_dtype),
        *_each("the classes", first, _classes(schema), worker, _classes(other)),
    ]
    return "; ".join(found)


def _first_layer(model: nn.Module, schema: DatasetDescription) -> str:
    """Return why the first layer with weights cannot take a row, as far as its own numbers say."""
    layer = next((each for each in model.modules() if next(each.parameters(recurse=False), None) is not None), None)
    shape, floating = schema.feature_shape, schema.feature_dtype.startswith("float")
    kind = type(layer).__name__
    if isinstance(layer, nn.Embedding) and floating:
        return (
            f"the model's first layer is an Embedding, which takes whole numbers, but the features of data set "
            f'{schema.name!r} are {schema.feature_dtype}: its owners need features_dtype = "int64"'
        )
    if isinstance(layer, nn.Linear) and len(shape) == 1 and layer.in_features != shape[0]:
        return (
            f"the model's first layer takes {layer.in_features} features, but data set {schema.name!r} has {shape[0]} "
            f"feature column{'' if shape[0] == 1 else 's'}: {_listed([column.name for column in schema.features])}"
        )
    if isinstance(layer, _CONVOLUTIONS):
        wanted = len(layer.kernel_size) + 1
        if len(shape) != wanted or shape[0] != layer.in_channels:
            return (
                f"the model's first layer, {kind}, takes rows of {wanted} dimensions with {layer.in_channels} "
                f"channel{'' if layer.in_channels == 1 else 's'} first, but rows of data set {schema.name!r} have "
                f"shape {_shape(schema)}"
            )
    return ""


def _dtypes(model: nn.Module, schema: DatasetDescription) -> str:
    """Return that parameters and features have different types, where all floating parameters do."""
    held = {str(each.dtype).removeprefix("torch.") for each in model.parameters() if each.is_floating_point()}
    if len(held) != 1 or schema.feature_dtype in held:
        return ""
    (own,) = held
    other = "" if schema.feature_dtype.startswith("float") else ', or declare features_dtype = "float32" at the workers'
    return (
        f"the model's parameters are {own} and the features {schema.feature_dtype}: cast the input in forward, "
        f"x.to(torch.{own}){other}"
    )


def _columns_apart(first: str, ours: tuple[Column, ...], worker: str, theirs: tuple[Column, ...]) -> Iterator[str]:
    kinds, others = ({column.name: column.kind for column in side} for side in (ours, theirs))
    for name, own, other in ((first, kinds, others), (worker, others, kinds)):
        if alone := [column for column in own if column not in other]:
            yield f"only {name!r} has {_listed([_column(Column(column, own[column])) for column in alone])}"
    for column in [column for column in kinds if kinds[column] != others.get(column, kinds[column])][:SHOWN]:
        yield f"column {column!r:.80} is {kinds[column]} at {first!r} and {others[column]} at {worker!r}"
    if kinds == others and ours != theirs:
        yield f"the same columns stand in another order at {worker!r} than at {first!r}"


def _each(what: str, first: str, ours: str, worker: str, theirs: str) -> Iterator[str]:
    if ours != theirs:
        yield f"{first!r} has {what} {ours}, {worker!r} {theirs}"


def _column(column: Column) -> str:
    return f"{column.name!r:.80} ({column.kind})"


def _classes(schema: DatasetDescription) -> str:
    return _listed([f"{name!r:.80}" for name in schema.classes], SHOWN * 4) if schema.classes else "(none)"


def _shape(schema: DatasetDescription) -> str:
    return f"({', '.join(map(str, schema.feature_shape))})"


def _listed(names: list[str], shown: int = SHOWN) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(f"{name:.100}" for name in names[:shown]) + rest
