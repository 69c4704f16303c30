"""What attacks get out of recorded runs: everything where nothing protects, nothing where something does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fedpriv as fp
from fedpriv.entropy import SeededEntropy
from fedpriv.errors import UsageError
from fedpriv.learning.local import SGD
from fedpriv.plans.layout import TensorExample
from fedpriv.plans.tracing import trace_loss
from fedpriv.plans.validation import validate
from fedpriv.privacy.attacks.imprint import imprint
from fedpriv.privacy.modes import ExampleDP
from fedpriv.simulation.attacking import Claim, attacked
from fedpriv.simulation.recordings import Recording
from fedpriv.wire import codec
from fedpriv.wire.messages import Update
from fedpriv_worker.example_gradients import ExampleGradients
from fedpriv_worker.payloads import Recorder
from fedpriv_worker.private_step import PrivateStep, train_privately

WIDE, BINS = 64, 800


def pictures(count, seed):
    """Return rows like small pictures: smooth, between 0 and 1, each its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 4, 4, generator=generator)
    smooth = F.interpolate(coarse, size=(8, 8), mode="bilinear").flatten(1)
    return smooth * (0.2 + 0.8 * torch.rand(count, 1, generator=generator))


def data(count, seed, rule, validation=0.0):
    target = torch.arange(count) % 3
    return fp.Dataset(
        "pictures", pictures(count, seed), target, classes=3, release=[rule], simulated=True, validation=validation
    )


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDE, 16), nn.Sigmoid(), nn.Linear(16, 3))


