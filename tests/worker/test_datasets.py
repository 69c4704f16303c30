"""Data sets as a worker holds them, and what it announces of them."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import DataError, UsageError
from fedpriv.policy.rules import Approval, Metrics, Mock, PlainUpdate, Statistics
from fedpriv.privacy.budget import Budget
from fedpriv.wire.messages import Column, DatasetDescription
from fedpriv_worker.datasets import Dataset, announced_rows


def features(rows=25, columns=3):
    return torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)


def dataset(count=25, **options):
    return Dataset("rows", features(count), torch.arange(count) % 2 == 0, **options)


def test_a_description_says_the_schema_and_rounded_rows_only():
    made = dataset(columns=("age", "pulse", "weight"), target_name="ill", tags=["#a"], validation=0.2)
    assert made.describe() == DatasetDescription(
        name="rows",
        features=(Column("age", "float"), Column("pulse", "float"), Column("weight", "float")),
        feature_shape=(3,),
        feature_dtype="float32",
        target=Column("ill", "bool"),
        target_dtype="float32",
        classes=(),
        tags=("#a",),
        rows=20,
    )


@pytest.mark.parametrize(("rows", "announced"), [("exact", 27), ("rounded", 20), ("hidden", None)])
def test_the_owner_decides_what_is_said_of_the_row_count(rows, announced):
    assert dataset(27, rows=rows).describe().rows == announced


@given(st.integers(0, 10**9))
def test_a_rounded_count_is_a_multiple_of_ten_and_never_more_than_the_truth(count):
    said = announced_rows(count, "rounded")
    assert said % 10 == 0
    assert 0 <= count - said < 10


def test_values_change_nothing_in_a_description():
    one = Dataset("rows", torch.zeros(12, 2), torch.zeros(12, dtype=torch.int64))
    other = Dataset("rows", torch.rand(12, 2) * 1e6, torch.arange(12) * 1000)
    assert one.describe() == other.describe()


def test_values_never_print():
    made = Dataset("rows", torch.full((9, 1), 12345.0), torch.full((9,), 54321.0), validation=0.3)
    for text in (repr(made), str(made), repr(made.training), repr(made.evaluation)):
        assert "12345" not in text
        assert "54321" not in text
        assert "tensor" not in text


@pytest.mark.parametrize(
    ("target", "classes", "dtype", "kind"),
    [
        (np.array([True, False, True]), None, torch.float32, "bool"),
        (np.array([0.5, 1.5, 2.5]), None, torch.float32, "float"),
        (np.array([0.5, 1.5, 2.5], dtype=np.float16), None, torch.float32, "float"),
        (np.array([7, 8, 9], dtype=np.uint16), None, torch.int64, "integer"),
        (np.array([0, 1, 2], dtype=">i4"), 3, torch.int64, "category"),
        (np.array(["no", "yes", "no"]), ("no", "yes"), torch.int64, "category"),
        (torch.tensor([0, 1, 2], dtype=torch.int8), ("a", "b", "c"), torch.int64, "category"),
    ],
)
def test_a_target_gets_the_dtype_it_is_trained_with(target, classes, dtype, kind):
    made = Dataset("rows", np.eye(3), target, classes=classes)
    assert (made.target.dtype, made.describe().target.kind) == (dtype, kind)
    assert made.describe().target_dtype == str(dtype).removeprefix("torch.")


def test_text_is_numbered_in_the_owners_order():
    made = Dataset("rows", np.eye(3), np.array(["mild", "none", "mild"]), classes=["none", "mild", "severe"])
    assert made.target.tolist() == [1, 0, 1]
    assert made.describe().classes == ("none", "mild", "severe")


def test_a_number_of_classes_is_as_good_as_their_names():
    made = Dataset("rows", np.eye(3), np.array([1, 0, 1]), classes=3)
    assert made.describe().classes == ("0", "1", "2")


def test_images_have_one_column_and_their_own_shape():
    described = Dataset("rows", torch.zeros(4, 1, 28, 28), torch.zeros(4)).describe()
    assert described.features == (Column("features", "float"),)
    assert described.feature_shape == (1, 28, 28)


def test_codes_stay_whole_numbers_when_declared():
    made = Dataset("rows", np.array([[1, 2], [3, 4]]), np.array([0.0, 1.0]), features_dtype="int64")
    assert made.features.dtype is torch.int64
    assert made.describe().features == (Column("x0", "integer"), Column("x1", "integer"))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64])
def test_whole_numbers_in_memory_stay_whole_numbers(kind):
    values, target = np.array([[1, 2], [3, 4]], dtype=kind), np.array([0.0, 1.0])
    for features in (values, torch.from_numpy(values)):
        assert Dataset("rows", features, target).features.dtype is torch.int64
    assert Dataset("rows", values, target, features_dtype="float32").features.dtype is torch.float32


def test_yes_and_no_are_float_features():
    made = Dataset("rows", torch.tensor([[True, False], [False, True]]), torch.zeros(2))
    assert made.features.dtype is torch.float32


def test_tensors_are_copied_fresh_contiguous_and_without_gradient():
    given_features = torch.ones(3, 4, requires_grad=True)
    given_target = torch.zeros(4)
    made = Dataset("rows", given_features.t(), given_target)
    given_target.fill_(9)
    assert made.features.is_contiguous()
    assert not made.features.requires_grad
    assert made.target.tolist() == [0.0] * 4


@settings(max_examples=50)
@given(st.integers(2, 200), st.floats(0.01, 0.9))
def test_training_and_evaluation_rows_are_disjoint_and_complete(rows, validation):
    numbers = torch.arange(rows, dtype=torch.float32)
    held_out = max(1, int(validation * rows))
    if held_out == rows:
        return
    made = Dataset("rows", numbers[:, None], numbers, validation=validation)
    assert len(made.evaluation) == held_out
    assert sorted([*made.training.target.tolist(), *made.evaluation.target.tolist()]) == numbers.tolist()
    for part in (made.training, made.evaluation):
        assert part.features[:, 0].tolist() == part.target.tolist() == sorted(part.target.tolist())


def test_the_split_is_the_same_at_every_start_and_differs_by_name():
    numbers = torch.arange(100, dtype=torch.float32)

    def held_out(name):
        return Dataset(name, numbers[:, None], numbers, validation=0.2).evaluation.target.tolist()

    assert held_out("rows") == held_out("rows") != held_out("other-rows")
    # A change of this digest moves rows between training and evaluation at every worker that is upgraded.
    assert hashlib.sha256(repr(held_out("rows")).encode()).hexdigest()[:16] == "c3c84835ccb7fc66"


def test_without_validation_every_row_trains():
    made = dataset()
    assert len(made.training) == len(made) == 25
    assert len(made.evaluation) == 0
    assert made.evaluation.features.shape == (0, 3)


def test_nan_rows_are_counted_and_their_columns_named():
    values = features().numpy().copy()
    values[3, 1] = values[4, 1] = np.nan
    values[4, 2] = np.inf
    with pytest.raises(
        DataError, match="2 rows with a missing, infinite or not representable value in 'x1', 'x2'; fill"
    ):
        Dataset("rows", values, np.zeros(25))


def test_a_value_beyond_float32_is_refused_and_not_quoted():
    values = np.ones((3, 1))
    values[1, 0] = 1.2345e200
    with pytest.raises(DataError, match="1 row with") as refusal:
        Dataset("rows", values, np.zeros(3))
    assert "1.2345" not in str(refusal.value)


def test_nan_in_images_names_the_one_column():
    with pytest.raises(DataError, match=r"1 row with .* in 'features'"):
        Dataset("rows", torch.full((1, 1, 2, 2), torch.nan), torch.zeros(1))


def test_nan_in_the_target_is_refused():
    with pytest.raises(DataError, match=r"1 row with .* in 'ill'"):
        Dataset("rows", np.eye(3), np.array([0.0, np.nan, 1.0]), target_name="ill")


def test_labels_outside_the_declared_classes_are_counted_and_not_quoted():
    with pytest.raises(DataError, match="2 rows with a 'target' outside the 2 declared classes 0 to 1") as refusal:
        Dataset("rows", np.eye(3), np.array([0, 777, -5]), classes=2)
    assert "777" not in str(refusal.value)
    with pytest.raises(DataError, match="1 row with a 'target' outside the 2 declared classes") as refusal:
        Dataset("rows", np.eye(3), np.array(["no", "yes", "secret"]), classes=("no", "yes"))
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("given_features", "target", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0), "has no rows"),
        (torch.zeros(3), torch.zeros(3), r"features have shape \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3, 1), r"a target of shape \(rows,\)"),
        (torch.zeros(3, 2), torch.zeros(4), "the same number of rows"),
        (torch.zeros(3, 0), torch.zeros(3), "at least one feature"),
        ([[1.0]], torch.zeros(1), "features is a list; pass a torch tensor or a NumPy array"),
        (np.array([["a"]]), torch.zeros(1), "features has NumPy type <U1; encode strings"),
        (np.array([[None]]), torch.zeros(1), "features has NumPy type object"),
        (torch.zeros(1, 1, dtype=torch.complex64), torch.zeros(1), "dense tensor of real numbers"),
        (torch.zeros(1, 1).to_sparse(), torch.zeros(1), "dense tensor of real numbers"),
        (np.full((1, 1), 2**64 - 1, dtype=np.uint64), torch.zeros(1), "beyond int64"),
        (np.eye(2), np.array(["a", "b"]), "holds text; declare every class"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_with_what_to_do(given_features, target, message):
    with pytest.raises(DataError, match=message) as refusal:
        Dataset("rows", given_features, target)
    assert "data set 'rows'" in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ("a", "b")}, "names 2 feature columns but has 3"),
        ({"columns": ("a", "b", "a")}, "two columns called 'a'"),
        ({"columns": ("a", "b", "target")}, "two columns called 'target'"),
        ({"classes": 2}, "the target is bool but classes are declared"),
        ({"classes": 1}, "classes is 1; use 2 to"),
        ({"classes": ("a", "a")}, "give 2 to 100000, each once"),
        ({"classes": "ab"}, "write their number or a list of names"),
        ({"features_dtype": "int64"}, "the features are torch.float64; round them first"),
        ({"features_dtype": "float64"}, "use float32 or int64"),
        ({"validation": 1.0}, "use a share of at least 0 and below 1"),
        ({"validation": float("nan")}, "use a share of at least 0 and below 1"),
        ({"rows": "exactly"}, r"did you mean 'exact'\?"),
        ({"tags": "#a"}, r"write a list, such as \['#a'\]"),
        ({"release": ["plain-update"]}, "a str is no rule"),
        ({"budget": 8.0}, r"a float is no budget; use Budget\(epsilon, delta\)"),
        ({"budget": Budget(8.0, 1e-5, "patient")}, "its budget is for each patient, and nothing says"),
        ({"budget": Budget(8.0, 0.04)}, "with its 25 rows, delta 0.04 would allow one row .* below 0.04, such as 1e-2"),
        ({"release": [Mock()]}, "data set 'rows': rule 1, 'mock', has no stand-in"),
        ({"release": [Approval()], "rows": "hidden"}, "its rule 'approval' would reveal it"),
        ({"release": [Metrics(), Metrics(("loss",))]}, "rules 1 and 2 are both 'metrics'"),
        ({"legal_basis": "two\nlines"}, "legal_basis is one line of at most 200 characters"),
        ({"mock": features()}, r"mock is a Tensor; give \(features, target\)"),
    ],
)
def test_options_that_cannot_be_kept_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        dataset(**options)


def test_a_budget_a_basis_and_a_stand_in_are_kept():
    budget = Budget(8.0, 0.0399)
    stand_in = (torch.zeros(4, 3), torch.tensor([True, False, True, False]))
    made = dataset(budget=budget, mock=stand_in, legal_basis="GDPR Art. 6(1)(e)", release=[Mock()])
    assert (made.budget, made.legal_basis, len(made.mock)) == (budget, "GDPR Art. 6(1)(e)", 4)
    assert (made.mock.features.dtype, made.mock.target.dtype) == (torch.float32, torch.float32)
    assert "mock" not in repr(made)
    assert (dataset().budget, dataset().mock, dataset().legal_basis) == (None, None, "")


YES = torch.tensor([True, False])


@pytest.mark.parametrize(
    ("stand_in", "message"),
    [
        ((torch.zeros(2, 4), YES), r"the mock of data set 'rows' has rows of shape \(4,\), the data \(3,\)"),
        ((torch.zeros(2, 3, 1), YES), r"has rows of shape \(3, 1\), the data \(3,\)"),
        ((torch.zeros(2, 3), torch.tensor([1, 2])), "has a target of kind integer, the data of bool"),
        ((torch.zeros(2, 3), YES[:1]), "the mock of data set 'rows': .* both need the same number of rows"),
        ((torch.full((2, 3), torch.nan), YES), "the mock of data set 'rows': 2 rows with a missing"),
        (([[0.0]], YES), r"has rows of shape \(\), the data"),
        ((features(), torch.arange(25) % 2 == 0), "the mock of data set 'rows' holds the rows themselves"),
    ],
)
def test_a_stand_in_of_another_schema_is_refused(stand_in, message):
    with pytest.raises(DataError, match=message):
        dataset(mock=stand_in)


def test_a_stand_in_has_the_classes_and_dtype_of_the_data():
    tokens, target = torch.arange(12).reshape(4, 3), torch.tensor([0, 1, 2, 1])
    made = Dataset("rows", tokens, target, classes=3, mock=(torch.zeros(2, 3, dtype=torch.int8), target[:2]))
    assert (made.mock.features.dtype, made.mock.target.tolist()) == (torch.int64, [0, 1])
    with pytest.raises(DataError, match="the mock of data set 'rows': 1 row with a 'target' outside the 3 declared"):
        Dataset("rows", tokens, target, classes=3, mock=(tokens[:1], torch.tensor([3])))


def test_too_few_rows_to_hold_any_out_is_refused():
    with pytest.raises(DataError, match=r"1 rows, too few to hold out 0\.5"):
        Dataset("rows", torch.zeros(1, 1), torch.zeros(1), validation=0.5)


def test_a_name_must_stand_in_a_ledger():
    with pytest.raises(UsageError, match="data set name 'My Rows' is not usable"):
        Dataset("My Rows", torch.zeros(1, 1), torch.zeros(1))


@pytest.mark.parametrize("rule", [PlainUpdate(("me",)), PlainUpdate(("me",), weight="exact"), Statistics()])
def test_hidden_rows_contradict_a_rule_that_would_reveal_their_number(rule):
    with pytest.raises(UsageError, match=f"hides its row count, but its rule '{rule.name}' would reveal it"):
        dataset(rows="hidden", release=[rule])


def test_hidden_rows_go_with_rules_that_do_not():
    rules = (PlainUpdate(("me",), weight="uniform"), Statistics(("sum",)), Metrics())
    assert dataset(rows="hidden", release=rules).release == rules
