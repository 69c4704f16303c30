"""JOB.toml: read strictly, and the researcher's own Python imported on the researcher's machine alone."""

import pytest
import torch

from fedpriv.errors import ConfigError
from fedpriv.learning.local import SGD, Adam, AdamW, LocalTraining
from fedpriv_coordinator.config import load_code, load_function, load_job

WHOLE = """
name = "first"
purpose = "triage"
dataset = "breast-cancer"
model = "model.py:build"
loss = "torch.nn.functional:binary_cross_entropy_with_logits"
evaluate = "model.py:evaluate"
rounds = 10
seed = 7
worker_metrics = ["loss", "accuracy"]
listen = "0.0.0.0:7443"

[workers]
names = ["alice", "bob", "carol"]
quorum = 2
deadline_seconds = 90

[local]
epochs = 2
batch_size = 16
optimizer = "sgd"
lr = 0.1
momentum = 0.9
nesterov = true
shuffle = false

[strategy]
name = "fedavg"

[sampling]
name = "fixed"
count = 2

[tls]
ca = "certs/ca.pem"
certificate = "certs/certificate.pem"
key = "/secret/key.pem"
"""

MODEL = """
import torch

built = []

def build():
    built.append(1)
    return torch.nn.Linear(3, 1)

def evaluate(model):
    return {"built": len(built)}

def no_model():
    return 3

def failing():
    return torch.nn.Linear("three", 1)

number = 5
"""


def load(tmp_path, text=WHOLE, model=MODEL):
    (tmp_path / "model.py").write_text(model)
    path = tmp_path / "JOB.toml"
    path.write_text(text)
    return load_job(path)


def changed(old, new):
    assert old in WHOLE
    return WHOLE.replace(old, new, 1)


def test_a_whole_file_is_read(tmp_path):
    job = load(tmp_path)
    assert (job.name, job.purpose, job.dataset, job.rounds, job.seed) == ("first", "triage", "breast-cancer", 10, 7)
    assert job.worker_metrics == ("loss", "accuracy")
    assert job.listen == "0.0.0.0:7443"
    assert (job.workers.names, job.workers.quorum, job.workers.deadline_seconds) == (("alice", "bob", "carol"), 2, 90.0)
    assert job.local == LocalTraining(2, 16, SGD(0.1, momentum=0.9, nesterov=True), shuffle=False)
    assert job.strategy.name == "fedavg"
    assert job.sampling.name == "fixed"
    assert len(job.sampling.choose(job.workers.names, seed=0, round_number=1).workers) == 2
    assert job.tls.ca == tmp_path / "certs" / "ca.pem"
    assert job.tls.key.as_posix() == "/secret/key.pem"


def test_an_asynchronous_strategy_is_named_in_the_file_with_its_buffer(tmp_path):
    strategy = load(tmp_path, WHOLE.replace('name = "fedavg"', 'name = "fedbuff"\nbuffer = 3\nlr = 0.5')).strategy
    assert (strategy.name, strategy.buffered.size, strategy.buffered.order) == ("fedbuff", 3, ())


def test_what_is_optional_may_be_left_out(tmp_path):
    text = WHOLE.replace('[strategy]\nname = "fedavg"\n', "").replace("quorum = 2\ndeadline_seconds = 90\n", "")
    for line in ('purpose = "triage"\n', 'evaluate = "model.py:evaluate"\n', "seed = 7\n"):
        text = text.replace(line, "")
    job = load(tmp_path, text)
    assert (job.purpose, job.evaluate, job.seed, job.workers.quorum) == ("", None, 0, None)
    assert job.strategy.name == "fedavg"
    assert load_code(job).evaluate is None


