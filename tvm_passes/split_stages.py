"""Stage 2: `main` as several functions that are called separately, joined after lowering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.ir import Call, GlobalVar
from tvm.relax.global_info import VDevice

from tvm_passes.decision import SubgraphId
from tvm_passes.devices import HOST_DEVICE, DeviceId
from tvm_passes.errors import IllegalDecision
from tvm_passes.inlining import redirect
from tvm_passes.ir import ENTRY, Expr, Var, leaves, main_bindings
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.place_devices import device_of_value, devices_of
from tvm_passes.rewrite_layouts import subgraph_id
from tvm_passes.stages import Stages, check_reads, check_stages, entry_name

STAYS = "@"
"""Separator of the name of a tensor between stages, and the device in whose memory it stays."""


@dataclass(frozen=True)
class StagePart:
    """One stage: a module whose `main` computes only this stage."""

    name: str
    """Name of the stage."""
    module: tvm.IRModule
    """Module of the stage."""
    inputs: tuple[str, ...]
    """Parameters of `main`: ``input.1`` is input 1 of the model, ``s3.0`` output 0 of sub-graph s3.
    """
    outputs: tuple[str, ...]
    """Results of `main`, a tuple if there are several: ``output.0`` is output 0 of the model,
    ``s3.0`` is for later stages.
    """
    layouts: Mapping[str, str]
    """Layouts of results of sub-graphs, by the tensor's name; others are plain."""

    def layout(self, name: str) -> str:
        """Return the layout of an input or output; empty for a plain one."""
        return self.layouts.get(name.partition(STAYS)[0], "")


def split_stages(
    module: tvm.IRModule, stages: Stages, devices: Mapping[str, DeviceId] | None = None
) -> list[StagePart]:
    """Divide `main` of a module into stages.

    ``b = s1(a); c = s2(b)``, stages ``x: s1`` and ``y: s2`` → ``x(a) = s1(a)``,
    ``y(b) = s2(b)``.

    *Requires* stage 2. *Ensures* the same values. A tensor crosses between stages in its producer's
    layout; each stage that reads it transforms it itself.

    Parameters
    ----------
    module
        Module with `main`.
    stages
        Sub-graphs by stage.
    devices
        Device of each stage whose tensors for other stages there stay in its memory. They are
        called ``s3.0@opencl``, in addition to ``s3.0`` for the other stages.

    Raises
    ------
    IllegalDecision
        If a sub-graph is in no stage or in two, or a stage reads a tensor of a later one.
    """
    flow = _Dataflow(module)
    check_stages(stages, flow.homes.values())
    slices = [_Slice(flow, stages, name, devices or {}) for name in stages]
    parts = []
    for one in slices:
        outputs = one.outputs(slices)
        emitted = _Emitting(one, outputs).run()
        inputs = tuple(map(one.input_name, one.inputs))
        parts.append(StagePart(one.name, emitted, inputs, tuple(outputs), flow.layouts))
    return parts


def place_of(name: str) -> DeviceId:
    """Return the device of a tensor between stages, by its name."""
    _, stays, device = name.partition(STAYS)
    return DeviceId.named(device) if stays else HOST_DEVICE


class _Dataflow:
    """Bindings of `main`, and the names of the tensors that may cross between stages."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.module = module
        self.main: relax.Function = module["main"]
        self.bindings = main_bindings(self.main)
        self.position = {binding.var: index for index, binding in enumerate(self.bindings)}
        self.names: dict[Var, str] = {
            param: f"input.{index}" for index, param in enumerate(self.main.params)
        }
        """Inputs of the model and results of sub-graphs."""
        self.homes: dict[Var, SubgraphId] = {}
        """Sub-graph that computes a variable; a tuple's fields are computed with it."""
        self.layouts: dict[str, str] = {}
        """Layout of each named result of a sub-graph."""
        self._made: dict[Var, tuple[str, ...]] = {}
        """Layouts of all results of the sub-graph whose value a variable is."""
        for binding in self.bindings:
            self._note(binding)
        self.results = list(self._fields(self.main.body.body))

    def _note(self, binding: relax.VarBinding) -> None:
        value = binding.value
        callee = value.op if isinstance(value, Call) else None
        function = self.module[callee] if isinstance(callee, GlobalVar) else None
        found = subgraph_id(function) if function is not None else None
        if function is not None and found is not None:
            made = function.attrs["layoutsel.out_layouts"]
            self._made[binding.var] = tuple(str(layout) for layout in made)
        index = 0
        if isinstance(value, relax.TupleGetItem):
            found, index = self.homes.get(value.tuple_value), value.index
            self._made[binding.var] = self._made.get(value.tuple_value, ())
        if found is not None:
            self.homes[binding.var] = found
            if isinstance(binding.var.ty, relax.TensorType):
                name = f"{found}.{index}"
                self.names[binding.var] = name
                self.layouts[name] = self._made[binding.var][index]

    def _fields(self, expr: Expr) -> Iterator[Expr]:
        """Yield the single tensors of the result of `main`."""
        if isinstance(expr, relax.Tuple):
            for field in expr.fields:
                yield from self._fields(field)
            return
        position = self.position.get(expr) if isinstance(expr, Var) else None
        value = self.bindings[position].value if position is not None else None
        if isinstance(value, relax.Tuple | Var):
            yield from self._fields(value)
        else:
            yield expr

    def sources(self, expr: Expr) -> Iterator[Var]:
        """Yield the named tensors that `expr` depends on without a sub-graph in between."""
        for leaf in leaves(expr):
            if leaf in self.names:
                yield leaf
            elif isinstance(leaf, Var):
                yield from self.sources(self.bindings[self.position[leaf]].value)


