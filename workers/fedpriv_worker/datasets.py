"""A data set as a worker holds it: checked features and target, split into training and evaluation rows.

What is constructed is usable: finite float32 or int64 features of shape (rows, ...), a target of shape (rows,), at
least one training row. Values never print, and `describe` announces the schema alone: no minimum, no class found in
the data, and no more of the row count than the owner allows. It reads no file; `loading` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from fedpriv.entropy import Entropy, SeededEntropy
from fedpriv.errors import DataError, UsageError
from fedpriv.ids import DatasetName
from fedpriv.policy.rules import Rule, rounded_rows
from fedpriv.privacy.budget import Budget
from fedpriv.privacy.poisson import poisson_sample
from fedpriv.wire.messages import Column, DatasetDescription
from fedpriv_worker.promises import RowCount, check_delta, check_promises
from fedpriv_worker.units import Units, numbered_units, units_of

FeaturesDtype: TypeAlias = Literal["float32", "int64"]
Array: TypeAlias = torch.Tensor | NDArray[np.generic]

_KINDS = {"b": "bool", "i": "integer", "u": "integer", "f": "float"}
MOST_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a data set: features of shape (rows, ...) and target of shape (rows,), in the same order.

    `units` says whose each row is, where several may be one's; None where each row is a unit.
    """

    features: torch.Tensor = field(repr=False)
    target: torch.Tensor = field(repr=False)
    units: Units | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.target)

    def sample(self, rate: float, entropy: Entropy) -> torch.Tensor:
        """Return the numbers of the rows that a private step takes: one of each unit of a Poisson sample at `rate`."""
        if self.units is None:
            return torch.from_numpy(poisson_sample(len(self), rate, entropy))
        return torch.from_numpy(self.units.sample(rate, entropy))


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Dataset:
    """Private rows under a name, with what their owner lets out of them.

    Features become float32, or int64 where they are integers of any width (tokens and other codes: cast in `forward`
    what is a quantity); `features_dtype` says otherwise. Files declare theirs, float32 unless they say int64.
    Targets become float32 from bool and float, int64 from integers and text. `classes` is the number or the names of
    the classes, declared by the owner: they are announced, so they are never taken from the data. The `validation`
    share of the rows is held out, the same rows at every start. `mock` is a stand-in of the same schema, (features,
    target), that the owner wrote; `legal_basis` one line that goes into ledger entries. Tensors are copied: what the
    caller does to theirs later changes nothing here. `simulated` is the owner's word that no row is of anybody: only
    such rows may be recorded beside what left of them (`payloads`).
    """

    name: DatasetName
    tags: tuple[str, ...]
    description: str
    release: tuple[Rule, ...]
    validation: float
    rows: RowCount
    columns: tuple[Column, ...]
    target_column: Column
    classes: tuple[str, ...]
    budget: Budget | None
    legal_basis: str
    simulated: bool
    features: torch.Tensor = field(repr=False)
    target: torch.Tensor = field(repr=False)
    training: Rows = field(repr=False)
    evaluation: Rows = field(repr=False)
    mock: Rows | None = field(repr=False)

    def __init__(
        self,
        name: str,
        features: Array,
        target: Array,
        *,
        tags: Sequence[str] = (),
        description: str = "",
        release: Sequence[Rule] = (),
        validation: float = 0.0,
        rows: RowCount = "rounded",
        columns: Sequence[str | Column] | None = None,
        target_name: str = "target",
        classes: int | Sequence[str] | None = None,
        features_dtype: FeaturesDtype | None = None,
        budget: Budget | None = None,
        mock: tuple[Array, Array] | None = None,
        legal_basis: str = "",
        simulated: bool = False,
        units: Sequence[object] | None = None,
    ) -> None:
        check_promises(name, release, validation, rows, budget, has_mock=mock is not None, legal_basis=legal_basis)
        given = _prepare(name, features, target, columns, target_name, _classes(name, classes), features_dtype)
        if budget is not None:
            check_delta(name, budget, len(given.rows))
        whose = numbered_units(name, budget, units, len(given.rows))
        values: dict[str, object] = {
            "name": DatasetName(name),
            "tags": _tags(name, tags),
            "description": description,
            "release": tuple(release),
            "validation": float(validation),
            "rows": rows,
            **given.schema,
            "budget": budget,
            "legal_basis": legal_basis,
            "simulated": simulated is True,
            "features": given.rows.features,
            "target": given.rows.target,
            "mock": None if mock is None else _stand_in(name, mock, given),
        }
        values["training"], values["evaluation"] = _split(name, given.rows, validation, whose)
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def __len__(self) -> int:
        return len(self.target)

    def describe(self) -> DatasetDescription:
        """Return what a peer may know of this data set: its schema, and no more of its row count than allowed."""
        return DatasetDescription(
            name=self.name,
            features=self.columns,
            feature_shape=tuple(self.features.shape[1:]),
            feature_dtype=str(self.features.dtype).removeprefix("torch."),
            target=self.target_column,
            target_dtype=str(self.target.dtype).removeprefix("torch."),
            classes=self.classes,
            tags=self.tags,
            rows=announced_rows(len(self), self.rows),
        )


