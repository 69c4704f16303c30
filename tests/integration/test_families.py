"""Every family of layers, trained at a worker for twenty steps, against torch on the same rows."""

from __future__ import annotations

import copy

import pytest
import torch
from fleets import RESEARCHER
from plan_families import FAMILIES, ROWS, Family

import fedpriv as fp

STEPS = 20
TOLERANCE = 1e-5
WITH_ONE_TARGET_PER_ROW = [family for family in FAMILIES if family.target.dim() == 1]  # as a worker's data set has it


@pytest.mark.parametrize("family", WITH_ONE_TARGET_PER_ROW, ids=lambda family: family.name)
def test_twenty_steps_at_a_worker_are_twenty_steps_of_torch(family: Family) -> None:
    torch.manual_seed(0)
    model = family.build()
    eager = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(eager.parameters(), 0.05, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        family.loss(eager(family.features), family.target).backward()
        optimizer.step()
    rule = fp.PlainUpdate(recipients=(RESEARCHER,), weight="uniform")
    worker = fp.VirtualWorker("alice", [fp.Dataset("rows", family.features, family.target, release=[rule])])
    local = fp.LocalTraining(epochs=STEPS, batch_size=ROWS, optimizer=fp.SGD(0.05, momentum=0.9), shuffle=False)
    with fp.Federation([worker]) as federation:
        result = federation.fit(model, dataset="rows", loss=family.loss, rounds=1, local=local)
    worker.close()
    for name, value in eager.state_dict().items():
        found = result.model.state_dict()[name]
        assert float((found.double() - value.double()).abs().max()) < TOLERANCE, name
