"""From files to data sets: what an owner's files may hold, and how each fault is named without quoting a cell."""

import sys

import numpy as np
import pyarrow as arrow
import pytest
import torch
from pyarrow import csv, feather, parquet

from fedpriv.errors import ConfigError, DataError
from fedpriv.policy.rules import Metrics, Mock
from fedpriv.privacy.budget import Budget
from fedpriv.wire.messages import Column
from fedpriv_worker import tables
from fedpriv_worker.config import DatasetConfig, Dial, Tls, WorkerConfig, WorkerSection
from fedpriv_worker.loading import check, load_dataset

SECRET = "Hopkins"
ROWS = {
    "age": arrow.array([34, 51, 47, 70]),
    "pulse": arrow.array([61.5, 72.0, 80.25, 66.0]),
    "smoker": arrow.array([True, False, False, True]),
    "ill": arrow.array([0, 1, 1, 0]),
}


def written(tmp_path, rows=None, name="rows.parquet", **changed):
    table = arrow.table({**(ROWS if rows is None else rows), **changed})
    path = tmp_path / name
    if name.endswith(".csv"):
        csv.write_csv(table, path)
    elif name.endswith((".arrow", ".feather")):
        feather.write_feather(table, path)
    else:
        parquet.write_table(table, path)
    return path


def declared(path, **options):
    return DatasetConfig(**{"name": "rows", "path": path, "target": "ill", **options})


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv", "ROWS.CSV"])
def test_a_table_becomes_float32_features_and_a_target(tmp_path, name):
    path = tmp_path / name
    (csv.write_csv if name.lower().endswith("csv") else parquet.write_table)(arrow.table(ROWS), path)
    made = load_dataset(declared(path, tags=("#a",), classes=2, release=(Metrics(),), description="four people"))
    assert made.features.tolist() == [[34, 61.5, 1], [51, 72, 0], [47, 80.25, 0], [70, 66, 1]]
    assert made.target.tolist() == [0, 1, 1, 0]
    whole = "float" if path.suffix.lower() == ".csv" else "integer"
    assert made.columns == (Column("age", whole), Column("pulse", "float"), Column("smoker", "bool"))
    assert made.target_column == Column("ill", "category")
    assert (made.tags, made.release, made.description) == (("#a",), (Metrics(),), "four people")


def test_arrow_and_feather_files_read_as_parquet_does(tmp_path):
    expected = load_dataset(declared(written(tmp_path)))
    for name in ("rows.arrow", "rows.feather"):
        made = load_dataset(declared(written(tmp_path, name=name)))
        assert torch.equal(made.features, expected.features)
        assert made.describe() == expected.describe()
    (tmp_path / "rows.arrow").write_bytes(b"no table")
    with pytest.raises(DataError, match=r"rows.arrow does not read as arrow"):
        load_dataset(declared(tmp_path / "rows.arrow"))


def test_csv_announces_the_same_schema_whether_or_not_the_rows_are_whole_numbers(tmp_path):
    one = written(tmp_path, name="one.csv", pulse=arrow.array([60.0, 70.5, 80.0, 90.0]))
    other = written(tmp_path, name="other.csv", pulse=arrow.array([60, 70, 80, 90]))
    assert load_dataset(declared(one)).describe() == load_dataset(declared(other)).describe()


def test_chosen_columns_keep_the_owners_order_and_leave_text_out(tmp_path):
    path = written(tmp_path, patient=arrow.array([SECRET] * 4))
    made = load_dataset(declared(path, columns=("pulse", "age")))
    assert [column.name for column in made.columns] == ["pulse", "age"]
    assert made.features[0].tolist() == [61.5, 34.0]


def test_decimals_and_unsigned_numbers_are_numbers(tmp_path):
    path = written(
        tmp_path,
        cost=arrow.array([1, 2, 3, 4]).cast(arrow.decimal128(24, 2)),
        small=arrow.array([1, 2, 3, 4], arrow.uint8()),
        ill=arrow.array([1, 2, 3, 4]).cast(arrow.decimal128(24, 2)),
    )
    made = load_dataset(declared(path, columns=("cost", "small")))
    assert made.features.tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
    assert made.target_column.kind == "float"