@pytest.mark.parametrize(
    ("section", "optimizer"),
    [
        ('optimizer = "adam"\nlr = 0.01\nbetas = [0.8, 0.9]', Adam(0.01, betas=(0.8, 0.9))),
        ('optimizer = "adamw"', AdamW()),
        ("lr = 1", SGD(1.0)),
    ],
)
def test_the_optimizer_is_named_and_its_options_stand_beside_it(tmp_path, section, optimizer):
    text = WHOLE[: WHOLE.index("[local]")] + f"[local]\n{section}\n" + WHOLE[WHOLE.index("[strategy]") :]
    assert load(tmp_path, text).local == LocalTraining(optimizer=optimizer)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds = 10", "round = 10", r"'round' is no key here \(did you mean 'rounds'\?\)"),
        ("rounds = 10", 'rounds = "ten"', r"JOB.toml rounds must be a whole number, not a string \('ten'\)"),
        ("rounds = 10", "rounds = 0", "rounds is 0; at least 1 is needed"),
        ("seed = 7", "seed = -1", "seed is -1; use 0 to"),
        ("seed = 7", 'folder = "x"', "'folder' is no key here"),
        ('name = "first"', 'name = "The First"', "job name 'The First' is not usable"),
        ('"breast-cancer"', '"Breast Cancer"', "data set name 'Breast Cancer' is not usable"),
        (
            '"loss", "accuracy"',
            '"loss", "acuracy"',
            r"worker_metrics\[2\] must be one of .* \(did you mean 'accuracy'\?\)",
        ),
        ("0.0.0.0:7443", "0.0.0.0", "listen must be a host and a port from 0 to 65535"),
        (
            '["alice", "bob", "carol"]',
            '["alice", "bob", "alice"]',
            r"\[workers\]: names has two workers",
        ),
        ('["alice", "bob", "carol"]', "[]", r"\[workers\]: names is empty"),
        ('["alice", "bob", "carol"]', '["Alice"]', "worker name 'Alice' is not usable"),
        ("quorum = 2", "quorum = 4", "quorum is 4 of 3 workers"),
        ("quorum = 2", "quorum = 0", "quorum is 0 of 3 workers"),
        ("deadline_seconds = 90", "deadline_seconds = 0", "deadline_seconds is 0.0; give a round some seconds"),
        ("deadline_seconds = 90", "deadline_seconds = inf", "deadline_seconds is inf"),
        (
            "epochs = 2",
            "epocs = 2",
            r"JOB.toml local: 'epocs' is no key here \(did you mean 'epochs'\?\); it takes",
        ),
        ("momentum = 0.9", "betas = [0.9, 0.99]", "local: 'betas' is no key here"),
        ("momentum = 0.9", 'momentum = "0.9"', r"local \(sgd\) momentum must be a number, not a string"),
        ("lr = 0.1\n", "", r"local \(sgd\): 'lr' is missing; add it as a number"),
        ("lr = 0.1", "lr = -0.1", "lr is -0.1; it must be above 0"),
        ("batch_size = 16", "batch_size = 0", "batch_size is 0; it must be"),
        ('"sgd"', '"sdg"', r"optimizer 'sdg' is not known \(did you mean 'sgd'\?\)"),
        ('"sgd"', "3", "optimizer 3 is not known"),
        ("[local]", "[[local]]", "local must be a table, not an array"),
        ('"fedavg"', '"fedavgg"', r"JOB.toml strategy: 'fedavgg' is no strategy \(did you mean 'fedavg'\?\)"),
        ('"fixed"', '"fixd"', r"sampling: 'fixd' is no sampling \(did you mean 'fixed'\?\)"),
        ("count = 2", "count = 0", r"sampling \(fixed\): count is 0"),
        ('"fedavg"', '"krum"', r"JOB.toml strategy \(krum\): 'attackers' is missing"),
        ('"fedavg"', '"krum"\nattackers = -1', r"strategy \(krum\): attackers is -1; krum assumes 0 or more"),
        (
            '"fedavg"',
            '"fedadam"\nbeta = 0.9',
            r"strategy \(fedadam\): 'beta' is no key here \(did you mean 'betas'\?\)",
        ),
        (
            "[tls]",
            "[privacy]\nepsilon = 3.0\n[tls]",
            "mode None is not known; use one of central, distributed, local, example, tree",
        ),
        ("[tls]", "[secure_aggregation]\n[tls]", "'roster' is missing"),
        (
            "[tls]",
            '[secure_aggregation]\nroster = "r.toml"\nminimum_workers = 2\n[tls]',
            "minimum_workers is 2; use a whole number, 3 or more",
        ),
        ("[tls]", '[secure_aggregation]\nroster = "r.toml"\ngraph = "ring"\n[tls]', "graph must be one of"),
        ("[tls]", '[secure_aggregation]\nroster = "r.toml"\nclip = 0\n[tls]', "clip is 0; use a number above 0, up to"),
        (
            "[tls]",
            '[secure_aggregation]\nroster = "r.toml"\ncolluding = 1\n[tls]',
            "colluding is 1; use a share",
        ),
    ],
)
def test_what_is_written_wrongly_is_refused_with_the_place_and_the_remedy(tmp_path, old, new, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        load(tmp_path, changed(old, new))
    assert str(refusal.value).startswith("JOB.toml")


def test_a_run_is_kept_beside_the_job_under_its_time_and_name(tmp_path):
    assert load(tmp_path).run_folder(1_767_225_600.5) == tmp_path / "runs" / "20260101T000000Z-first"
    assert load(tmp_path, changed("seed = 7", 'run = "elsewhere"')).run_folder(0.0) == tmp_path / "elsewhere"


def test_the_state_of_a_coordinator_lies_beside_the_job_unless_it_says_where(tmp_path):
    assert load(tmp_path).state == tmp_path / "coordinator-state"
    assert load(tmp_path, changed("seed = 7", 'state = "ours"')).state == tmp_path / "ours"


def test_the_researchers_file_runs_once_for_all_that_it_names(tmp_path):
    code = load_code(load(tmp_path))
    assert isinstance(code.model, torch.nn.Linear)
    assert code.loss is torch.nn.functional.binary_cross_entropy_with_logits
    assert code.evaluate(code.model) == {"built": 1}


def test_first_weights_follow_from_the_seed_and_leave_torchs_generator_alone(tmp_path):
    job = load(tmp_path)
    torch.manual_seed(1)
    first = load_code(job).model.weight
    drawn = torch.rand(3)
    second = load_code(job).model.weight
    other = load_code(load(tmp_path, changed("seed = 7", "seed = 8"))).model.weight
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_an_edited_file_is_run_again(tmp_path):
    load_code(load(tmp_path))
    wider = load_code(load(tmp_path, model=MODEL.replace("Linear(3, 1)", "Linear(30, 1)")))
    assert wider.model.in_features == 30


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "model.py:build",
            "modell.py:build",
            "modell.py does not exist; put the researcher's Python beside",
        ),
        ("model.py:build", "model.py:biuld", r"model.py has no function 'biuld' \(did you mean 'build'\?\)"),
        ("model.py:build", "model.py:number", "model.py has no function 'number'"),
        ("model.py:build", "model.py", "'model.py' names no function; write 'model.py:build'"),
        ("model.py:build", "model.py:torch.exit", "names no function"),
        ("model.py:build", ":build", "names no function"),
        ("model.py:build", "model.py:no_model", "model.py:no_model returned a int; return a torch.nn.Module"),
        ("model.py:build", "model.py:failing", "model.py:failing raised TypeError on line"),
        ("torch.nn.functional:", "torch.nn.functionals:", "module 'torch.nn.functionals' cannot be imported"),
        (
            "functional:binary_cross_entropy_with_logits",
            "functional:binary_cros_entropy",
            r"\(did you mean 'binary_cross_",
        ),
    ],
)
def test_code_that_cannot_be_used_is_named_with_what_to_do(tmp_path, old, new, message):
    job = load(tmp_path, changed(old, new))
    with pytest.raises(ConfigError, match=message):
        load_code(job)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def build(:\n", "does not run: SyntaxError on line 1"),
        ("import torch\n\nraise ValueError('no weights file')\n", "ValueError on line 3 of broken.py: no weights file"),
        ("import a_package_that_nobody_has\n", "ModuleNotFoundError on line 1 of broken.py"),
    ],
)
def test_a_file_that_does_not_run_says_on_which_line(tmp_path, source, message):
    (tmp_path / "broken.py").write_text(source)
    for _ in range(2):  # a module that failed is not kept half-made
        with pytest.raises(ConfigError, match=message):
            load_function("broken.py:build", tmp_path)


def test_secure_aggregation_is_read_with_its_roster_beside_the_job(tmp_path):
    section = '[secure_aggregation]\nroster = "roster.toml"\nminimum_workers = 5\nweights = "uniform"\n[tls]'
    secure = load(tmp_path, changed("[tls]", section)).secure_aggregation
    assert (secure.minimum_workers, secure.weights, secure.graph) == (5, "uniform", "complete")
    assert secure.roster == tmp_path / "roster.toml"
    assert load(tmp_path, changed("[tls]", "[tls]")).secure_aggregation is None
