"""The base of the passes over `main`: a copy unless a step is overridden, and nothing lost on the way."""

from __future__ import annotations

import pytest
import tvm
from modules import conv, module_of
from tvm import relax
from tvm.ir import Call
from tvm.relax.global_info import VDevice
from tvm.relax.op import nn

from tvm_passes.cpu import host_target
from tvm_passes.errors import UnsupportedModel
from tvm_passes.ir import op_name
from tvm_passes.main_rewriter import MainRewriter
from tvm_passes.partition import PartitionSubgraphs


@pytest.fixture
def module() -> tvm.IRModule:
    """A partitioned network with attributes and a device."""

    def emit(builder, x):
        return nn.softmax(builder.emit(nn.relu(builder.emit(conv(x))), "activated"))

    made = PartitionSubgraphs()(module_of(emit)).with_attrs({"somebodys": "own"})
    made.update_global_info("vdevice", [VDevice(host_target(), 0, "global")])
    return made


def names(module: tvm.IRModule) -> list[str]:
    return [b.var.name for block in module["main"].body.blocks for b in block.bindings]


def assert_same(module: tvm.IRModule, expected: tvm.IRModule) -> None:
    """Structural equality, without bindings of one variable to another."""
    canonical = relax.transform.CanonicalizeBindings()
    tvm.ir.assert_structural_equal(canonical(module), canonical(expected))


def test_without_a_rule_it_copies(module):
    copied = MainRewriter(module).run()
    assert_same(copied, module)
    assert names(copied)[: len(names(module))] == names(module)
    assert copied.attrs["somebodys"] == "own"
    assert len(copied.global_infos["vdevice"]) == 1


def test_functions_that_are_not_kept_go_and_the_input_stays(module):
    before = len(module.functions)

    class Emptying(MainRewriter):
        def rewrite(self, binding):
            called = isinstance(binding.value, Call)
            return self.renewed(binding.value.args[0] if called else binding.value)

    emptied = Emptying(module, keep=lambda _function: False).run()
    assert [gv.name_hint for gv in emptied.functions] == ["main"]
    assert len(module.functions) == before


def test_later_bindings_read_the_new_value():
    class Leaking(MainRewriter):
        def rewrite(self, binding):
            if op_name(binding.value) != "nn.relu":
                return self.copy(binding)
            return self.builder.emit(nn.leakyrelu(self.renewed(binding.value.args[0]), 0.5))

    def emit(activation):
        return lambda builder, x: nn.softmax(builder.emit(activation(builder.emit(conv(x)))))

    expected = module_of(emit(lambda x: nn.leakyrelu(x, 0.5)))
    assert_same(Leaking(module_of(emit(nn.relu))).run(), expected)


def test_parameters_can_be_replaced_and_added():
    class Halving(MainRewriter):
        def params(self):
            (param,) = self.main.params
            shape = list(param.ty.shape)
            types = [relax.TensorType(shape, dtype) for dtype in ("float16", "float32")]
            return [relax.Var(name, ty) for name, ty in zip("xy", types, strict=True)]

    halved = Halving(module_of(lambda _builder, x: nn.relu(x))).run()
    assert [str(param.ty.dtype) for param in halved["main"].params] == ["float16", "float32"]
    assert str(halved["main"].ret_ty.dtype) == "float16"


def test_control_flow_is_refused():
    x = relax.Var("x", relax.TensorType((2,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.If(relax.const(True), x, x)))
    with pytest.raises(UnsupportedModel, match="straight-line"):
        MainRewriter(builder.get()).run()
