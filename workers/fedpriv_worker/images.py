"""Images as a worker reads them: IDX files, as MNIST and Fashion-MNIST come, and folders of pictures, one per class.

Features are float32 from 0 to 1 of shape (rows, channels, height, width): a byte is divided by 255, and nothing else is
done to it. All pictures of a data set have one size and one mode, or are refused with their number; no file of
a picture is ever named, for names can say whose it is. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import gzip
import math
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from fedpriv.errors import DataError
from fedpriv_worker.config import DatasetConfig

try:
    from PIL import Image
except ImportError:  # an extra, which only owners of pictures install
    Image = None  # type: ignore[assignment]

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_BYTES = 1 << 36
_MODES = ("L", "RGB")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array in the IDX file at `path`, gzipped or not, in its own type; raise `DataError` for another file.

    The format is that of http://yann.lecun.com/exdb/mnist: two zero bytes, a type, the number of dimensions, each
    size as four big-endian bytes, and the values.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return _idx(cast("IO[bytes]", file), path.name)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path.name} does not read as an IDX file ({type(error).__name__}); fetch it again") from None


def _idx(file: IO[bytes], name: str) -> NDArray[Any]:
    zero, code, dimensions = struct.unpack(">HBB", file.read(4))
    if zero or code not in _DTYPES or not dimensions:
        raise DataError(f"{name} is no IDX file: it does not begin as one; check which file it is")
    shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    dtype = np.dtype(_DTYPES[code])
    size = math.prod(shape) * dtype.itemsize
    if size > _MOST_BYTES:
        raise DataError(f"{name} says that it holds {size} bytes, more than the {_MOST_BYTES} that are read")
    content = file.read(size)
    if len(content) != size or file.read(1):
        raise DataError(f"{name} does not hold the {size} bytes that it says; it was cut or is another file")
    return np.frombuffer(content, dtype).reshape(shape)


def load_idx(config: DatasetConfig) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return images and labels: the labels lie beside, in the file whose name says labels-idx1 for images-idx3."""
    beside = config.path.with_name(config.path.name.replace("images", "labels").replace("idx3", "idx1"))
    if beside == config.path or not beside.is_file():
        raise DataError(
            f"data set {config.name!r}: the labels of {config.path.name} are looked for in "
            f"{'a file named after it' if beside == config.path else beside.name}, which does not exist; name the pair "
            "as MNIST does, NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte, with .gz or without"
        )
    images, labels = read_idx(config.path), read_idx(beside)
    if images.ndim != 3 or images.dtype != np.uint8 or labels.ndim != 1 or len(labels) != len(images):
        raise DataError(
            f"data set {config.name!r}: {config.path.name} holds {images.dtype} of shape {images.shape}, {beside.name} "
            f"{labels.dtype} of shape {labels.shape}; they must be bytes of shape (rows, height, width), and one label "
            "per row"
        )
    return scaled(images[:, None]), labels.astype(np.int64)


def load_folder(config: DatasetConfig) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return the pictures below a folder, one folder per class, in order of class and of name, and their classes.

    The owner names the classes in `classes`: they are announced, so they are never taken from what is found.
    """
    if Image is None:
        raise DataError(f"data set {config.name!r}: reading pictures needs pillow; install fedpriv[data]")
    classes = config.classes
    if not isinstance(classes, tuple):
        raise DataError(
            f"data set {config.name!r}: {config.path.name} is a folder of pictures; name its classes, which are the "
            'names of the folders in it: classes = ["cat", "dog"]'
        )
    strange = [each for each in config.path.iterdir() if each.is_dir() and each.name not in classes]
    if strange:
        raise DataError(
            f"data set {config.name!r}: {config.path.name} has {len(strange)} folders that are not among its classes; "
            "name them in classes, or move them away"
        )
    files = [(path, name) for name in classes for path in _pictures(config.path / name)]
    if not files:
        raise DataError(f"data set {config.name!r}: {config.path.name} has no pictures; put them in a folder per class")
    arrays = _decoded(config, [path for path, _ in files])
    return scaled(np.stack(arrays)), np.array([name for _, name in files])


def scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return bytes as float32 from 0 to 1."""
    return pixels.astype(np.float32) / np.float32(255)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []  # a class that this worker has no picture of
    return sorted(each for each in folder.iterdir() if each.suffix.lower() in PICTURES)


def _decoded(config: DatasetConfig, files: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Return each picture as (channels, height, width), all alike."""
    found: list[NDArray[np.uint8]] = []
    for number, path in enumerate(files, start=1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as picture:
                    mode, pixels = picture.mode, np.asarray(picture)
        except (
            OSError,
            ValueError,
            SyntaxError,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise DataError(
                f"data set {config.name!r}: picture {number} of {len(files)} does not read ({type(error).__name__}); "
                "write it again or move it away"
            ) from None
        if mode not in _MODES:
            raise DataError(
                f"data set {config.name!r}: picture {number} of {len(files)} has mode {mode}; convert all to one of "
                f"{', '.join(_MODES)}"
            )
        array = pixels[None] if mode == "L" else np.moveaxis(pixels, 2, 0)
        if found and array.shape != found[0].shape:
            raise DataError(
                f"data set {config.name!r}: picture {number} of {len(files)} has shape {array.shape}, the first "
                f"{found[0].shape}; bring all to one size and mode"
            )
        found.append(array)
    return found