@pytest.mark.parametrize("encoded", [False, True])
def test_a_text_target_is_numbered_by_the_declared_classes(tmp_path, encoded):
    column = arrow.array(["mild", "none", "none", "mild"])
    path = written(tmp_path, ill=column.dictionary_encode() if encoded else column)
    made = load_dataset(declared(path, classes=("none", "mild", "severe")))
    assert made.target.tolist() == [1, 0, 0, 1]
    assert made.describe().classes == ("none", "mild", "severe")


def test_whole_numbers_stay_whole_when_declared(tmp_path):
    path = written(tmp_path)
    made = load_dataset(declared(path, columns=("age", "smoker"), features_dtype="int64"))
    assert made.features.tolist() == [[34, 1], [51, 0], [47, 0], [70, 1]]
    assert made.describe().feature_dtype == "int64"


def test_npz_holds_arrays_of_any_rank(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, features=np.ones((5, 1, 4, 4), np.uint8), digit=np.arange(5))
    made = load_dataset(declared(path, target="digit", classes=10, validation=0.4))
    assert made.features.shape == (5, 1, 4, 4)
    assert (len(made.training), len(made.evaluation)) == (3, 2)


def test_npz_text_targets_are_numbered(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, features=np.eye(2), ill=np.array(["yes", "no"]))
    assert load_dataset(declared(path, classes=("no", "yes"), columns=("a", "b"))).target.tolist() == [1, 0]


@pytest.fixture
def owners_module(tmp_path, monkeypatch):
    (tmp_path / "hospital_loaders.py").write_text(
        f"""
import numpy as np
def pair(): return np.eye(3), np.array([0.0, 1.0, 0.0])
def mapping(): return {{"features": np.eye(3), "target": np.array([0, 1, 0]), "columns": ("a", "b", "c")}}
def other(): return np.eye(3)
def failing(): raise ValueError("patient {SECRET} has no age")
"""
    )
    (tmp_path / "hospital_needs.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "hospital_loaders"
    sys.modules.pop("hospital_loaders", None)


def test_a_loader_of_the_owner_returns_a_pair_or_a_mapping(owners_module):
    pair = load_dataset(declared(f"{owners_module}:pair", columns=("x", "y", "z")))
    assert [column.name for column in pair.columns] == ["x", "y", "z"]
    mapping = load_dataset(declared(f"{owners_module}:mapping"))
    assert [column.name for column in mapping.columns] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ("hospital_loaders:absent", "hospital_loaders has no function 'absent'"),
        ("hospital_absent:pair", "needs module 'hospital_absent', which is not installed"),
        ("hospital_needs:pair", "needs module 'a_package_that_nobody_has', which is not installed"),
        ("hospital_loaders:other", "returned a ndarray; return"),
        ("hospital_loaders:failing", "raised ValueError; run it alone to see why"),
    ],
)
def test_a_loader_that_does_not_work_is_named_and_its_words_are_not_repeated(owners_module, loader, message):
    with pytest.raises(DataError, match=message) as refusal:
        load_dataset(declared(loader))
    assert SECRET not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"rows\.parquet does not exist; correct its path"):
        load_dataset(declared(tmp_path / "rows.parquet"))


def test_a_target_that_is_not_there_names_the_nearest_column(tmp_path):
    with pytest.raises(
        DataError, match=r"no target column 'pulze' \(did you mean 'pulse'\?\); it has age, pulse, smoker"
    ):
        load_dataset(declared(written(tmp_path), target="pulze"))


def test_a_feature_that_is_not_there_names_the_nearest_column(tmp_path):
    with pytest.raises(DataError, match=r"no feature column 'ages' \(did you mean 'age'\?\)"):
        load_dataset(declared(written(tmp_path), columns=("ages",)))


def test_an_array_that_is_not_there_names_the_nearest(tmp_path):
    path = tmp_path / "rows.npz"
    np.savez(path, features=np.eye(2), target=np.zeros(2))
    with pytest.raises(DataError, match=r"no array 'targets' \(did you mean 'target'\?\); it has features, target"):
        load_dataset(declared(path, target="targets"))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_rows_with_missing_values_are_counted_and_their_columns_named(tmp_path, name):
    path = written(
        tmp_path,
        name=name,
        age=arrow.array([34, None, 47, None]),
        smoker=arrow.array([True, None, None, False]),
        pulse=arrow.array([1.0, 2.0, float("inf"), 3.0]),
    )
    with pytest.raises(
        DataError, match=r"3 rows with a missing, infinite .* in 'age', 'pulse', 'smoker'; fill, correct"
    ):
        load_dataset(declared(path))


