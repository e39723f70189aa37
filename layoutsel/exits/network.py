"""Multi-exit networks: ONNX models with one output for each exit."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto, TensorProto, helper

from layoutsel.errors import ControlFlow, InvalidModel, LayoutselError, UnsupportedModel
from layoutsel.exits import scores
from layoutsel.exits.lineage import Lineage, lineages
from layoutsel.exits.policy import Policy
from layoutsel.exits.spec import FORMAT, Exit, ExitSpec
from layoutsel.model import TensorSpec, import_model
from tvm_passes.limits import ImportLimits

_FLOATS = ("float16", "float32", "float64")
"""Element types of the values of classes."""
_EXAMPLE = "expected (1, classes) of floating-point numbers"
_EXPORT = "Export the network with one output (1, classes) for each exit"


@dataclass(frozen=True, kw_only=True, eq=False)
class ExitNetwork:
    """A multi-exit network with E exits."""

    name: str
    """Name of the model."""
    source: ModelProto
    """The ONNX model with fixed shapes, not to be changed."""
    spec: ExitSpec
    """Exits with the hash of the model and the kind of every output."""
    is_guessed: bool
    """True if the exits were found without a specification."""
    classes: int
    """Number of classes."""
    flops: tuple[int, ...]
    """Arithmetic operations that the answer of each exit takes without the others."""
    unused: tuple[str, ...]
    """Outputs of the model that belong to no exit, and are not computed."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the exits."""
        return tuple(exit_.name for exit_ in self.spec.exits)

    @property
    def score(self) -> str:
        """Kind of score: that of the policy, if there is one."""
        return self.spec.policy.score if self.spec.policy else next(iter(scores.SCORES))

    def with_policy(self, policy: Policy) -> ExitNetwork:
        """Copy whose exits answer by `policy`, and whose scores are of its kind.

        Raises
        ------
        PolicyError
            If the policy has another number of exits, or was calibrated for another network.
        """
        policy.check_network(self.names, policy.score, self.spec.model_hash)
        return replace(self, spec=replace(self.spec, policy=policy))

    def scored(self, score: str | None = None) -> ModelProto:
        """Make the model that is planned and run: with score and predicted class of every exit.

        Parameters
        ----------
        score
            Key of :data:`~layoutsel.exits.scores.SCORES`; by default :attr:`score`.

        Returns
        -------
        onnx.ModelProto
            A copy of :attr:`source`. Its outputs are, for each exit in turn: the values of the
            classes (1, classes); the score (1,), float32; the predicted class (1,), int64.

        Raises
        ------
        LayoutselError
            If `score` is unknown.
        """
        kind = self.score if score is None else score
        if kind not in scores.SCORES:
            raise LayoutselError(f"score {kind!r}: expected one of {', '.join(scores.SCORES)}")
        model = ModelProto()
        model.CopyFrom(self.source)
        values = {value.name: value for value in self.source.graph.output}
        prefix = _unused_prefix(model)
        del model.graph.output[:]
        for exit_ in self.spec.exits:
            value = values[exit_.output]
            found, label = scores.append_score(
                model,
                f"{prefix}/{exit_.name}",
                exit_.output,
                score=kind,
                classes=self.classes,
                dtype=value.type.tensor_type.elem_type,
                is_probability=bool(exit_.is_probability),
            )
            model.graph.output.add().CopyFrom(value)
            model.graph.output.extend(
                (
                    helper.make_tensor_value_info(found, TensorProto.FLOAT, [1]),
                    helper.make_tensor_value_info(label, TensorProto.INT64, [1]),
                )
            )
        return model


def read(
    model: str | os.PathLike[str] | ModelProto,
    spec: str | Path | ExitSpec | None = None,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    allow_external_links: bool = False,
    limits: ImportLimits | None = None,
) -> ExitNetwork:
    """Read a multi-exit network.

    Without a specification, and without one in the model's metadata, all outputs (1, classes) of
    floating-point numbers are exits. They are ordered by the work that they take; the last one is
    final.

    Parameters
    ----------
    model
        ONNX model with one output for each exit, or the path of one; it is not changed.
    spec
        Specification of the exits, or the path of one.
    shapes
        Shape of each input that has dynamic dimensions.
    allow_external_links
        True to follow links among a file's external data out of its folder.
    limits
        Limits of the import.

    Raises
    ------
    LayoutselError
        If the model cannot be imported, the specification is inconsistent or of another model, or
        the outputs are not those of exits.
    """
    try:
        imported = import_model(
            model, shapes=shapes, allow_external_links=allow_external_links, limits=limits
        )
    except ControlFlow as error:
        raise ControlFlow(f"{error}. {_EXPORT}; layoutsel decides which to wait for") from None
    source, where = imported.onnx, imported.name
    if source is None:
        raise UnsupportedModel("exits: got a Relax module; expected an ONNX model")
    _check_opset(source, where)
    _check_outputs([output.name for output in imported.outputs], where)
    outputs = {output.name: output for output in imported.outputs}
    found = dict(zip(outputs, lineages(imported.module), strict=True))
    given = _given(spec, source, where)
    chosen = given or _guess(imported.outputs, found, where)
    _check_hash(chosen, imported.content_hash, where)
    classes = _classes(chosen.exits, outputs, where)
    _check_lineages(chosen.exits, found, where)
    exits = tuple(_with_kind(exit_, source) for exit_ in chosen.exits)
    return ExitNetwork(
        name=where,
        source=source,
        spec=replace(chosen, exits=exits, model_hash=imported.content_hash),
        is_guessed=given is None,
        classes=classes,
        flops=tuple(found[exit_.output].flops for exit_ in exits),
        unused=tuple(name for name in outputs if name not in {e.output for e in exits}),
    )


