"""From a declared data set to its checked rows: tables, npz, images, or a loader that the owner installed.

Every refusal says which data set, which column, how many rows and what to do, and quotes no value. Nothing is
imputed, encoded or dropped: what is trained on is what the owner's file holds. npz files are read
without pickle. A loader is the owner's own code; no peer can name one.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from fedpriv.errors import ConfigError, DataError, nearest
from fedpriv.wire.messages import Column
from fedpriv_worker import images, tables
from fedpriv_worker.config import DatasetConfig, WorkerConfig, is_folder, is_idx
from fedpriv_worker.datasets import Array, Dataset

Loaded: TypeAlias = tuple[Array, Array, Sequence[str | Column] | None, Sequence[object] | None]
"""Features, target, columns, and whose each row is."""


def check(config: WorkerConfig) -> tuple[Dataset, ...]:
    """Return every data set of `config`, loaded; raise before anything is written if a file or a row is not usable."""
    for what, path in (("ca", config.tls.ca), ("certificate", config.tls.certificate), ("key", config.tls.key)):
        if not path.is_file():
            raise ConfigError(f"[tls] {what}: {path} does not exist; make it with `fedpriv certs`, or correct the path")
    return tuple(load_dataset(dataset) for dataset in config.datasets)


def load_dataset(config: DatasetConfig) -> Dataset:
    """Return the rows that `config` declares; raise `DataError` naming what is wrong with them."""
    features, target, columns, units = _read(config)
    return Dataset(
        config.name,
        features,
        target,
        tags=config.tags,
        description=config.description,
        release=config.release,
        validation=config.validation,
        rows=config.rows,
        columns=columns,
        target_name=config.target,
        classes=config.classes,
        features_dtype=config.features_dtype,
        budget=config.budget,
        mock=_read_mock(config, columns),
        legal_basis=config.legal_basis,
        simulated=config.simulated,
        units=units,
    )


def _read(config: DatasetConfig) -> Loaded:
    if config.loader:
        return _from_loader(config, config.loader)
    folder = is_folder(config.path)
    if not (config.path.is_dir() if folder else config.path.is_file()):
        what = "is no folder of pictures" if folder and config.path.exists() else "does not exist"
        raise DataError(f"data set {config.name!r}: {config.path} {what}; correct its path")
    if folder or is_idx(config.path):
        features, target = (images.load_folder if folder else images.load_idx)(config)
        return features, target, config.columns, None
    return _from_npz(config) if config.path.suffix.lower() == ".npz" else tables.load_table(config)


def _read_mock(config: DatasetConfig, columns: Sequence[str | Column] | None) -> tuple[Array, Array] | None:
    """Return the stand-in's features and target; raise `DataError` unless its columns are those of the data."""
    if config.mock is None:
        return None
    try:
        features, target, found, _ = _read(replace(config, path=config.mock, mock=None, release=(), budget=None))
    except DataError as error:
        raise DataError(f"the mock of {error}") from None
    for position, (one, other) in enumerate(zip(found or (), columns or (), strict=False), start=1):
        if _said(one, other) != _said(other, one):
            raise DataError(
                f"the mock of data set {config.name!r} has {_said(one, other)} as its feature column {position}, "
                f"the data {_said(other, one)}; give it the same columns, types and order"
            )
    return features, target


def _said(column: str | Column, beside: str | Column) -> str:
    """Return what `column` has in common with every column like it: its name, and its kind if both tell theirs."""
    if isinstance(column, str):
        return repr(column)
    return repr(column.name) if isinstance(beside, str) else f"{column.name!r} ({column.kind})"


def _from_loader(config: DatasetConfig, loader: str) -> Loaded:
    """Return what the owner's function returns: (features, target), or a mapping with those, columns and units."""
    module_name, _, function_name = loader.partition(":")
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise DataError(
            f"data set {config.name!r}: the loader needs module {error.name!r}, which is not installed; "
            "install it beside fedpriv"
        ) from None
    except AttributeError:
        raise DataError(f"data set {config.name!r}: {module_name} has no function {function_name!r}") from None
    try:
        loaded = function()
    except Exception as error:  # noqa: BLE001 - the owner's own code may raise anything, and its text may quote rows
        raise DataError(
            f"data set {config.name!r}: the loader {loader!r} raised {type(error).__name__}; run it alone to see why"
        ) from None
    known = {"features", "target", "columns", "units"}
    if isinstance(loaded, Mapping) and {"features", "target"} <= set(loaded) <= known:
        return loaded["features"], loaded["target"], loaded.get("columns", config.columns), loaded.get("units")
    if isinstance(loaded, tuple) and len(loaded) == 2:
        return loaded[0], loaded[1], config.columns, None
    raise DataError(
        f"data set {config.name!r}: the loader {loader!r} returned a {type(loaded).__name__}; "
        "return (features, target), or a mapping with features, target and, if you like, columns and units"
    )


def _from_npz(config: DatasetConfig) -> Loaded:
    """Return the arrays `features` and the one named as the target."""
    try:
        with np.load(config.path, allow_pickle=False) as arrays:
            own = () if config.unit_column is None else (config.unit_column,)
            for name in ("features", config.target, *own):
                if name not in arrays:
                    raise DataError(
                        f"data set {config.name!r}: {config.path.name} has no array {name!r}"
                        f"{nearest(name, arrays)}; it has {', '.join(arrays)}"
                    )
            units = None if config.unit_column is None else arrays[config.unit_column]
            return arrays["features"], arrays[config.target], config.columns, units
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(
            f"data set {config.name!r}: {config.path.name} is not an npz file of plain arrays "
            f"({type(error).__name__}); write it with numpy.savez and without objects"
        ) from None
