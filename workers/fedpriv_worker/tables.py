"""Parquet, Arrow (also Feather) and CSV files as a matrix of features and a target, through pyarrow.

Columns are numbers or are refused by name: text is never encoded behind the owner's back. Missing values become NaN,
which `Dataset` counts and refuses. No cell is ever quoted in an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import DataError, nearest
from fedpriv.wire.messages import Column
from fedpriv_worker.config import DatasetConfig
from fedpriv_worker.datasets import missing_values

try:
    import pyarrow as arrow
    from pyarrow import compute, csv, feather, parquet, types
except ImportError:  # an extra, which only owners of tables install
    arrow = None

Table: TypeAlias = Any  # pyarrow has no type stubs
TableColumn: TypeAlias = Any
ArrowType: TypeAlias = Any
MOST_NAMES_SHOWN = 20


Read: TypeAlias = tuple[NDArray[np.generic], NDArray[np.generic], tuple[Column, ...], list[str] | None]


def load_table(config: DatasetConfig) -> Read:
    """Return features of shape (rows, columns), target of shape (rows,), the columns and whose each row is.

    Raise `DataError` for what cannot be read as that.
    """
    if arrow is None:
        raise DataError(
            f"data set {config.name!r}: reading {config.path.suffix} needs pyarrow; "
            "install fedpriv[data], or store the rows as npz"
        )
    table = _read(config)
    _check_names(config, table.column_names)
    if not table.num_rows:
        raise DataError(f"data set {config.name!r}: {config.path.name} has no rows; check how it was written")
    target = _target(config, table.column(config.target))
    chosen = config.columns or tuple(
        name for name in table.column_names if name not in (config.target, config.unit_column)
    )
    if not chosen:
        raise DataError(f"data set {config.name!r}: {config.path.name} has no column besides the target; add features")
    columns = tuple(Column(name, _kind(config, name, table.column(name).type)) for name in chosen)
    if config.features_dtype == "int64":
        _check_whole_numbers(config, table, columns)
    return _matrix(config, table, columns), target, columns, _units(config, table)


def _units(config: DatasetConfig, table: Table) -> list[str] | None:
    """Return whose each row is, as text; raise `DataError` where that is missing."""
    if config.unit_column is None:
        return None
    column = table.column(config.unit_column)
    if column.null_count:
        raise missing_values(config.name, column.null_count, [config.unit_column])
    return [str(value) for value in column.to_pylist()]


def _read(config: DatasetConfig) -> Table:
    try:
        if config.path.suffix.lower() == ".csv":
            return csv.read_csv(config.path)
        if config.path.suffix.lower() in (".arrow", ".feather"):
            return feather.read_table(config.path, memory_map=False)
        with parquet.ParquetFile(config.path) as file:
            return file.read()
    except (arrow.ArrowException, OSError) as error:
        raise DataError(
            f"data set {config.name!r}: {config.path.name} does not read as {config.path.suffix.lstrip('.')} "
            f"({type(error).__name__}); check that every line and column is complete and of one type"
        ) from None


def _check_names(config: DatasetConfig, names: Sequence[str]) -> None:
    """Raise `DataError` for a column that is there twice, or declared and not there."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"data set {config.name!r}: two columns are called {twice[0]!r}; rename or remove one")
    own = () if config.unit_column is None else (config.unit_column,)
    for name in (config.target, *(config.columns or ()), *own):
        if name not in names:
            what = "target" if name == config.target else "unit" if name in own else "feature"
            shown = ", ".join(names[:MOST_NAMES_SHOWN]) + (", ..." if len(names) > MOST_NAMES_SHOWN else "")
            raise DataError(
                f"data set {config.name!r}: {config.path.name} has no {what} column {name!r}{nearest(name, names)}; "
                f"it has {shown}"
            )


def _kind(config: DatasetConfig, name: str, kind: ArrowType) -> str:
    """Return float, integer or bool; raise `DataError` for a feature that is not a number."""
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind):
        # CSV has no types: that one worker's rows happen to be whole numbers is a fact about its rows, not its schema
        inferred = config.path.suffix.lower() == ".csv" and config.features_dtype == "float32"
        return "float" if inferred else "integer"
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind):
        return "float"
    if _is_text(kind):
        raise DataError(
            f"data set {config.name!r}: feature column {name!r} holds text or categories; "
            "encode it as integers or as one column per category, or choose others with columns = [...]"
        )
    raise DataError(
        f"data set {config.name!r}: feature column {name!r} has type {kind}; "
        "convert it to numbers, choose others with columns = [...], or store arrays as npz"
    )


def _is_text(kind: ArrowType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind))


def _check_whole_numbers(config: DatasetConfig, table: Table, columns: Sequence[Column]) -> None:
    """Raise `DataError` unless every feature is a whole number in every row."""
    for column in columns:
        if column.kind == "float":
            raise DataError(
                f"data set {config.name!r}: features_dtype is int64 but column {column.name!r} is not integer; "
                "convert it or use float32"
            )
    missing = {column.name: table.column(column.name).is_null().to_numpy() for column in columns}
    where = [name for name, rows in missing.items() if rows.any()]
    if where:
        raise missing_values(config.name, int(np.logical_or.reduce([missing[name] for name in where]).sum()), where)


def _matrix(config: DatasetConfig, table: Table, columns: Sequence[Column]) -> NDArray[np.generic]:
    """Return the columns as one array of shape (rows, columns), NaN where a value is missing."""
    matrix = np.empty((table.num_rows, len(columns)), dtype=config.features_dtype)
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which `Dataset` counts and refuses
        for index, column in enumerate(columns):
            values = table.column(column.name)
            if values.null_count and types.is_boolean(values.type):
                values = values.cast("int8")
            if types.is_decimal(values.type) or types.is_null(values.type):
                values = values.cast("float64")
            matrix[:, index] = values.to_numpy()
    return matrix


def _target(config: DatasetConfig, column: TableColumn) -> NDArray[np.generic]:
    """Return the target as bool, integer, float or text values."""
    if column.null_count:
        raise missing_values(config.name, column.null_count, [config.target])
    if _is_text(column.type):
        return np.array([str(value) for value in column.to_pylist()])
    if types.is_decimal(column.type):
        column = compute.cast(column, "float64")
    values: NDArray[np.generic] = column.to_numpy()
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"data set {config.name!r}: the target {config.target!r} has type {column.type}; "
            "convert it to bool, integer, float or text"
        )
    return values
