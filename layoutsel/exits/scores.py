"""Scores of an exit's answer: a number within [0, 1] that the network computes; larger is surer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

RESULTS = 3
"""Results of a scored model for each exit: values of the classes, score, and predicted class."""
OPSET = 13
"""Oldest operator set of networks with scores."""
_REDUCED_BY_INPUT = 18
"""First operator set in which ReduceMax takes its axes as an input."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One kind of score."""

    summary: str
    """Definition in a few words."""
    append: Callable[[Head, str, str], str]
    """Function that appends its nodes to a head, given probabilities and predicted class."""
    of: Callable[[np.ndarray], np.ndarray]
    """The same function of probabilities (N, classes) in numpy; NaN stays NaN."""


class Head:
    """Growing end of one exit in an ONNX model.

    Parameters
    ----------
    model
        Model that nodes are appended to, in place.
    name
        Prefix of the names of new nodes, unused in `model`.
    classes
        Number of classes.
    """

    def __init__(self, model: ModelProto, name: str, classes: int) -> None:
        self._model = model
        self._name = name
        self._made: Counter[str] = Counter()
        self.classes = classes

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Append a node, and return the name of its result."""
        output = output or self._new_name(operator)
        made = helper.make_node(operator, inputs, [output], name=output, **attributes)
        self._model.graph.node.append(made)
        return output

    def constant(self, value: object, dtype: str = "float32") -> str:
        """Append a constant, and return its name."""
        name = self._new_name("constant")
        array = np.array(value, dtype)
        self._model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def reduced(self, operator: str, value: str) -> str:
        """Append a reduction of (1, classes) to (1,)."""
        if operator == "ReduceSum" or opset(self._model) >= _REDUCED_BY_INPUT:
            return self.node(operator, value, self.constant([1], "int64"), keepdims=0)
        return self.node(operator, value, axes=[1], keepdims=0)

    def _new_name(self, kind: str) -> str:
        self._made[kind] += 1
        return f"{self._name}/{kind.lower()}{self._made[kind]}"


def append_score(
    model: ModelProto,
    name: str,
    output: str,
    *,
    score: str,
    classes: int,
    dtype: int,
    is_probability: bool,
) -> tuple[str, str]:
    """Append score and predicted class of one exit to `model`, in place.

    Parameters
    ----------
    model
        Model of operator set :data:`OPSET` or later.
    name
        Prefix of the names of new nodes, unused in `model`.
    output
        Tensor with the values of the classes, (1, classes).
    score
        Key of :data:`SCORES`.
    classes
        Number of classes.
    dtype
        Element type of `output`, a ``TensorProto.DataType``.
    is_probability
        True if `output` holds probabilities; False if it holds logits.

    Returns
    -------
    tuple of str
        Names of the score, (1,) of float32, and of the predicted class, (1,) of int64.
    """
    head = Head(model, name, classes)
    label = head.node("ArgMax", output, output=f"{name}/class", axis=1, keepdims=0)
    values = output
    if dtype != TensorProto.FLOAT:
        values = head.node("Cast", values, to=TensorProto.FLOAT)
    if not is_probability:
        values = head.node("Softmax", values, axis=1)
    found = SCORES[score].append(head, values, label)
    return head.node("Identity", found, output=f"{name}/score"), label


def is_probability(model: ModelProto, output: str) -> bool:
    """Tell whether the last node before an output is a softmax, apart from nodes that only rename.

    A LogSoftmax counts as logits: a softmax of its result is that of its input.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    node = producers.get(output)
    while node is not None and node.op_type in _RENAMING:
        node = producers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


_RENAMING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Operators that keep the values of a tensor."""


def opset(model: ModelProto) -> int:
    """Return the version of ONNX's own operator set in a checked model; 0 if it uses none."""
    own = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return max(own, default=0)


def _append_max_prob(head: Head, probabilities: str, _label: str) -> str:
    return head.reduced("ReduceMax", probabilities)


def _append_margin(head: Head, probabilities: str, label: str) -> str:
    # TopK would sort all classes; a second maximum without the predicted class does not.
    column = head.node("Reshape", label, head.constant([1, 1], "int64"))
    numbers = head.constant([range(head.classes)], "int64")
    is_first = head.node("Equal", column, numbers)
    others = head.node("Where", is_first, head.constant(0.0), probabilities)
    first, second = (head.reduced("ReduceMax", each) for each in (probabilities, others))
    return head.node("Sub", first, second)


def _append_entropy(head: Head, probabilities: str, _label: str) -> str:
    positive = head.node("Max", probabilities, head.constant(_TINY))
    terms = head.node("Mul", probabilities, head.node("Log", positive))
    total = head.reduced("ReduceSum", terms)
    share = head.node("Mul", total, head.constant(1 / math.log(head.classes)))
    return head.node("Add", share, head.constant(1.0))


_TINY = float(np.finfo(np.float32).tiny)
"""Least probability whose logarithm is taken."""


def _max_prob(probabilities: np.ndarray) -> np.ndarray:
    return probabilities.max(axis=1)


def _margin(probabilities: np.ndarray) -> np.ndarray:
    two = np.sort(probabilities, axis=1)[:, -2:]
    return two[:, 1] - two[:, 0]


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    terms = probabilities * np.log(np.maximum(probabilities, _TINY))
    return np.clip(1 + terms.sum(axis=1) / math.log(probabilities.shape[1]), 0, 1)


SCORES: Mapping[str, Score] = {
    "max_prob": Score(summary="the largest probability", append=_append_max_prob, of=_max_prob),
    "margin": Score(
        summary="the largest probability minus the second", append=_append_margin, of=_margin
    ),
    "entropy": Score(
        summary="1 minus the entropy relative to its maximum", append=_append_entropy, of=_entropy
    ),
}
"""Kinds of scores by name."""
