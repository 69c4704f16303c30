"""Exports: every entry exactly once, in forms that their specifications accept, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
import uuid
from datetime import datetime

import pytest
from ledgers import entries, update, written
from typer.testing import CliRunner

from fedpriv.cli.audit import app
from fedpriv.cli.audit.exporting import COLUMNS, cell
from fedpriv.errors import StorageFailed, UsageError

QUALIFIED = re.compile(r"(fp|prov|xsd):[\w%/.~-]+")


def export(*arguments):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.fixture
def ledger(tmp_path):
    drafts = [
        update(kind="hello", labels=(), policy="", peer="unidentified", purpose="", bytes=500),
        update(round=1, bytes=1000),
        update(round=1, kind="evaluation", bytes=10, peer="coordinator-2"),
        update(round=2, bytes=2000, labels=("images/bob", "notes/bob"), purpose="bones"),
        update(round=2, bytes=1000),
        update(round=2, bytes=1000, source=4),
        update(round=1, bytes=1000),
    ]
    written(tmp_path, entries(drafts))
    return tmp_path


def test_json_lines_hold_every_entry_as_it_is(ledger):
    found = [json.loads(line) for line in export(ledger, "--format", "jsonl").splitlines()]
    assert [entry["seq"] for entry in found] == list(range(7))
    assert found[3]["labels"] == ["images/bob", "notes/bob"]


def test_csv_has_a_row_for_every_entry_and_filters_apply(ledger):
    rows = list(csv.DictReader(io.StringIO(export(ledger, "--format", "csv"))))
    assert len(rows) == 7
    assert tuple(rows[0]) == COLUMNS
    assert rows[3]["labels"] == "images/bob notes/bob"
    assert (rows[1]["time"], rows[5]["source"], rows[0]["round"]) == ("2026-01-01T00:00:01.000Z", "4", "-1")
    assert export(ledger, "--format", "csv", "--round", 2, "--kind", "update").count("\n") == 4


def test_a_long_export_is_written_in_pieces_and_loses_none(tmp_path):
    written(tmp_path, entries([update()] * 600))
    assert export(tmp_path, "--format", "csv").count("\n") == 601
    assert export(tmp_path, "--format", "jsonl", "-o", tmp_path / "entries.jsonl") == ""
    assert (tmp_path / "entries.jsonl").read_text().count("\n") == 600


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\ufffd=1"),
        ("\r=1", "'\ufffd=1"),
        ("\uff1d1", "'\uff1d1"),
        ("study;=1+1", "study;'=1+1"),
        ("study; =1;-2", "study;' =1;'-2"),
        ('study;"=1+1"', 'study;\'"=1+1"'),
        (";\t@x", ";'\ufffd@x"),
        ("a;b; c", "a;b; c"),
        ("plain", "plain"),
        ("a\x1b[2J\u202e", "a\ufffd[2J\ufffd"),
        (-1, "-1"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text, expected):
    assert cell(text) == expected


def test_a_hostile_name_is_harmless_in_every_column(tmp_path):
    evil = '=HYPERLINK("http://x","y")'
    draft = update(kind=evil, peer=evil, purpose=evil, labels=(evil,), policy=evil, approval=evil, method=evil,
                   legal_basis=evil)  # fmt: skip  # one entry
    written(tmp_path, entries([draft]))
    (row,) = csv.DictReader(io.StringIO(export(tmp_path, "--format", "csv")))
    assert not any(value.startswith("=") for value in row.values())
    assert row["peer"] == "'" + evil


def test_no_cell_is_a_formula_where_semicolons_separate_them(tmp_path):
    written(tmp_path, entries([update(purpose='study;=HYPERLINK("http://x")', legal_basis="a; +1;-2")]))
    line = export(tmp_path, "--format", "csv").splitlines()[1]
    cells = [each.strip(" \"'") if each[:1] != "'" else "text" for each in line.split(";")]
    assert len(cells) == 4
    assert not any(each.startswith(("=", "+", "-", "@")) for each in cells)


def check_run_event(event):
    """Check what the OpenLineage 2-0-2 schema requires of a RunEvent."""
    assert {"eventType", "eventTime", "run", "job", "producer", "schemaURL", "inputs"} <= set(event)
    assert event["eventType"] in {"START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"}
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    uuid.UUID(event["run"]["runId"])
    for uri in (event["producer"], event["schemaURL"]):
        assert re.match(r"[a-z]+:\S+$", uri)
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    for named in (event["job"], *event["inputs"], *event.get("outputs", ())):
        assert named["namespace"]
        assert named["name"]
    for output in event.get("outputs", ()):
        assert {"_producer", "_schemaURL"} <= set(output["outputFacets"]["outputStatistics"])


def test_lineage_has_a_start_and_one_completion_for_each_round_of_a_job(ledger):
    events = [json.loads(line) for line in export(ledger, "--format", "openlineage").splitlines()]
    for event in events:
        check_run_event(event)
    complete = [event for event in events if event["eventType"] == "COMPLETE"]
    started = [event["run"]["runId"] for event in events if event["eventType"] == "START"]
    assert [event["run"]["runId"] for event in complete] == started
    assert len(set(started)) == 4
    assert [(event["job"]["name"], [each["name"] for each in event["outputs"]]) for event in complete] == [
        ("tumours", ["tumours/bob/round-1"] * 2),
        ("tumours", ["tumours/bob/round-2"]),
        ("bones", ["bones/bob/round-2"]),
        ("tumours", ["tumours/bob/round-1"]),
    ]
    sizes = [[each["outputFacets"]["outputStatistics"]["size"] for each in event["outputs"]] for event in complete]
    assert sizes == [[1000, 10], [2000], [2000], [1000]]
    assert [each["namespace"] for each in complete[0]["outputs"]] == ["fedpriv/coordinator-1", "fedpriv/coordinator-2"]
    assert [each["name"] for each in complete[2]["inputs"]] == ["images", "notes"]


def check_prov(document):
    """Check what the PROV-JSON schema requires: qualified names, the parts of each relation, no dangling one."""
    relations = {
        "wasGeneratedBy": {"prov:entity": "entity", "prov:activity": "activity"},
        "used": {"prov:activity": "activity", "prov:entity": "entity"},
        "wasAttributedTo": {"prov:entity": "entity", "prov:agent": "agent"},
        "wasAssociatedWith": {"prov:activity": "activity", "prov:agent": "agent"},
    }
    assert set(document) == {"prefix", "entity", "activity", "agent", *relations}
    for section in ("entity", "activity", "agent"):
        for name, attributes in document[section].items():
            assert QUALIFIED.fullmatch(name)
            assert all(QUALIFIED.fullmatch(key) for key in attributes)
    for section, parts in relations.items():
        for name, relation in document[section].items():
            assert name.startswith("_:")
            for part, where in parts.items():
                assert relation[part] in document[where]
    for activity in document["activity"].values():
        assert datetime.fromisoformat(activity["prov:startTime"]) <= datetime.fromisoformat(activity["prov:endTime"])


def test_provenance_says_what_was_made_from_what_by_whom(ledger):
    document = json.loads(export(ledger, "--format", "prov"))
    check_prov(document)
    assert len(document["activity"]) == len(document["wasGeneratedBy"]) == len(document["wasAttributedTo"]) == 7
    assert set(document["entity"]) == {*(f"fp:message/bob/{seq}" for seq in range(7)), "fp:dataset/bob/notes",
                                       "fp:dataset/bob/images"}  # fmt: skip  # one set
    assert set(document["agent"]) == {f"fp:peer/{name}" for name in ("bob", "unidentified", "coordinator-1",
                                                                     "coordinator-2")}  # fmt: skip  # one set
    assert len(document["used"]) == 7
    assert document["wasGeneratedBy"]["_:generated-bob-3"]["prov:time"] == "2026-01-01T00:00:03.000Z"


def test_provenance_of_hostile_names_and_of_nothing_is_still_a_document(tmp_path):
    evil = 'a b/c:"<é>\x1b\u202e'
    written(tmp_path / "evil", entries([update(peer=evil, purpose=evil, labels=(evil,), kind=evil)]))
    check_prov(json.loads(export(tmp_path / "evil", "--format", "prov")))
    written(tmp_path / "none", [])
    check_prov(json.loads(export(tmp_path / "none", "--format", "prov")))
    assert export(tmp_path / "none", "--format", "openlineage") == ""


def test_an_export_that_cannot_be_written_or_read_says_so(ledger, tmp_path):
    result = CliRunner().invoke(app, ["export", str(ledger), "--format", "csv", "-o", str(tmp_path / "no" / "x.csv")])
    assert isinstance(result.exception, StorageFailed)
    missing = tmp_path / "x.csv"
    result = CliRunner().invoke(app, ["export", str(tmp_path / "absent"), "--format", "csv", "-o", str(missing)])
    assert isinstance(result.exception, UsageError)
    assert not missing.exists()
