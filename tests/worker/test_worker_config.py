"""worker.toml: read strictly, paths beside the file, and nothing promised that is not kept."""

from pathlib import Path

import pytest

from fedpriv.errors import ConfigError
from fedpriv.policy.rules import Metrics, PlainUpdate
from fedpriv.privacy.budget import Budget
from fedpriv_worker.config import DatasetConfig, Dial, Listen, load_config

WHOLE = """
[worker]
name = "st-elsewhere"
state = "state/"
device = "cuda:0"
threads = 2

[dial]
address = "coordinator.example:7443"

[tls]
ca = "ca.pem"
certificate = "certificate.pem"
key = "/secret/key.pem"

[[dataset]]
name = "breast-cancer"
path = "rows.parquet"
target = "malignant"
tags = ["#cancer", "#tabular"]
description = "biopsies of one year"
validation = 0.2
rows = "rounded"
release = [
  { rule = "plain-update", recipients = ["coordinator-1"], weight = "exact" },
  { rule = "metrics", kinds = ["loss", "accuracy"] },
]

[[dataset]]
name = "digits"
path = "hospital.loaders:digits"
target = "digit"
classes = 10
"""


def load(tmp_path: Path, text: str):
    path = tmp_path / "worker.toml"
    path.write_text(text)
    return load_config(path)


def test_a_whole_file_is_read(tmp_path):
    config = load(tmp_path, WHOLE)
    assert config.worker.name == "st-elsewhere"
    assert (config.worker.device, config.worker.threads) == ("cuda:0", 2)
    assert config.dial == Dial("coordinator.example:7443")
    assert config.listen is None
    first, second = config.datasets
    assert first == DatasetConfig(
        "breast-cancer",
        tmp_path / "rows.parquet",
        "malignant",
        tags=("#cancer", "#tabular"),
        description="biopsies of one year",
        validation=0.2,
        release=(PlainUpdate(("coordinator-1",), weight="exact"), Metrics()),
    )
    assert second.loader == "hospital.loaders:digits"
    assert (second.classes, second.release) == (10, ())


def test_paths_are_relative_to_the_file_and_absolute_ones_stay(tmp_path):
    config = load(tmp_path, WHOLE)
    assert config.worker.state == tmp_path / "state"
    assert config.tls.ca == tmp_path / "ca.pem"
    assert config.tls.key == Path("/secret/key.pem")