def announced_rows(count: int, rows: RowCount) -> int | None:
    """Return what is said of a count of rows: all of it, that rounded down to tens, or nothing."""
    if rows == "hidden":
        return None
    return count if rows == "exact" else rounded_rows(count)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Rows that were checked and converted, with their schema."""

    rows: Rows
    columns: tuple[Column, ...]
    target_column: Column
    classes: tuple[str, ...]

    @property
    def schema(self) -> dict[str, object]:
        """What the data set itself is called the same."""
        return {"columns": self.columns, "target_column": self.target_column, "classes": self.classes}


def _prepare(
    name: str,
    features: Array,
    target: Array,
    columns: Sequence[str | Column] | None,
    target_name: str,
    classes: tuple[str, ...],
    features_dtype: FeaturesDtype | None,
) -> _Prepared:
    given = _as_tensor(name, "features", features)
    labels = _as_tensor(name, "target", _numbered(name, target_name, target, classes))
    _check_shapes(name, given, labels)
    kept_columns = _columns(name, given, columns, target_name)
    kept_features = _features(name, given, features_dtype, [column.name for column in kept_columns])
    kept_target, kind = _target(name, labels, target_name, classes)
    return _Prepared(Rows(kept_features, kept_target), kept_columns, Column(target_name, kind), classes)


def _stand_in(name: str, mock: tuple[Array, Array], real: _Prepared) -> Rows:
    """Return the stand-in as rows of the same schema as `real`; raise `DataError` naming what differs."""
    if not isinstance(mock, tuple) or len(mock) != 2:
        raise UsageError(f"data set {name!r}: mock is a {type(mock).__name__}; give (features, target)")
    shape, wanted = tuple(getattr(mock[0], "shape", ()))[1:], tuple(real.rows.features.shape[1:])
    if shape != wanted:
        raise DataError(f"the mock of data set {name!r} has rows of shape {shape}, the data {wanted}; give it the same")
    dtype: FeaturesDtype = "int64" if real.rows.features.dtype is torch.int64 else "float32"
    try:
        made = _prepare(name, *mock, real.columns, real.target_column.name, real.classes, dtype)
    except DataError as error:
        raise DataError(f"the mock of {error}") from None
    kind, wanted_kind = made.target_column.kind, real.target_column.kind
    if kind != wanted_kind:
        raise DataError(f"the mock of data set {name!r} has a target of kind {kind}, the data of {wanted_kind}")
    if torch.equal(made.rows.features, real.rows.features):
        raise DataError(f"the mock of data set {name!r} holds the rows themselves; write one that derives from no row")
    return made.rows


def _tags(name: str, tags: Sequence[str]) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise UsageError(f"data set {name!r}: tags is the string {tags!r}; write a list, such as [{tags!r}]")
    return tuple(tags)


def _as_tensor(name: str, what: str, values: Array) -> torch.Tensor:
    """Return `values` as a detached CPU tensor that may still share memory; raise `DataError` if it cannot be one."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in _KINDS:
            raise DataError(
                f"data set {name!r}: {what} has NumPy type {values.dtype}; "
                "encode strings and objects as integer, float or bool first"
            )
        values = torch.from_numpy(_native(name, what, values))
    if not isinstance(values, torch.Tensor):
        raise DataError(f"data set {name!r}: {what} is a {type(values).__name__}; pass a torch tensor or a NumPy array")
    if values.layout is not torch.strided or values.is_complex() or values.is_quantized:
        raise DataError(
            f"data set {name!r}: {what} is {values.layout}, {values.dtype}; pass a dense tensor of real numbers"
        )
    return values.detach().cpu()