def _given(spec: str | Path | ExitSpec | None, source: ModelProto, where: str) -> ExitSpec | None:
    """Return the caller's specification, or that of the model's metadata; None without one."""
    if spec is None:
        return ExitSpec.embedded(source, where)
    if not isinstance(spec, ExitSpec):
        return ExitSpec.load(spec)
    spec.check(file="specification")
    return spec


def _check_opset(source: ModelProto, where: str) -> None:
    if (version := scores.opset(source)) < scores.OPSET:
        raise UnsupportedModel(
            f"{where}: got operator set {version}; expected {scores.OPSET} or later, for the "
            "scores of exits. Export the model for a newer one"
        )


def _check_hash(spec: ExitSpec, content_hash: str, where: str) -> None:
    if spec.model_hash not in ("", content_hash):
        raise InvalidModel(
            f"{where}: the specification of exits is of another model: got the hash "
            f"{content_hash}; expected {spec.model_hash}. Write a new one with "
            "'layoutsel exits inspect MODEL -o FILE'"
        )


def _check_outputs(names: Sequence[str], where: str) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InvalidModel(f"{where}: output {twice!r} is listed twice; expected once. {_EXPORT}")
    if len(names) < 2:
        raise InvalidModel(
            f"{where}: got one output, {names[0]!r}; expected one for each of two or more exits. "
            f"{_EXPORT}"
        )


def _guess(outputs: Sequence[TensorSpec], found: Mapping[str, Lineage], where: str) -> ExitSpec:
    """Find the exits of a model without a specification."""
    names = [output.name for output in outputs if not _fault(output)]
    if len(names) < 2:
        listed = ", ".join(f"{output.name!r} {output.shape}" for output in outputs)
        raise InvalidModel(
            f"{where}: {len(names)} of its outputs can be exits: got {listed}; "
            f"{_EXAMPLE} for two or more of them. {_EXPORT}"
        )
    names.sort(key=lambda name: found[name].flops)
    titles = [*(f"exit{number}" for number in range(1, len(names))), "final"]
    exits = tuple(Exit(name=t, output=name) for t, name in zip(titles, names, strict=True))
    return ExitSpec(format=FORMAT, model_hash="", exits=exits)


def _fault(output: TensorSpec) -> str:
    """Describe the reason that an output cannot be an exit; empty if it can."""
    if output.dtype not in _FLOATS:
        return f"{output.dtype} of {output.shape}"
    if len(output.shape) != 2 or output.shape[1] < 2:
        return f"shape {output.shape}"
    if output.shape[0] != 1:
        return f"batch {output.shape[0]} of shape {output.shape}"
    return ""


def _classes(exits: Sequence[Exit], outputs: Mapping[str, TensorSpec], where: str) -> int:
    """Return the number of classes, which all exits share."""
    for exit_ in exits:
        what = f"{where}: exit {exit_.name!r}"
        if exit_.output not in outputs:
            raise InvalidModel(
                f"{what}: the model has no output {exit_.output!r}; "
                f"expected one of {', '.join(outputs)}"
            )
        if fault := _fault(outputs[exit_.output]):
            raise InvalidModel(
                f"{what}: got {fault} for output {exit_.output!r}; {_EXAMPLE}. {_EXPORT}"
            )
    counts = {exit_.output: outputs[exit_.output].shape[1] for exit_ in exits}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in counts.items())
        raise InvalidModel(
            f"{where}: exits have different numbers of classes: {listed}; expected one number. "
            "List the outputs that are exits in a specification (--spec)"
        )
    return next(iter(counts.values()))


def _check_lineages(exits: Sequence[Exit], found: Mapping[str, Lineage], where: str) -> None:
    """Reject exits that depend on no input, or share nothing with the final exit."""
    final = exits[-1]
    for exit_ in reversed(exits):
        what = f"{where}: exit {exit_.name!r} (output {exit_.output!r})"
        if not found[exit_.output].inputs:
            raise InvalidModel(
                f"{what} depends on no input of the model; expected an answer that does"
            )
        if not found[exit_.output].shares(found[final.output]):
            raise InvalidModel(
                f"{what} shares no layer and no input with the final exit {final.name!r} "
                f"(output {final.output!r}); expected exits of one network. "
                "Leave it out of the specification (--spec)"
            )


def _with_kind(exit_: Exit, source: ModelProto) -> Exit:
    if exit_.is_probability is not None:
        return exit_
    return replace(exit_, is_probability=scores.is_probability(source, exit_.output))


def _unused_prefix(model: ModelProto) -> str:
    """Return a prefix that no tensor of `model` has."""
    graph = model.graph
    names = {name for node in graph.node for name in (*node.output, node.name)}
    names |= {value.name for value in (*graph.input, *graph.initializer)}
    prefixes = itertools.chain(["exits"], (f"exits{number}" for number in itertools.count(1)))
    return next(p for p in prefixes if not any(name.startswith(f"{p}/") for name in names))
