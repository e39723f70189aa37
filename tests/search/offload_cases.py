"""Checks that need PyTorch; child processes run them, as PyTorch brings a second OpenMP."""

from dataclasses import replace

import numpy as np
import torch

from layoutsel.exits.training.data import DataParts, LabelledSamples, load
from layoutsel.search.offload.bilevel import BilevelTraining
from layoutsel.search.offload.distilling import Teacher
from layoutsel.search.offload.expected_time import expected
from layoutsel.search.offload.selectors import (
    Choices,
    Selectors,
    binary_concrete,
    gumbel_softmax,
    hard_concrete,
    open_probability,
)
from layoutsel.search.offload.session import logits_of, train_module
from layoutsel.search.offload.settings import OffloadLimits, OffloadRecipe, SupernetTask
from layoutsel.search.offload.sliced_module import SlicedModule
from layoutsel.search.offload.slicing import slice_network
from layoutsel.search.offload.spaces import handmade_choice
from layoutsel.search.offload.supernet import Supernet
from layoutsel.search.offload.supernet_shape import SupernetShape
from layoutsel.search.parts import parts_of
from tests.search.offload_problems import drawn_choice, one_hot, priced, small_space


def run(call):
    """Result of a function of this file, by its name and argument."""
    name, argument = call
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return globals()[name](argument)


def as_tensors(state):
    """Selectors' values of a state."""
    return Choices(
        tuple(map(torch.from_numpy, state.operations)),
        tuple(map(torch.from_numpy, state.resources)),
        {name: torch.from_numpy(one) for name, one in state.channels.items()},
        torch.from_numpy(state.precision),
        torch.from_numpy(state.position),
        torch.from_numpy(state.link),
    )


def relaxations_have_their_gradients(_argument):
    """Largest difference of gradients from finite differences, by relaxation."""
    logits = torch.randn(4, 5, dtype=torch.float64)
    uniform = torch.rand(4, 5, dtype=torch.float64).clamp(0.05, 0.95)
    relaxations = {
        "operations": lambda x: gumbel_softmax(x, uniform, 0.7),
        "resources": lambda x: binary_concrete(x, uniform, 0.7),
        "channels": lambda x: hard_concrete(x, uniform),
        "open": open_probability,
    }
    return {name: worst_difference(one, logits) for name, one in relaxations.items()}


def worst_difference(function, at, step=1e-6):
    """Difference of the gradient of a random projection of a function from central differences."""
    direction = torch.randn(function(at).shape, dtype=torch.float64)
    x = at.clone().requires_grad_()
    (function(x) * direction).sum().backward()
    numeric = torch.zeros_like(at)
    for index in np.ndindex(*at.shape):
        for sign in (1, -1):
            moved = at.clone()
            moved[index] += sign * step
            numeric[index] += sign * (function(moved) * direction).sum() / (2 * step)
    return float((x.grad - numeric).abs().max())


def sampled_shares(probability):
    """Shares of open gates among many samples, and the probability that is stated."""
    wanted = torch.tensor(probability, dtype=torch.float64)
    logits = torch.logit(wanted).expand(200_000)
    gates = hard_concrete(logits, torch.rand(200_000, dtype=torch.float64))
    return float((gates > 0).double().mean()), float(open_probability(logits[0]))


def expected_of(cases):
    """Expected times and bytes of one-hot selectors of drawn choices."""
    found = []
    for space, prices_seed, choice_seed, links in cases:
        shape = SupernetShape.of(space)
        times = priced(space, prices_seed, several_links=len(links) > 1).times(shape)
        names = tuple(one.name for one in times.links)
        state = one_hot(shape, drawn_choice(space, choice_seed, links), names)
        cost = expected(shape, times, as_tensors(state))
        found.append((float(cost.us), float(cost.bytes)))
    return found


def selector_loss_gradients(precisions):
    """For each kind of selector: norm of its gradient, and the difference from finite ones.

    The loss is that of a whole selector step: cross entropy of samples, expected time and limits.
    Rounding has no finite differences; with several precisions, the cross entropy is left out.
    """
    torch.set_default_dtype(torch.float64)
    try:
        task = replace(tiny_task(small_space((2, 1))), precisions=precisions)
        training = BilevelTraining(task, tiny_data())
        training.multipliers = torch.tensor([0.4, 0.3])

        def loss():
            training.random.manual_seed(3)
            cost = training._expected()
            total = 0.5 * torch.log(cost.us)
            total = total + training._penalty(training._excess(cost))
            if len(precisions) > 1:
                return total
            choices = training.selectors.sample(1.0, training.random)
            inputs, labels = training.validation
            return total + training._loss((inputs[:16], labels[:16]), choices)

        training.supernet.train()
        training.selectors.zero_grad()
        loss().backward()
        return {
            kind: _checked(loss, parameters)
            for kind, parameters in training.selectors.groups().items()
        }
    finally:
        torch.set_default_dtype(torch.float32)