def planted():
    """Return a model whose first layer is an imprint, all of whose lines the next layer weighs alike."""
    trap = imprint(np.full(WIDE, 1.0 / WIDE), pictures(4000, 7).numpy(), BINS)
    lines = len(trap.thresholds)
    model = nn.Sequential(nn.Linear(WIDE, lines), nn.ReLU(), nn.Linear(lines, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.from_numpy(trap.weight))
        model[0].bias.copy_(torch.from_numpy(trap.bias))
        model[2].weight.copy_(torch.tensor([[0.1], [-0.2], [0.3]]).expand(3, lines) / BINS)
    return model


def run(folder, model, *, workers, rows, secure=False, lr=10.0):
    """Train one step on all rows of each worker, recorded, and return what was recorded."""
    rule = fp.SecureSum() if secure else fp.PlainUpdate(recipients=("me",))
    held = [fp.VirtualWorker(f"w{at}", [data(rows, 100 + at, rule)], record_payloads=folder) for at in range(workers)]
    local = fp.LocalTraining(batch_size=rows, optimizer=SGD(lr=lr))
    how = fp.SecureAggregation() if secure else None
    try:
        with fp.Federation(held) as federation:
            result = federation.fit(
                model, dataset="pictures", loss=F.cross_entropy, rounds=1, local=local, secure_aggregation=how
            )
        result.save(folder)
    finally:
        for each in held:
            each.close()
    return Recording.load(folder)


def by_attack(findings):
    return {(each.attack, each.released): each for each in findings}


def test_one_row_is_read_off_an_update_and_not_off_masked_words(tmp_path):
    plain = by_attack(attacked(run(tmp_path / "plain", small(), workers=1, rows=1)))
    secure = by_attack(attacked(run(tmp_path / "secure", small(), workers=3, rows=1, secure=True)))
    for attack in ("linear layer", "matching"):
        assert plain[attack, "update"].measured == plain[attack, "update"].control == 1.0, attack
        assert secure[attack, "masked"].is_known_to_work, attack
        assert secure[attack, "masked"].measured == 0.0, attack


def test_a_planted_layer_reads_rows_off_updates_and_off_a_secure_sum_of_eight(tmp_path):
    plain = attacked(run(tmp_path / "plain", planted(), workers=1, rows=8, lr=3000.0))
    secure = attacked(run(tmp_path / "secure", planted(), workers=8, rows=8, secure=True, lr=3000.0))
    for findings, released in ((plain, "update"), (secure, "sum")):
        assert by_attack(findings)["planted layer", released].measured >= 0.8
    masked = [each for each in secure if each.released == "masked" and each.attack != "uneven bytes"]
    assert len(masked) == 2 * 8
    assert all(each.measured == 0.0 and each.is_known_to_work for each in masked if each.attack == "planted layer")


def privately(recording, folder, noise):
    """Record what the same orders release where each worker trains by DP-SGD, and return what was recorded."""
    for worker in recording.workers:
        (order,) = worker.orders()
        rows = worker.rows(order)
        model = dict(order.model)
        layers = nn.Sequential(nn.Linear(WIDE, len(model["0.bias"])), nn.ReLU(), nn.Linear(len(model["0.bias"]), 3))
        plan = trace_loss(layers, F.cross_entropy, TensorExample("float32", (WIDE,)), TensorExample("int64"))
        step = PrivateStep(ExampleGradients(validate(plan)), noise)
        trained = train_privately(step, noise, rows, model, SGD(lr=1.0), SeededEntropy(b"x"), lambda: False)
        held = fp.Dataset("pictures", rows.features, rows.target, classes=3, simulated=True)
        recorder = Recorder(folder, worker.worker, [held])
        for way, message in worker.messages:
            private = replace(message, delta=trained.delta) if isinstance(message, Update) else message
            recorder.keep(way, codec.encode(private))
    return Recording.load(folder)


def test_a_planted_layer_reads_nothing_off_what_dp_sgd_releases_at_its_default(tmp_path):
    plain = run(tmp_path / "plain", planted(), workers=1, rows=8, lr=3000.0)
    noise = ExampleDP().noise(rows=1000, batch_size=8, rounds=10, steps=1)
    findings = by_attack(attacked(privately(plain, tmp_path / "private", replace(noise, rate=1.0))))
    for attack in ("linear layer", "planted layer"):
        assert findings[attack, "update"].is_known_to_work, attack
        assert findings[attack, "update"].measured == 0.0, attack


def hard(count, seed, rule):
    """Return rows whose labels are noise: what a model says right of them it has learned by heart."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * count, 20, generator=generator)
    target = torch.randint(0, 3, (2 * count,), generator=generator)
    return fp.Dataset("hard", features, target, classes=3, release=[rule], simulated=True, validation=0.5)


def learned(folder, local, rounds=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))
    worker = fp.VirtualWorker("w", [hard(100, 3, fp.PlainUpdate(recipients=("me",)))], record_payloads=folder)
    with fp.Federation([worker]) as federation:
        federation.fit(model, dataset="hard", loss=F.cross_entropy, rounds=rounds, local=local).save(folder)
    worker.close()
    return Recording.load(folder)


def test_who_was_learned_by_heart_is_told_and_that_is_more_than_a_claim_of_epsilon_one_allows(tmp_path):
    local = fp.LocalTraining(epochs=60, batch_size=20, optimizer=SGD(lr=0.5))
    findings = by_attack(attacked(learned(tmp_path / "run", local), Claim(1.0, 1e-5)))
    for attack in ("loss threshold", "shadow models"):
        found = findings[attack, "model"]
        assert found.is_known_to_work, attack
        assert found.measured > 0.8, attack
        assert found.verdict == "MORE THAN CLAIMED", attack


def test_who_is_in_a_run_of_dp_sgd_is_told_no_better_than_was_claimed(tmp_path):
    local = fp.LocalTraining(epochs=60, batch_size=20, optimizer=SGD(lr=0.5))
    plain = learned(tmp_path / "plain", local)
    (worker,) = plain.workers
    (order,) = worker.orders()
    noise = ExampleDP(epsilon=1.0).noise(rows=100, batch_size=20, rounds=1, steps=300)
    layers = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 3))
    plan = trace_loss(layers, F.cross_entropy, TensorExample("float32", (20,)), TensorExample("int64"))
    step = PrivateStep(ExampleGradients(validate(plan)), noise)
    model, rows = dict(order.model), worker.rows(order)
    trained = train_privately(step, noise, rows, model, SGD(lr=0.5), SeededEntropy(b"y"), lambda: False)
    ended = {name: model[name] + change for name, change in trained.delta}
    for found in by_attack(attacked(replace(plain, model=ended), Claim(1.0, 1e-5))).values():
        if found.released == "model":
            assert found.is_known_to_work, found.attack
            assert found.verdict == "stopped", found.attack


def test_rows_are_recorded_only_where_they_are_said_to_be_simulated(tmp_path):
    real = fp.Dataset("patients", pictures(4, 0), torch.zeros(4))
    with pytest.raises(UsageError, match="'patients' is not marked as simulated"):
        fp.VirtualWorker("w", [data(4, 0, fp.SecureSum()), real], record_payloads=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_not_recorded_says_how_to_record_one(tmp_path):
    with pytest.raises(UsageError, match="record_payloads"):
        Recording.load(tmp_path)
