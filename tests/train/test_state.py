"""A training state that is not this network's is one line, and fills nothing."""

import json

import pytest
import torch

from ensemble.backbones.weights import read_tensors, write_state
from ensemble.errors import Damaged
from ensemble.train.state import TrainState, load_state, save_state

LINE = {"epoch": 1, "loss": 1.0, "seconds": 2.0, "micro_batch": 8}


def fresh():
    model = torch.nn.Linear(2, 3)
    return TrainState(model, torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize(
    ("change", "log", "fault"),
    [
        ({"model.bias": torch.zeros(4)}, [LINE], r"model\.bias is \(4,\), want \(3,\)"),
        ({"model.bias": None}, [LINE], r"model\.bias is missing"),
        ({"model.more": torch.zeros(1)}, [LINE], r"model\.more is none of its tensors"),
        ({"optimizer.0.exp_avg": torch.zeros(9)}, [LINE], r"optimizer\.0\.exp_avg is \(9,\), want \(3, 2\)"),
        ({"optimizer.7.step": torch.zeros(())}, [LINE], r"optimizer\.7\.step is of no parameter"),
        ({}, [{"epoch": 1}], "a line of its log lacks the epoch, the seconds or the micro_batch"),
        ({}, [{**LINE, "epoch": "1"}], r"key '0\.epoch' should be a valid integer"),
        ({}, {}, "should be a valid array"),
    ],
)
def test_a_state_that_does_not_fit(tmp_path, change, log, fault):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / "last.safetensors"
    save_state(path, TrainState(model, optimizer, log=[LINE]))
    other = fresh()
    load_state(path, other)
    assert (other.best, other.log) == ({}, [LINE]) and torch.equal(other.model.weight, model.weight)
    tensors = {name: value for name, value in (read_tensors(path)[0] | change).items() if value is not None}
    write_state(path, tensors, {"log": json.dumps(log)})
    other = fresh()
    before = other.model.weight.clone()
    with pytest.raises(Damaged, match=fault):
        load_state(path, other)
    assert torch.equal(other.model.weight, before) and other.log == []