def _native(name: str, what: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return `values` in a type, byte order and stride order that torch takes."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    wanted = {"b": np.bool_, "f": np.float64 if size > 4 else np.float32}.get(kind, np.int64)
    if kind == "u" and size == 8 and values.size and int(values.max()) > np.iinfo(np.int64).max:
        raise DataError(f"data set {name!r}: {what} has whole numbers beyond int64; store them as float")
    return np.require(values, dtype=wanted, requirements=["C", "W"])


def _check_shapes(name: str, features: torch.Tensor, target: torch.Tensor) -> None:
    shapes = f"features have shape {tuple(features.shape)} and the target {tuple(target.shape)}"
    if features.dim() < 2 or target.dim() != 1:
        raise DataError(
            f"data set {name!r}: {shapes}; give features of shape (rows, ...) and a target of shape (rows,)"
        )
    if len(features) != len(target):
        raise DataError(f"data set {name!r}: {shapes}; both need the same number of rows")
    if not len(target):
        raise DataError(f"data set {name!r} has no rows; check the file and any filter before it")
    if not features[0].numel():
        raise DataError(f"data set {name!r}: {shapes}; a row needs at least one feature")


def _columns(
    name: str, features: torch.Tensor, given: Sequence[str | Column] | None, target_name: str
) -> tuple[Column, ...]:
    """Return one column per feature of a table, or one in all for rows of a higher rank."""
    kind = "bool" if features.dtype is torch.bool else "float" if features.is_floating_point() else "integer"
    count = features.shape[1] if features.dim() == 2 else 1
    if given is None:
        given = [f"x{index}" for index in range(count)] if features.dim() == 2 else ["features"]
    columns = tuple(column if isinstance(column, Column) else Column(column, kind) for column in given)
    if len(columns) != count:
        raise DataError(
            f"data set {name!r} names {len(columns)} feature columns but has {count}; name each column once"
        )
    names = [*(column.name for column in columns), target_name]
    twice = sorted({column for column in names if names.count(column) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise DataError(f"data set {name!r} has two columns called {twice[0]!r}; rename or remove one")
    return columns


def _natural_dtype(features: torch.Tensor) -> FeaturesDtype:
    """Return int64 for integers; float32 for floats and for yes and no."""
    return "float32" if features.is_floating_point() or features.dtype is torch.bool else "int64"


def _features(name: str, features: torch.Tensor, dtype: FeaturesDtype | None, columns: Sequence[str]) -> torch.Tensor:
    """Return a contiguous copy of `features` as `dtype`; raise `DataError` counting rows that are not finite."""
    dtype = dtype or _natural_dtype(features)
    if dtype == "int64":
        if features.is_floating_point():
            raise DataError(
                f"data set {name!r}: features_dtype is int64 but the features are {features.dtype}; round them first"
            )
        return features.to(torch.int64, copy=True, memory_format=torch.contiguous_format)
    if dtype != "float32":
        raise UsageError(f"data set {name!r}: features_dtype is {dtype!r}; use float32 or int64")
    kept = features.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    finite = torch.isfinite(kept)
    if not bool(finite.all()):
        by_row = finite.reshape(len(kept), -1)
        bad_rows = int((~by_row.all(dim=1)).sum())
        whole = by_row.all(dim=0).tolist() if kept.dim() == 2 else [False]
        where = [column for column, is_whole in zip(columns, whole, strict=True) if not is_whole]
        raise missing_values(name, bad_rows, where)
    return kept


def missing_values(name: str, rows: int, columns: Sequence[str]) -> DataError:
    """Return the error for rows with missing or non-finite values: how many and where, never which values."""
    shown = ", ".join(map(repr, columns[:10])) + (f" and {len(columns) - 10} more" if len(columns) > 10 else "")
    return DataError(
        f"data set {name!r}: {_counted(rows)} with a missing, infinite or not representable value in {shown}; "
        "fill, correct or drop them first"
    )


def _counted(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"


def _classes(name: str, classes: int | Sequence[str] | None) -> tuple[str, ...]:
    if classes is None:
        return ()
    if isinstance(classes, int) and not isinstance(classes, bool):
        if not 2 <= classes <= MOST_CLASSES:
            raise UsageError(f"data set {name!r}: classes is {classes}; use 2 to {MOST_CLASSES}, or a list of names")
        return tuple(map(str, range(classes)))
    if isinstance(classes, str | bool):
        raise UsageError(f"data set {name!r}: classes is {classes!r}; write their number or a list of names")
    names = tuple(map(str, classes))
    if not 2 <= len(names) <= MOST_CLASSES or len(set(names)) < len(names):
        raise UsageError(f"data set {name!r}: classes has {len(names)} names; give 2 to {MOST_CLASSES}, each once")
    return names


def _numbered(name: str, column: str, target: Array, classes: Sequence[str]) -> Array:
    """Return a text target as positions among the declared classes, any other as it is.

    The order is the owner's and is never taken from the data: workers must agree on it, and a class that only
    one row has would announce that row.
    """
    if not isinstance(target, np.ndarray) or target.dtype.kind != "U":
        return target
    if not classes:
        raise DataError(
            f"data set {name!r}: the target {column!r} holds text; declare every class, in the order "
            'that all workers share: classes = ["...", "..."]'
        )
    number = {known: index for index, known in enumerate(classes)}
    flat = target.reshape(-1).tolist()
    codes = np.fromiter((number.get(value, -1) for value in flat), dtype=np.int64, count=len(flat))
    unknown = int((codes < 0).sum())
    if unknown:
        raise DataError(
            f"data set {name!r}: {_counted(unknown)} with a {column!r} outside the {len(number)} declared classes; "
            "correct them or declare every class"
        )
    return codes.reshape(target.shape)


def _target(name: str, target: torch.Tensor, column: str, classes: Sequence[str]) -> tuple[torch.Tensor, str]:
    """Return the target in the dtype it is trained with, and its kind."""
    if target.dtype is torch.bool or target.is_floating_point():
        kind = "bool" if target.dtype is torch.bool else "float"
        if classes:
            raise DataError(f"data set {name!r}: the target is {kind} but classes are declared; store it as integer")
        kept = target.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        bad_rows = int((~torch.isfinite(kept)).sum())
        if bad_rows:
            raise missing_values(name, bad_rows, [column])
        return kept, kind
    kept = target.to(torch.int64, copy=True, memory_format=torch.contiguous_format)
    if not classes:
        return kept, "integer"
    outside = int(((kept < 0) | (kept >= len(classes))).sum())
    if outside:
        raise DataError(
            f"data set {name!r}: {_counted(outside)} with a {column!r} outside the {len(classes)} declared classes "
            f"0 to {len(classes) - 1}; correct them or declare every class"
        )
    return kept, "category"


def _split(name: str, rows: Rows, validation: float, whose: NDArray[np.int64] | None) -> tuple[Rows, Rows]:
    """Return training and evaluation rows, each in file order; only what is trained on needs to know `whose` rows.

    The order is that of 8-byte draws, one a row, from `SeededEntropy` of the data set's name; the first
    floor(validation * rows), and at least one, are held out.
    """
    features, target, count = rows.features, rows.target, len(rows)
    if validation == 0.0:
        return Rows(features, target, units_of(whose)), Rows(features[:0], target[:0])
    held_out = max(1, int(validation * count))
    if held_out >= count:
        raise DataError(
            f"data set {name!r} has {count} rows, too few to hold out {validation:g} of them; use validation = 0"
        )
    draws = np.frombuffer(SeededEntropy(b"validation/" + name.encode()).random_bytes(8 * count), dtype=">u8")
    order = np.argsort(draws, kind="stable")
    kept, out = (torch.from_numpy(np.sort(part)) for part in (order[held_out:], order[:held_out]))
    theirs = None if whose is None else whose[kept.numpy()]
    return Rows(features[kept], target[kept], units_of(theirs)), Rows(features[out], target[out])