def test_a_column_without_any_value_is_missing_in_every_row(tmp_path):
    with pytest.raises(DataError, match=r"4 rows with a missing.* in 'empty'"):
        load_dataset(declared(written(tmp_path, empty=arrow.nulls(4))))


def test_missing_codes_are_counted_across_columns(tmp_path):
    path = written(tmp_path, age=arrow.array([34, None, 47, 2]), smoker=arrow.array([True, None, None, False]))
    with pytest.raises(DataError, match=r"2 rows with a missing.* in 'age', 'smoker'"):
        load_dataset(declared(path, columns=("age", "smoker"), features_dtype="int64"))


def test_a_missing_target_is_counted(tmp_path):
    with pytest.raises(DataError, match=r"1 row with a missing.* in 'ill'"):
        load_dataset(declared(written(tmp_path, ill=arrow.array([1, None, 0, 1]))))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.csv"])
def test_a_file_without_rows_is_refused(tmp_path, name):
    path = written(tmp_path, {name: column[:0] for name, column in ROWS.items()}, name)
    with pytest.raises(DataError, match="has no rows; check how it was written"):
        load_dataset(declared(path))


@pytest.mark.parametrize("encoded", [False, True])
def test_a_text_column_is_refused_by_name_and_not_quoted(tmp_path, encoded):
    column = arrow.array([SECRET, "b", "c", "d"])
    path = written(tmp_path, city=column.dictionary_encode() if encoded else column)
    with pytest.raises(
        DataError, match="feature column 'city' holds text or categories; encode it as integers"
    ) as refusal:
        load_dataset(declared(path))
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"day": arrow.array([1, 2, 3, 4], arrow.date32())}, {}, "feature column 'day' has type date32"),
        ({"scan": arrow.array([[1], [2], [3], [4]])}, {}, "store arrays as npz"),
        ({"ill": arrow.array([1, 2, 3, 4], arrow.date32())}, {}, "target 'ill' has type date32"),
        ({"ill": arrow.array([SECRET, "no", "no", "no"])}, {}, "holds text; declare every class"),
        (
            {"ill": arrow.array([SECRET, "no", "no", "no"])},
            {"classes": ("no", "yes")},
            "1 row with a 'ill' outside",
        ),
        ({}, {"features_dtype": "int64"}, "features_dtype is int64 but column 'pulse' is not integer"),
        ({}, {"columns": ("age", "age")}, "two columns called 'age'"),
        ({}, {"classes": ("yes", "no"), "target": "pulse"}, "the target is float but classes are declared"),
    ],
)
def test_columns_that_cannot_be_used_are_refused_with_what_to_do(tmp_path, changed, options, message):
    with pytest.raises(DataError, match=message) as refusal:
        load_dataset(declared(written(tmp_path, **changed), **options))
    assert SECRET not in str(refusal.value)


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age,age,ill\n1,2,0\n")
    with pytest.raises(DataError, match="two columns are called 'age'; rename or remove one"):
        load_dataset(declared(path))


def test_a_table_of_the_target_alone_is_refused(tmp_path):
    with pytest.raises(DataError, match="has no column besides the target"):
        load_dataset(declared(written(tmp_path, {"ill": ROWS["ill"]})))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", f"age,ill\n1,0\n{SECRET},2,3,4\n".encode()),
        ("rows.csv", b""),
        ("rows.parquet", f"PAR1 {SECRET}".encode()),
        ("rows.npz", f"PK {SECRET}".encode()),
        ("rows.npz", b""),
    ],
)
def test_a_file_that_does_not_read_is_refused_without_quoting_it(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=name) as refusal:
        load_dataset(declared(path))
    assert SECRET not in str(refusal.value)


