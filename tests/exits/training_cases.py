"""Checks that need PyTorch; child processes run them, as PyTorch brings a second OpenMP."""

from itertools import pairwise

import numpy as np
import onnxruntime
import torch
from torch import nn

from layoutsel.exits.training.attach import attach
from layoutsel.exits.training.export import export
from layoutsel.exits.training.recipe import logits_of, mixed_training, shifted
from layoutsel.exits.training.settings import Recipe
from tvm_passes.errors import LayoutselError


def run(call):
    """Result of a function of this file, by its name and argument."""
    name, argument = call
    return globals()[name](argument)


def network(axes=2, classes=3):
    """A user's network with batch normalisation, and an input."""
    torch.manual_seed(0)
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    normalised = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[axes - 1]
    module = nn.Sequential()
    module.add_module("first", convolution(2, 4, 3, padding=1))
    module.add_module("normalised", normalised(4))
    module.add_module("second", convolution(4, 5, 3, padding=1))
    module.add_module("flat", nn.Flatten())
    module.add_module("final", nn.Linear(5 * 9**axes, classes))
    return module.eval(), torch.randn(2, 2, *[9] * axes)


def exits_compute_what_their_heads_say(axes):
    """Logits of `attach` against the module run step by step; nothing stays on the module."""
    module, x = network(axes)
    model = attach(module, ["first", "second"], x).eval()
    first = module.first(x)
    second = module.second(module.normalised(first))
    wanted = [model.heads[0](first), model.heads[1](second), module(x)]
    assert not module.first._forward_hooks
    return [float((a - b).detach().abs().max()) for a, b in zip(model(x), wanted, strict=True)]


def rejected(case):
    """Message of the error about a place for an exit."""
    module, x = network()

    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            return self.part(self.part(x)).flatten(1)

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.LSTM(4, 4)

        def forward(self, x):
            return self.part(x)[0].flatten(1)

    module, after, x = {
        "missing": (module, ["third"], x),
        "twice": (module, ["first", "first"], x),
        "flat": (module, ["flat"], x),
        "runs twice": (Repeated(), ["part"], x),
        "no tensor": (Recurrent(), ["part"], torch.randn(2, 3, 4)),
        "no logits": (module.first, [], x),
    }[case]
    try:
        attach(module, after, x)
    except LayoutselError as error:
        return str(error)
    return None


def phases_train_their_parts(_nothing):
    """Change of backbone and heads after each phase, its loss, and that of an equal training."""
    found = []
    for _ in range(2):
        module, x = network()
        model = attach(module, ["first"], x)
        inputs, labels = torch.randn(64, *x.shape[1:]), torch.arange(64) % 3
        recipe = Recipe(backbone_epochs=1, joint_epochs=1, batch=16)
        states = [[one.clone() for one in (module.first.weight, model.heads[0][-1].weight)]]
        losses = []
        for report in mixed_training(model, inputs, labels, recipe):
            states.append([one.clone() for one in (module.first.weight, model.heads[0][-1].weight)])
            losses.append((report.phase, report.loss))
        changes = [
            [bool((a != b).any()) for a, b in zip(before, after, strict=True)]
            for before, after in pairwise(states)
        ]
        found.append((changes, losses))
    return found


def exported_and_own_logits(hidden):
    """Largest difference between PyTorch and ONNX Runtime, and names and shapes of the outputs."""
    module, x = network()
    module.train()
    module(x)  # statistics of the normalisation that export must keep
    model = attach(module, ["first", "second"], x, hidden=hidden)
    session = onnxruntime.InferenceSession(export(model, x[:1]))
    theirs = session.run(None, {"x": x[1:].numpy()})
    ours = logits_of(model, x[1:])
    worst = max(np.abs(a - b.numpy()).max() for a, b in zip(theirs, ours, strict=True))
    return float(worst), [(one.name, one.shape) for one in session.get_outputs()]


def all_shifts(most):
    """Number of different shifts of one point by up to `most`, and true if each keeps the shape."""
    x = torch.zeros(500, 1, 9, 9)
    x[:, 0, 4, 4] = 1
    moved = shifted(x, most)
    return len({tuple(one.nonzero()[0].tolist()) for one in moved}), moved.shape == x.shape