def test_a_worker_may_listen_at_a_port_that_the_system_picks(tmp_path):
    text = WHOLE.replace('[dial]\naddress = "coordinator.example:7443"', '[listen]\naddress = "127.0.0.1:0"')
    assert load(tmp_path, text).listen == Listen("127.0.0.1:0")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[dial]", "[dail]", r"worker.toml: 'dail' is no key here \(did you mean 'dial'\?\)"),
        ("device =", "devise =", r"worker.toml \[worker\]: 'devise' is no key here \(did you mean 'device'\?\)"),
        ("target =", "traget =", r"worker.toml \[\[dataset\]\] 1: 'traget' is no key here \(did you mean 'target'\?\)"),
        (
            'name = "st-elsewhere"',
            "name = 7",
            r"worker.toml \[worker\] name must be a string, not a whole number \(7\)",
        ),
        ('name = "st-elsewhere"', 'name = "St Elsewhere"', "worker name 'St Elsewhere' is not usable"),
        ('name = "st-elsewhere"\n', "", r"worker.toml \[worker\]: 'name' is missing; add it as a string"),
        ("cuda:0", "gpu", "device is 'gpu'; use cpu, mps, cuda"),
        ("threads = 2", "threads = 0", "threads is 0; use 1 to 1024"),
        ("[dial]", '[listen]\naddress = "127.0.0.1:0"\n[dial]', r"it has both of \[dial\] and \[listen\]"),
        ('[dial]\naddress = "coordinator.example:7443"', "", r"it has neither of \[dial\] and \[listen\]"),
        ("example:7443", "example:0", "must be a host and a port from 1 to 65535"),
        ('name = "digits"', 'name = "breast-cancer"', "two data sets are called 'breast-cancer'; rename one of them"),
        (
            "rows.parquet",
            "rows.xlsx",
            r"path 'rows.xlsx' is neither a file ending in .parquet",
        ),
        (
            "plain-update",
            "plain-updates",
            r"release\[1\]: 'plain-updates' is no rule \(did you mean 'plain-update'\?\)",
        ),
        ('"metrics", kinds', '"approval", kinds', r"release\[2\] approval: 'kinds' is no key here"),
        ('"metrics", kinds = ["loss", "accuracy"]', '"mock"', "rule 2, 'mock', has no stand-in to let out"),
        ('rows = "rounded"', 'rows = "round"', r"did you mean 'rounded'\?"),
        ('rows = "rounded"', 'rows = "hidden"', "its rule 'plain-update' would reveal it"),
        ("validation = 0.2", "validation = 1.5", "validation is 1.5"),
        ("validation = 0.2", 'columns = ["malignant"]', "columns holds the target 'malignant'"),
        ("validation = 0.2", 'mock = "mock.xlsx"', r"mock 'mock.xlsx' is neither a file ending in .parquet"),
        ("validation = 0.2", 'mock = "rows.parquet"', "mock is the data itself"),
        ("validation = 0.2", "budget = { epsilon = 8.0 }", r"1 \[budget\]: 'delta' is missing; add it as a number"),
        ("validation = 0.2", "budget = { epsilon = inf, delta = 1e-5 }", r"\[budget\]: epsilon is inf; use a number"),
        (
            "validation = 0.2",
            "budget = { epsilon = 8.0, delta = 1 }",
            "delta is 1.0; use a number between",
        ),
        ("validation = 0.2", "budget = 8.0", "budget must be a table"),
        (
            "validation = 0.2",
            'budget = { epsilon = 8.0, delta = 1e-5, unit_column = "patient" }',
            "unit_column says whose rows they are, and unit is 'row'",
        ),
        ("validation = 0.2", 'unit_column = "patient"', "'unit_column' is no key here"),
        (
            "validation = 0.2",
            "budget = { epsilon = 1.0, delta = 1e-5, maximum_rows_per_unit = 3 }",
            "'maximum_rows_per_unit' is refused: each private step takes one row",
        ),
        ("validation = 0.2", f'legal_basis = "{"x" * 201}"', "legal_basis is one line of at most 200 characters"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_the_place_and_the_remedy(tmp_path, old, new, message):
    assert old in WHOLE
    with pytest.raises(ConfigError, match=message) as refusal:
        load(tmp_path, WHOLE.replace(old, new, 1))
    assert str(refusal.value).startswith("worker.toml")
    assert refusal.value.exit_code == 2


def test_a_stand_in_a_budget_and_a_legal_basis_are_read(tmp_path):
    more = """validation = 0.2
mock = "mock.csv"
legal_basis = "GDPR Art. 6(1)(e)"
budget = { epsilon = 8, delta = 1e-5 }"""
    dataset, _ = load(tmp_path, WHOLE.replace("validation = 0.2", more)).datasets
    assert dataset.mock == tmp_path / "mock.csv"
    assert dataset.legal_basis == "GDPR Art. 6(1)(e)"
    assert dataset.budget == Budget(8.0, 1e-5, "row")


def test_a_stand_in_may_come_from_a_loader(tmp_path):
    text = WHOLE.replace("validation = 0.2", 'mock = "hospital.loaders:mock"')
    assert str(load(tmp_path, text).datasets[0].mock) == "hospital.loaders:mock"


def test_nothing_is_written_while_a_configuration_is_read(tmp_path):
    load(tmp_path, WHOLE)
    assert [path.name for path in tmp_path.iterdir()] == ["worker.toml"]


def test_payloads_are_recorded_only_where_every_data_set_is_simulated(tmp_path):
    recorded = WHOLE.replace("[worker]\n", "[worker]\nrecord_payloads = true\n", 1)
    with pytest.raises(ConfigError, match="is not marked as simulated; remove record_payloads"):
        load(tmp_path, recorded)
    config = load(tmp_path, recorded.replace("[[dataset]]\n", "[[dataset]]\nsimulated = true\n"))
    assert config.worker.record_payloads
    assert all(each.simulated for each in config.datasets)
