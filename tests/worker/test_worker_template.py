"""The worker.toml that `fedpriv worker init` writes: closed as written, and every example in it is readable."""

import re

import pytest

from fedpriv.errors import UsageError
from fedpriv.policy.rules import RULES, Approval
from fedpriv.privacy.budget import Budget
from fedpriv_worker.config import load_config
from fedpriv_worker.template import render_template, write_template


def test_as_written_nothing_may_leave(tmp_path):
    config = load_config(write_template(tmp_path / "st-elsewhere"))
    assert config.worker.name == "st-elsewhere"
    assert config.datasets == ()


def uncommented(text):
    """Return the template with one "#" less before each line of its data set, and the other way to connect."""
    head, mark, dataset = text.partition("# [[dataset]]")
    examples = re.sub(r"^#  ?(?=\[\[dataset|\w+ = |\]| \{ rule)", "", mark + dataset, flags=re.MULTILINE)
    head = (
        head.replace("# threads", "threads")
        .replace("[dial] ", "# [dial]")
        .replace('address = "coord', '# address = "coord')
    )
    head = head.replace("# [[witness", "[[witness").replace("# url", "url").replace("# vkey", "vkey")
    return head.replace("# [listen]", "[listen]").replace('# address = "0', 'address = "0') + examples


def test_every_example_in_a_comment_is_one_that_the_reader_accepts(tmp_path):
    path = write_template(tmp_path, "bob")
    path.write_text(uncommented(path.read_text()))
    config = load_config(path)
    assert config.listen is not None
    assert config.worker.threads == 4
    assert [witness.url for witness in config.witnesses] == ["https://witness.example/ledgers"]
    (example,) = config.datasets
    assert example.release == (Approval(),)
    assert example.classes == ("no", "maybe", "yes")
    assert example.validation == 0.2
    assert example.budget == Budget(8.0, 1e-5)
    assert example.mock == tmp_path / "mock.parquet"
    assert example.legal_basis == "GDPR Art. 6(1)(e)"


def test_every_rule_that_stays_in_a_comment_can_stand_beside_the_approval(tmp_path):
    path = write_template(tmp_path, "bob")
    text = uncommented(path.read_text())
    rules = re.findall(r"^#   # \{ rule = .*$", text, flags=re.MULTILINE)
    found = []
    for rule in rules:
        path.write_text(text.replace(rule, rule.replace("#   # ", "")))
        (dataset,) = load_config(path).datasets
        approval, other = dataset.release
        assert approval == Approval()
        found.append(other.name)
    assert {"approval", *found} == set(RULES)


def test_a_file_that_is_there_is_never_written_over(tmp_path):
    path = write_template(tmp_path, "bob")
    path.write_text("the owner's own words")
    with pytest.raises(UsageError, match=r"worker.toml exists already and was left as it is"):
        write_template(tmp_path, "bob")
    assert path.read_text() == "the owner's own words"


def test_nothing_but_the_one_file_is_made(tmp_path):
    write_template(tmp_path / "bob")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["bob", "bob/worker.toml"]


def test_a_folder_that_cannot_name_a_worker_is_not_made(tmp_path):
    with pytest.raises(UsageError, match="worker name 'St Elsewhere' is not usable"):
        write_template(tmp_path / "St Elsewhere")
    assert list(tmp_path.iterdir()) == []


def test_a_name_cannot_write_toml_of_its_own():
    with pytest.raises(UsageError, match="is not usable"):
        render_template('x"\n[listen]')