def _checked(loss, parameters, step=1e-5, most=12):
    """Norm of the gradients of parameters, and the largest difference of some entries."""
    norm = float(sum(one.grad.square().sum() for one in parameters) ** 0.5)
    worst = 0.0
    for parameter in parameters:
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in torch.randperm(len(flat))[:most].tolist():
            value, numeric = flat[index].item(), 0.0
            for sign in (1, -1):
                flat[index] = value + sign * step
                with torch.no_grad():
                    numeric += sign * loss().item() / (2 * step)
            flat[index] = value
            worst = max(worst, abs(numeric - gradient[index].item()))
    return norm, worst


def a_step_moves_all_selectors(frozen):
    """Greatest change of each kind of selector by one step, and of the supernet's weights."""
    task = replace(tiny_task(small_space((2, 1))), frozen=frozen)
    training = BilevelTraining(task, tiny_data())
    before = {
        kind: [one.detach().clone() for one in group]
        for kind, group in training.selectors.groups().items()
    }
    weights = [one.detach().clone() for one in training.supernet.parameters()]
    training.supernet.train()
    training.selector_step(torch.arange(32), 1.0, 0.5)
    moved = {
        kind: max(float((a - b).abs().max()) for a, b in zip(group, before[kind], strict=True))
        for kind, group in training.selectors.groups().items()
    }
    after = training.supernet.parameters()
    return moved, max(float((a - b).abs().max()) for a, b in zip(after, weights, strict=True))


def bounds_of_selectors(_argument):
    """Least and greatest probability of an open gate, and of the first device."""
    selectors = Selectors(SupernetShape.of(small_space((1,))))
    found = []
    for value in (-100.0, 100.0):
        with torch.no_grad():
            for one in selectors.parameters():
                one.fill_(value)
        selectors.limit()
        chosen = selectors.probabilities()
        found.append((float(chosen.channels["stem"][0].detach()), float(chosen.resources[0][0, 0])))
    (shut, least), (open_, most) = found
    return shut, open_, (least, most)


def ascent_to_a_limit(kind):
    """Expected values over their limit, and both multipliers, after each selector step."""
    space = small_space((2, 1))
    task = replace(tiny_task(space), times=priced(space).times(SupernetShape.of(space)))
    training = BilevelTraining(replace(task, limits=OffloadLimits()), tiny_data())
    fixed = task.times.fixed_us() if kind == "us" else 0.0
    with torch.no_grad():
        most = fixed + (float(getattr(training._expected(), kind)) - fixed) / 2
    task = replace(task, limits=OffloadLimits(**{kind: most}))
    training = BilevelTraining(task, tiny_data())
    training.supernet.train()
    seen = []
    for _ in range(80):
        with torch.no_grad():
            now = float(getattr(training._expected(), kind))
        training.selector_step(torch.arange(32), 1.0, 0.0)
        seen.append((now / most, training.multipliers.tolist()))
    return seen


def tiny_task(space, **changes):
    """A task with random prices, limits and precisions."""
    recipe = OffloadRecipe(
        warm_epochs=1, search_epochs=2, sweep_epochs=1, time_weights=(0.1, 1.0), batch=32
    )
    return SupernetTask(
        space=space,
        times=priced(space, several_links=True).times(SupernetShape.of(space)),
        recipe=recipe,
        checkpoint="/nonexistent/supernet.pt",
        fingerprint="test",
        limits=OffloadLimits(us=400.0, bytes=300.0),
        precisions=("float32", "bfloat16", "uint8"),
        **changes,
    )


def tiny_data(samples=64, shape=(1, 1, 40)):
    """Random inputs and classes."""
    rng = np.random.default_rng(0)
    type_ = np.float64 if torch.get_default_dtype() == torch.float64 else np.float32

    def drawn():
        inputs = rng.normal(size=(samples, *shape)).astype(type_)
        return LabelledSamples(inputs=inputs, labels=rng.integers(0, 10, samples))

    return DataParts(train=drawn(), tune=drawn(), certify=drawn(), test=drawn())


def resumed_training(file):
    """Reports and states of a training without a break, and of one with a break after a pass."""
    # Images are moved at random.
    space = replace(small_space((2, 1)), input_shape=(1, 6, 8))
    task, data = replace(tiny_task(space), checkpoint=file), tiny_data(shape=(1, 6, 8))

    def seen(messages):
        return [
            (type(one).__name__, one.phase, getattr(one, "loss", None), getattr(one, "gates", None))
            for one in messages
        ]

    whole = seen(BilevelTraining(replace(task, checkpoint=file + ".whole"), data).run())
    broken = BilevelTraining(task, data).run()
    for _ in range(2):
        next(broken)
    return whole, seen(BilevelTraining(task, data).run())


