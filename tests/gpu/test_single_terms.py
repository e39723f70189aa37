"""Sums of one term, before TVM's rules for devices see them."""

from __future__ import annotations

import pytest
import tvm
from tvm import relax, tirx
from tvm.relax import op
from tvm.script import tirx as T

from tests.bodies import BODIES
from tests.cpu.support import model
from tvm_passes.gpu.single_terms import without_single_terms


@T.prim_func(private=True, s_tir=True)
def before(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
    for i, k in T.grid(4, 1):
        with T.sblock("sum"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                b[vi] = T.float32(0.0)
            b[vi] = b[vi] + a[vi + vk]


@T.prim_func(private=True, s_tir=True)
def expected(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
    for i, k in T.grid(4, 1):
        with T.sblock("sum"):
            vi, vk = T.axis.remap("SS", [i, k])
            b[vi] = T.Add(T.float32(0.0), a[vi + vk])


@T.prim_func(private=True, s_tir=True)
def two_terms(a: T.Buffer((8,), "float32"), b: T.Buffer((4,), "float32")):
    for i, k in T.grid(4, 2):
        with T.sblock("sum"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                b[vi] = T.float32(0.0)
            b[vi] = b[vi] + a[vi + vk]


def test_the_sum_is_gone():
    found = without_single_terms(before)
    tvm.ir.assert_structural_equal(found, expected)
    assert without_single_terms(found).same_as(found)


def test_other_sums_stay():
    assert without_single_terms(two_terms).same_as(two_terms)


@pytest.mark.parametrize(("name", "sums"), [("single terms", 0), ("one channel", 0), ("same", 1)])
def test_convolutions_of_single_terms_have_no_sum(name, sums):
    body, shapes = BODIES[name]
    module = relax.transform.LegalizeOps()(model(body, *shapes))
    codes = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    scripts = [without_single_terms(code).script() for code in codes]
    assert sum(script.count("T.init()") for script in scripts) == sums


def test_one_activation_makes_a_product_of_one_term():
    module = relax.transform.LegalizeOps()(model(op.matmul, (3, 1), (1, 5)))
    (code,) = [f for f in module.functions.values() if isinstance(f, tirx.PrimFunc)]
    assert "T.init()" in code.script()
    assert "T.init()" not in without_single_terms(code).script()