def test_a_late_cell_of_another_type_is_not_quoted(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("age,ill\n" + "1,0\n" * 400_000 + f"{SECRET},1\n")
    with pytest.raises(DataError, match=r"rows.csv does not read as csv|holds text") as refusal:
        load_dataset(declared(path))
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("save", [np.savez, np.save])
def test_pickled_arrays_are_never_opened(tmp_path, save):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    path = tmp_path / "rows.npz"
    with path.open("wb") as file:
        if save is np.save:
            np.save(file, np.array([Trap()], dtype=object), allow_pickle=True)
        else:
            np.savez(file, features=np.array([Trap()], dtype=object), ill=np.zeros(1))
    with pytest.raises(DataError, match="is not an npz file of plain arrays"):
        load_dataset(declared(path))


def test_without_pyarrow_the_remedy_is_named(tmp_path, monkeypatch):
    path = written(tmp_path)
    monkeypatch.setattr(tables, "arrow", None)
    with pytest.raises(
        DataError, match=r"reading .parquet needs pyarrow; install fedpriv\[data\], or store the rows as"
    ):
        load_dataset(declared(path))


def worker(tmp_path, *datasets):
    tls = Tls(tmp_path / "ca.pem", tmp_path / "certificate.pem", tmp_path / "key.pem")
    return WorkerConfig(WorkerSection("bob", tmp_path / "state"), tls, dial=Dial("a:1"), datasets=datasets)


def test_checking_a_configuration_loads_everything_and_writes_nothing(tmp_path):
    for name in ("ca.pem", "certificate.pem", "key.pem"):
        (tmp_path / name).touch()
    config = worker(tmp_path, declared(written(tmp_path)), declared(tmp_path / "rows.parquet", name="again"))
    before = sorted(tmp_path.iterdir())
    assert [dataset.name for dataset in check(config)] == ["rows", "again"]
    assert sorted(tmp_path.iterdir()) == before


def test_checking_names_a_missing_certificate(tmp_path):
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ConfigError, match=r"\[tls\] certificate: .*certificate.pem does not exist; make it with"):
        check(worker(tmp_path))


def test_a_stand_in_is_read_as_the_rows_are(tmp_path):
    path = written(tmp_path)
    mock = written(tmp_path, name="mock.parquet", age=arrow.array([1, 2, 3, 4]))
    made = load_dataset(declared(path, mock=mock, release=(Mock(),), budget=Budget(1.0, 1e-5), legal_basis="consent"))
    assert made.mock.features[:, 0].tolist() == [1, 2, 3, 4]
    assert (made.budget, made.legal_basis) == (Budget(1.0, 1e-5), "consent")


def test_a_stand_in_may_be_of_another_kind_of_file(tmp_path):
    np.savez(tmp_path / "mock.npz", features=np.zeros((2, 3)), ill=np.array([0, 1]))
    made = load_dataset(declared(written(tmp_path), mock=tmp_path / "mock.npz"))
    assert made.mock.features.shape == (2, 3)
    named = declared(written(tmp_path), columns=("age", "pulse", "smoker"), mock=tmp_path / "mock.npz")
    assert len(load_dataset(named).mock) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"age": arrow.array([1.5, 2, 3, 4])},
            r"has 'age' \(float\) as its feature column 1, the data 'age' \(integer\)",
        ),
        ({"more": arrow.array([1, 2, 3, 4])}, r"has rows of shape \(4,\), the data \(3,\)"),
        (
            {"pulse": arrow.array(["a", "b", "c", "d"])},
            "the mock of data set 'rows': feature column 'pulse' holds text",
        ),
    ],
)
def test_a_stand_in_with_other_columns_is_refused(tmp_path, changed, message):
    path = written(tmp_path)
    rows = {name: column for name, column in ROWS.items() if name != "ill"} | changed | {"ill": ROWS["ill"]}
    with pytest.raises(DataError, match=message):
        load_dataset(declared(path, mock=written(tmp_path, rows, name="mock.parquet")))


def test_a_stand_in_that_is_not_there_says_so(tmp_path):
    with pytest.raises(DataError, match=r"the mock of data set 'rows': .*gone\.csv does not exist"):
        load_dataset(declared(written(tmp_path), mock=tmp_path / "gone.csv"))
