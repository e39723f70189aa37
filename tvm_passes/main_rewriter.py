"""Base of every pass that rewrites `main`: emit it again, binding by binding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tvm
from tvm import relax

from tvm_passes.ir import Expr, Var, main_bindings, substitute


def _keep_all(_function: tvm.ir.BaseFunc) -> bool:
    return True


class MainRewriter:
    """Emit `main` of a module again; a pass overrides the steps in which its result differs.

    The steps are, in order: :meth:`params`, then :meth:`body`, which calls :meth:`rewrite` for each
    binding, then :meth:`result`. Each step of this class copies. If ``y = f(x)`` is rewritten to
    the value ``z``, later bindings read ``z`` instead of ``y``.

    *Requires* a `main` without control flow. *Ensures* that the attributes of the module and of
    `main`, the devices and the other functions stay, except for functions that `keep` rejects. The
    original module never changes.

    Parameters
    ----------
    module
        The module to rewrite.
    keep
        Predicate of the other functions: False for those that the new `main` no longer calls.
    name
        Name of the function that is emitted instead of `main`; see
        :func:`tvm_passes.ir.entry_points`.
    """

    # `relax.PyExprMutator` maps one binding to one value, in order. These passes also reorder
    # bindings, join several into one call, split one into several and change parameters. With a
    # block builder each of these is a plain loop.

    def __init__(
        self,
        module: tvm.IRModule,
        keep: Callable[[tvm.ir.BaseFunc], bool] = _keep_all,
        name: str = "main",
    ) -> None:
        self.module = module
        self.name = name
        self.main: relax.Function = module[name]
        self.builder = _builder_beside(module, keep, name)
        self.mapping: dict[Expr, Expr] = {}
        """New value of each emitted variable of the old `main`, and of each replaced constant."""

    def run(self) -> tvm.IRModule:
        """Emit `main`; returns the rewritten module."""
        params = self.params()
        for old, new in zip(self.main.params, params, strict=False):
            self.mapping.setdefault(old, new)
        attrs = dict(self.main.attrs) if self.main.attrs else None
        with self.builder.function(self.name, params, attrs=attrs):
            with self.builder.dataflow():
                self.body(main_bindings(self.main))
                result = self.builder.emit_output(self.result(self.main.body.body))
            self.builder.emit_func_output(result)
        return self.builder.finalize()

    def params(self) -> list[Var]:
        """Return the parameters of the new `main`: one for each old one, then any further ones.

        A pass with other parameters fills :attr:`mapping` itself.
        """
        return list(self.main.params)

    def body(self, bindings: Sequence[relax.VarBinding]) -> None:
        """Emit the new bindings; a pass overrides it to change their order, or to group them."""
        for binding in bindings:
            value = self.rewrite(binding)
            if value is not None:
                self.mapping[binding.var] = value

    def rewrite(self, binding: relax.VarBinding) -> Expr | None:
        """Emit the replacement of `binding`; returns its value, or None if it has no consumer."""
        return self.copy(binding)

    def result(self, expr: Expr) -> Expr:
        """Return the result of the new `main`, given the result of the old one."""
        return self.renewed(expr)

    def copy(self, binding: relax.VarBinding) -> Var:
        """Emit `binding` unchanged over the new values, under its own name."""
        return self.builder.emit(self.renewed(binding.value), binding.var.name)

    def renewed(self, expr: Expr) -> Expr:
        """Return `expr` of the old `main` over the values of the new one."""
        return substitute(expr, self.mapping.get)


def _builder_beside(
    module: tvm.IRModule, keep: Callable[[tvm.ir.BaseFunc], bool], name: str
) -> relax.BlockBuilder:
    """Make a builder with the other functions of `module`, its attributes and its devices.

    The attributes hold the modules of earlier code generation, which must reach the executable.
    """
    kept = {
        gv: function
        for gv, function in module.functions.items()
        if gv.name_hint != name and keep(function)
    }
    infos = {name: list(infos) for name, infos in module.global_infos.items()}
    return relax.BlockBuilder(tvm.IRModule(kept, attrs=module.attrs, global_infos=infos))
