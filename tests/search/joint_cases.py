"""Checks that need PyTorch; child processes run them, as PyTorch brings a second OpenMP."""

import numpy as np
import onnxruntime
import torch
from joint_spaces import IMAGES

from layoutsel.exits.spec import ExitSpec
from layoutsel.search.early_exits import with_exits, write_with_exits
from layoutsel.search.joint.shared_network import SharedNetwork
from layoutsel.search.parts import parts_of
from layoutsel.search.space import Space
from layoutsel.search.trained import write_trained


def run(call):
    """Result of a function of this file, by its name and argument."""
    name, argument = call
    return globals()[name](argument)


def shuffled_norms(model: torch.nn.Module) -> None:
    """Give the normalisations statistics and factors that show if one is left out."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 2.0)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)


def inputs_of(space: Space, count: int = 1) -> torch.Tensor:
    return torch.randn(count, *space.input_shape, generator=torch.Generator().manual_seed(1))


def exported_error(case):
    """Relative error of the exported network's results against those of the common weights."""
    space, seed = case
    torch.manual_seed(seed)
    graph = parts_of(space, space.draw(np.random.default_rng(seed)))
    model = SharedNetwork.of_space(space)
    shuffled_norms(model)
    model.eval()
    x = inputs_of(space)
    with torch.no_grad():
        wanted = model(x, graph)[-1].numpy()
    written = write_trained(graph, model.weights(graph))
    session = onnxruntime.InferenceSession(written.SerializeToString())
    (got,) = session.run(None, {"x": x.numpy()})
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def inherited_error(case):
    """Largest difference of a network with inherited weights to one with common weights."""
    space, seed = case
    torch.manual_seed(seed)
    graph = parts_of(space, space.draw(np.random.default_rng(seed)))
    shared, own = SharedNetwork.of_space(space), SharedNetwork.of_network(graph)
    shuffled_norms(shared)
    own.inherit(shared)
    x = inputs_of(space, 3)
    with torch.no_grad():
        return float((shared.eval()(x, graph)[-1] - own.eval()(x, graph)[-1]).abs().max())


def statistics_are_those_of_the_network(case):
    """Error of calibrated results against those with the statistics of the inputs themselves."""
    space, seed = case
    torch.manual_seed(seed)
    graph = parts_of(space, space.draw(np.random.default_rng(seed)))
    model = SharedNetwork.of_space(space)
    shuffled_norms(model)
    x = inputs_of(space, 400)
    with torch.no_grad():
        wanted = model.train()(x, graph)[-1]
        model.calibrate(graph, x)
        got = model(x, graph)[-1]
    return float((got - wanted).norm() / wanted.norm()), model.training


def exits_error(seed):
    """Relative errors of all exits of a written network, and the names of the exits."""
    torch.manual_seed(seed)
    whole = parts_of(IMAGES, IMAGES.draw(np.random.default_rng(seed)))
    graph = with_exits(whole, [whole.parts[-2].name, "stem"])
    model = SharedNetwork.of_network(graph)
    shuffled_norms(model)
    model.eval()
    x = inputs_of(IMAGES)
    with torch.no_grad():
        wanted = [logits.numpy() for logits in model(x, graph)]
    written = write_with_exits(graph, model.weights(graph))
    session = onnxruntime.InferenceSession(written.SerializeToString())
    got = session.run(None, {"x": x.numpy()})
    names = [one.name for one in ExitSpec.embedded(written, "network").exits]
    pairs = zip(got, wanted, strict=True)
    return names, [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
