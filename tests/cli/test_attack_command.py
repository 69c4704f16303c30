"""fedpriv attack, as somebody runs it on a recorded run."""

import json

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import fedpriv as fp
from fedpriv.cli.app import app
from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return the folder of a run of one worker that has one small image."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    held = fp.Dataset(
        "images", torch.rand(1, 16), torch.ones(1, dtype=torch.int64), classes=2, simulated=True,
        release=[fp.PlainUpdate(recipients=("me",))],
    )  # fmt: skip  # one line of promises
    worker = fp.VirtualWorker("w", [held], record_payloads=folder)
    local = fp.LocalTraining(batch_size=1, optimizer=SGD(lr=1.0))
    with fp.Federation([worker]) as federation:
        federation.fit(model, dataset="images", loss=F.cross_entropy, rounds=1, local=local).save(folder)
    worker.close()
    return folder


def test_it_says_what_was_read_off_beside_its_control_and_draws_it(recorded):
    ended = CliRunner().invoke(app, ["attack", str(recorded), "--json"], catch_exceptions=False)
    document = json.loads(ended.stdout)
    by_name = {each["attack"]: each for each in document["findings"]}
    assert by_name["linear layer"] == {
        "attack": "linear layer", "released": "update", "of": "w", "measured": 1.0, "control": 1.0, "works_from": 0.5,
        "excess_over_claim": None, "verdict": "SUCCEEDED",
    }  # fmt: skip  # one line of facts
    assert document["picture"] == str(recorded / "attacks.png")
    assert (recorded / "attacks.png").read_bytes().startswith(b"\x89PNG")


def test_people_get_a_table(recorded):
    ended = CliRunner().invoke(app, ["attack", str(recorded)], catch_exceptions=False)
    assert "linear layer" in ended.stdout
    assert "SUCCEEDED" in ended.stdout


@pytest.mark.parametrize(
    ("words", "said"), [(["--epsilon", "0"], "use those that were claimed"), ([], "holds no recorded payloads")]
)
def test_what_cannot_be_attacked_says_what_to_do(tmp_path, words, said):
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(app, ["attack", str(tmp_path), *words], catch_exceptions=False)
