"""Images as data sets: IDX pairs and folders of pictures, and every fault named without naming a file of a picture."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedpriv.errors import DataError, UsageError
from fedpriv_worker import images
from fedpriv_worker.config import DatasetConfig
from fedpriv_worker.images import read_idx
from fedpriv_worker.loading import load_dataset

PIXELS = np.arange(3 * 2 * 4, dtype=np.uint8).reshape(3, 2, 4) * 10
CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx(array):
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[str(array.dtype)], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pair(folder, pixels=PIXELS, labels=(2, 0, 1), suffix="", compress=lambda content: content):
    path = folder / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(compress(idx(pixels)))
    (folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(compress(idx(np.array(labels, np.uint8))))
    return path


def declared(path, **options):
    return DatasetConfig(**{"name": "digits", "path": path, "target": "label", "classes": 3, **options})


@pytest.mark.parametrize(("suffix", "compress"), [("", lambda content: content), (".gz", gzip.compress)])
def test_an_idx_pair_becomes_images_from_zero_to_one_and_labels(tmp_path, suffix, compress):
    made = load_dataset(declared(pair(tmp_path, suffix=suffix, compress=compress)))
    assert made.features.shape == (3, 1, 2, 4)
    assert np.allclose(made.features.numpy()[:, 0], PIXELS / 255)
    assert made.target.tolist() == [2, 0, 1]
    assert made.describe().classes == ("0", "1", "2")


@pytest.mark.parametrize("dtype", list(CODES))
def test_every_type_of_idx_reads(tmp_path, dtype):
    array = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    (tmp_path / "x-idx2").write_bytes(idx(array))
    assert np.array_equal(read_idx(tmp_path / "x-idx2"), array)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "does not read as an IDX file"),
        (b"\x00\x00\x08", "does not read as an IDX file"),
        (b"PK\x03\x04" * 9, "no IDX file"),
        (struct.pack(">HBB", 0, 8, 0), "no IDX file"),
        (struct.pack(">HBBI", 0, 8, 1, 5) + b"four", "does not hold the 5 bytes"),
        (struct.pack(">HBBI", 0, 8, 1, 3) + b"four", "does not hold the 3 bytes"),
        (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), "more than the"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_no_idx_file_is_refused(tmp_path, content, says, packed):
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=says):
        read_idx(path)


def test_a_cut_gzip_file_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(PIXELS))[:-9])
    with pytest.raises(DataError, match="does not read as an IDX file"):
        read_idx(path)


def test_images_without_their_labels_are_refused_saying_where_those_were_looked_for(tmp_path):
    path = pair(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="looked for in train-labels-idx1-ubyte, which does not exist"):
        load_dataset(declared(path))
    odd = path.rename(tmp_path / "pictures-idx3-ubyte")
    with pytest.raises(DataError, match="looked for in pictures-idx1-ubyte"):
        load_dataset(declared(odd))


@pytest.mark.parametrize(
    ("pixels", "labels"), [(PIXELS, (1, 2)), (PIXELS.astype(np.int16), (0, 1, 2)), (PIXELS[0], (0, 1))]
)
def test_images_and_labels_that_do_not_fit_are_refused_with_both_shapes(tmp_path, pixels, labels):
    with pytest.raises(DataError, match="one label per row"):
        load_dataset(declared(pair(tmp_path, pixels, labels)))


def folder(tmp_path, mode="RGB", size=(4, 2)):
    root = tmp_path / "pictures"
    for number, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for place in range(2):
            Image.new(mode, size, 10 * (2 * number + place)).save(root / name / f"mrs-smith-{place}.png")
    return root


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_folder_of_pictures_has_one_class_per_folder(tmp_path, mode, channels):
    made = load_dataset(declared(folder(tmp_path, mode), classes=("cat", "dog", "eel")))
    assert made.features.shape == (4, channels, 2, 4)
    assert np.allclose(made.features[:, 0, 0, 0] * 255, [0, 10, 20, 30])
    assert made.target.tolist() == [0, 0, 1, 1]
    assert made.describe().classes == ("cat", "dog", "eel")


def test_what_is_wrong_with_pictures_is_said_by_number_and_never_by_name(tmp_path):
    root = folder(tmp_path)
    wrong = root / "dog" / "mrs-smith-1.png"

    def refusal(classes=("cat", "dog")):
        with pytest.raises(DataError) as error:
            load_dataset(declared(root, classes=classes))
        assert "smith" not in str(error.value)
        return str(error.value)

    assert "1 folders that are not among its classes" in refusal(("cat",))
    assert "name its classes" in refusal(2)
    wrong.write_bytes(b"no picture")
    assert "picture 4 of 4 does not read" in refusal()
    Image.new("RGB", (4, 3)).save(wrong)
    assert "picture 4 of 4 has shape (3, 3, 4), the first (3, 2, 4)" in refusal()
    Image.new("RGBA", (4, 2)).save(wrong)
    assert "picture 4 of 4 has mode RGBA; convert all" in refusal()


def test_a_folder_without_pictures_a_file_for_one_and_nothing_at_all_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no pictures"):
        load_dataset(declared(tmp_path / "empty", classes=("cat",)))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="is no folder of pictures"):
        load_dataset(declared(tmp_path / "file", classes=("cat",)))
    with pytest.raises(DataError, match="does not exist; correct its path"):
        load_dataset(declared(tmp_path / "nowhere", classes=("cat",)))


def test_pictures_need_pillow_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "Image", None)
    with pytest.raises(DataError, match="needs pillow"):
        load_dataset(declared(folder(tmp_path), classes=("cat", "dog")))


def test_another_ending_is_refused_with_everything_that_is_read():
    with pytest.raises(UsageError, match=r"neither a file ending in \.parquet, \.arrow"):
        declared(Path("rows.xlsx"))