def sliced_and_masked(cases):
    """Relative L2 differences of sliced networks from supernets whose selectors are decided."""
    found = []
    for space, seed in cases:
        shape = SupernetShape.of(space)
        supernet = Supernet(shape)
        with_statistics(supernet)
        choice = replace(drawn_choice(space, seed), precision="float32")
        module = SlicedModule(slice_network(parts_of(space, choice.architecture), choice))
        module.inherit(supernet)
        x = torch.randn(5, *space.input_shape)
        state = one_hot(shape, choice)
        decided = replace(
            state,
            operations=tuple(one.astype(np.float32) for one in state.operations),
            resources=tuple(one.astype(np.float32) for one in state.resources),
            channels={name: one.astype(np.float32) for name, one in state.channels.items()},
            precision=state.precision.astype(np.float32),
            position=state.position.astype(np.float32),
            link=state.link.astype(np.float32),
        )
        supernet.eval()
        with torch.no_grad():
            wanted = supernet(x, as_tensors(decided))
        got = logits_of(module, x)
        found.append(float((got - wanted).norm() / wanted.norm()))
    return found


def with_statistics(module):
    """Give batch normalisations weights and statistics that are not those of the beginning."""
    for one in module.modules():
        if isinstance(one, torch.nn.BatchNorm2d):
            one.running_mean.normal_(0.0, 0.3)
            one.running_var.uniform_(0.5, 2.0)
            one.weight.data.uniform_(0.5, 1.5)
            one.bias.data.normal_(0.0, 0.5)


def exported(case):
    """Sliced network of a drawn choice, its weights and steps, inputs, and its logits."""
    space, seed, precision = case
    choice = replace(drawn_choice(space, seed), precision=precision)
    module = SlicedModule(slice_network(parts_of(space, choice.architecture), choice))
    with_statistics(module)
    x = torch.randn(3, *space.input_shape)
    module.train()
    module(x)
    return module.network, module.folded(), module.steps(), x.numpy(), logits_of(module, x).numpy()


def agreement_with_a_teacher(_argument):
    """Share of signals that a network classifies as its teacher, without and with its answers.

    Labels are random numbers.
    """
    space = small_space((1, 1), ("conv3",), channels=8)
    recipe = OffloadRecipe(retrain_epochs=8, teacher_weight=1.0)
    choice = handmade_choice(space)
    data = load(space.data, 0)
    x, labels = torch.from_numpy(data.train.inputs), torch.from_numpy(data.train.labels)

    def made():
        return SlicedModule(slice_network(parts_of(space, choice.architecture), choice))

    network = made()
    for _ in train_module(network, x, labels, recipe):
        pass
    teacher = Teacher(network=network, weight=1.0, temperature=4.0)
    wanted = logits_of(network, x).argmax(1)
    noise = labels[torch.randperm(len(labels))]
    shares = []
    for one in (None, teacher):
        pupil = made()
        for _ in train_module(pupil, x, noise, recipe, one):
            pass
        shares.append(float((logits_of(pupil, x).argmax(1) == wanted).double().mean()))
    return shares


def distillation_losses(_argument):
    """Losses of random logits, and the gradient at a high temperature."""
    logits, other = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    labels = torch.arange(6) % 5

    def loss(weight, logits, temperature=4.0):
        teacher = Teacher(network=torch.nn.Identity(), weight=weight, temperature=temperature)
        return teacher.loss(logits, labels, teacher.answers(other))

    hot = logits.clone().requires_grad_()
    loss(1.0, hot, temperature=1000.0).backward()
    difference = logits - logits.mean(1, keepdim=True) - other + other.mean(1, keepdim=True)
    return {
        "labels alone": float(loss(0.0, logits)),
        "cross entropy": float(torch.nn.functional.cross_entropy(logits, labels)),
        "equal logits": float(loss(1.0, other)),
        "answers alone": float(loss(1.0, logits)),
        "half": float(loss(0.5, logits)),
        "gradient": hot.grad.numpy(),
        "of squares": (difference / (6 * 5)).numpy(),
    }


def traded_off(case):
    """Selectors that trade utilities of operations and open gates off against time or bytes.

    For each weight: the expected cost, and the probabilities as of a training. All begin alike.
    """
    kind, weights, seed = case
    space = small_space((2, 1))
    shape = SupernetShape.of(space)
    times = priced(space, seed).times(shape)
    found = []
    for weight in weights:
        torch.manual_seed(seed)
        selectors = Selectors(shape)
        useful = [torch.rand(one.shape) for one in selectors.operations]
        optimizer = torch.optim.Adam(selectors.parameters(), lr=0.1)
        for _ in range(150):
            chosen = selectors.probabilities()
            cost = expected(shape, times, chosen)
            value = sum((p * u).sum() for p, u in zip(chosen.operations, useful, strict=True))
            value = value + sum(one.mean() for one in chosen.channels.values())
            optimizer.zero_grad()
            (weight * torch.log(getattr(cost, kind)) - value).backward()
            optimizer.step()
            selectors.limit()
        with torch.no_grad():
            chosen = selectors.probabilities()
            reached = float(getattr(expected(shape, times, chosen), kind))
        found.append(
            (
                reached,
                {
                    "operations": tuple(one.numpy() for one in chosen.operations),
                    "resources": tuple(one.numpy() for one in chosen.resources),
                    "channels": {name: one.numpy() for name, one in chosen.channels.items()},
                    "precision": chosen.precision.numpy(),
                    "position": chosen.position.numpy(),
                    "link": chosen.link.numpy(),
                },
            )
        )
    return found