class _Slice:
    """Bindings of `main` that one stage needs."""

    def __init__(
        self, flow: _Dataflow, stages: Stages, name: str, devices: Mapping[str, DeviceId]
    ) -> None:
        self.flow, self.name, self.devices = flow, name, devices
        self.order = list(stages)
        self.stage_of: dict[SubgraphId | None, str] = {
            id_: stage for stage, held in stages.items() for id_ in held
        }
        self.own: set[int] = set()
        """Their positions."""
        self.inputs: dict[str, list[Var]] = {}
        """Variables of `main` that the stage does not compute, by the tensor's name."""
        for index, binding in enumerate(flow.bindings):
            if self.stage_of.get(flow.homes.get(binding.var)) == name:
                self._take(index)
        self.results = {
            f"output.{index}": field
            for index, field in enumerate(flow.results)
            if self._stage_of_result(field) == name
        }
        for field in self.results.values():
            self._read(field)

    @property
    def callees(self) -> set[GlobalVar]:
        """Functions that the bindings call."""
        values = (self.flow.bindings[index].value for index in self.own)
        return {v.op for v in values if isinstance(v, Call) and isinstance(v.op, GlobalVar)}

    def outputs(self, slices: Iterable[_Slice]) -> dict[str, Expr]:
        """Return the results of the stage: tensors of other `slices`, and results of `main`."""
        crossing = {
            other.input_name(name): variables[0]
            for other in slices
            for name, variables in other.inputs.items()
            if self.stage_of.get(self.flow.homes.get(variables[0])) == self.name
        }
        return {**crossing, **self.results}

    def input_name(self, name: str) -> str:
        """Return the name of an input, which says if it is in the memory of the stage's device."""
        home = self.flow.homes.get(self.inputs[name][0])
        device = self.devices.get(self.name)
        stays = device is not None and self.devices.get(self.stage_of.get(home, "")) == device
        return f"{name}{STAYS}{device.target_name}" if stays and device is not None else name

    def _take(self, index: int) -> None:
        if index not in self.own:
            self.own.add(index)
            self._read(self.flow.bindings[index].value)

    def _read(self, expr: Expr) -> None:
        for leaf in leaves(expr):
            if isinstance(leaf, Var):
                self._read_variable(leaf)

    def _read_variable(self, variable: Var) -> None:
        home = self.flow.homes.get(variable)
        if home is None and variable not in self.flow.names:
            self._take(self.flow.position[variable])
        elif home is None or self.stage_of[home] != self.name:
            self._check_crossing(variable)
            self.inputs.setdefault(self.flow.names[variable], []).append(variable)

    def _check_crossing(self, variable: Var) -> None:
        if variable not in self.flow.names:
            raise IllegalDecision(
                f"stage {self.name!r} reads all results of sub-graph "
                f"{self.flow.homes[variable]} as one: put them into the same stage"
            )
        home = self.flow.homes.get(variable)
        if home is not None:
            tensor = self.flow.names[variable]
            check_reads(self.order, self.name, self.stage_of[home], tensor)

    def _stage_of_result(self, field: Expr) -> str:
        """Return the stage that computes the last source of a result of `main`.

        For an input of the model it is the last of all stages.
        """
        homes = [self.flow.homes.get(source) for source in self.flow.sources(field)]
        stages = [self.stage_of[home] for home in homes if home is not None]
        numbers = list(map(self.order.index, stages))
        return self.order[max(numbers, default=-1)]


class _Emitting(MainRewriter):
    """Emission of one stage's `main`."""

    def __init__(self, part: _Slice, outputs: Mapping[str, Expr]) -> None:
        module = part.flow.module
        functions = {module[callee] for callee in part.callees}
        super().__init__(module, keep=functions.__contains__)
        self.part, self.outputs = part, outputs

    def params(self) -> list[Var]:
        params = []
        for name, variables in self.part.inputs.items():
            params.append(relax.Var(name.replace(".", "_"), variables[0].ty))
            self.mapping.update(dict.fromkeys(variables, params[-1]))
        return params

    def body(self, bindings: Sequence[relax.VarBinding]) -> None:
        super().body([bindings[index] for index in sorted(self.part.own)])

    def result(self, _expr: Expr) -> Expr:
        results = [self.renewed(value) for value in self.outputs.values()]
        return results[0] if len(results) == 1 else relax.Tuple(results)


def join_stages(parts: Sequence[StagePart]) -> tvm.IRModule:
    """Join the lowered `parts` into one module; :func:`entry_name` names the function of each.

    *Requires* stage 4, with different names of partitions in different parts. *Ensures* that a
    kernel that several parts use is in the module once.
    """
    builder = relax.BlockBuilder()
    attrs: dict[str, list[object]] = {}
    devices: list[VDevice] = []
    for number, part in enumerate(parts):
        mapping = {
            gv: builder.add_func(function, gv.name_hint)
            for gv, function in part.module.functions.items()
            if gv.name_hint != "main"
        }
        name = entry_name(part.name)
        main = redirect(part.module["main"], mapping)
        builder.add_func(main.with_attrs({"global_symbol": name, ENTRY: number}), name)
        for key, values in (part.module.attrs or {}).items():
            attrs.setdefault(str(key), []).extend(values)
        placed = part.module.global_infos.get("vdevice", ())
        devices += [device for device in placed if device not in devices]
    joined = builder.get()
    if devices:
        order = devices_of(joined)
        joined.update_global_info(
            "vdevice", sorted(devices, key=lambda one: order.index(device_of_value(one)))
        )
    return joined.with_attrs(attrs)
