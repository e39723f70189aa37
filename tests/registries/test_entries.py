"""What holds for every entry of the tables of layouts and precisions, and for those from outside."""

import math
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.registries.entries import entry
from tests.registries.outside import PACKAGES
from tvm_passes.layout import PLAIN, convert, has_form, logical_shape, physical_shape, stored
from tvm_passes.layouts import LAYOUTS, encoded_layouts, own_layouts
from tvm_passes.layouts.entry import Layout
from tvm_passes.precisions import PRECISIONS, encoded_precisions, own_precisions
from tvm_passes.precisions.entry import ElementStorage

GUIDE = Path(__file__).parents[2] / "docs"
CHWN = replace(entry("chwn", "LAYOUT"), restriction=lambda _shape: None)
PAIRS = Layout(
    name="N2CHWn",
    documentation="Pairs of images innermost.",
    to_physical=lambda n, c, h, w: (n // 2, c, h, w, n % 2),
    to_logical=lambda pair, c, h, w, image: (pair * 2 + image, c, h, w),
    rank=5,
    restriction=lambda shape: "an odd batch" if shape[0] % 2 else None,
)
ENTRIES = [*own_layouts(), CHWN, PAIRS]
HALF = entry("half_storage", "PRECISION")
PAIRED = replace(
    HALF, name="f16-pairs", storage=ElementStorage(name="pairs", dtype="float16", parts=2)
)
THIRDS = replace(
    HALF, name="thirds", storage=ElementStorage(name="thirds", dtype="bfloat16", parts=3)
)

layouts = st.sampled_from(ENTRIES)
shapes = st.tuples(
    st.sampled_from((2, 4)), st.sampled_from((32, 64)), st.integers(1, 2), st.integers(1, 3)
)


@pytest.fixture
def installed(monkeypatch):
    """The tables, with the entries of this file."""
    for table, entries in ((LAYOUTS, (CHWN, PAIRS)), (PRECISIONS, (HALF, PAIRED, THIRDS))):
        for one in entries:
            monkeypatch.setitem(table._loaded(), one.name, one)


@settings(max_examples=40)
@given(layouts, shapes)
def test_the_index_functions_invert_each_other(layout, shape):
    for index in np.ndindex(shape):
        assert tuple(layout.to_logical(*layout.to_physical(*index))) == index


@settings(max_examples=40)
@given(layouts, shapes)
def test_the_shape_in_memory_has_as_many_elements_and_its_rank(layout, shape):
    physical = layout.physical_shape(shape)
    assert math.prod(physical) == math.prod(shape)
    assert len(physical) == layout.rank
    assert layout.logical_shape(physical) == shape


@settings(max_examples=40)
@given(layouts, shapes)
def test_copies_put_every_element_where_its_index_says(layout, shape):
    array = np.arange(math.prod(shape)).reshape(shape)
    packed = layout.packed(array)
    assert packed.shape == layout.physical_shape(shape)
    for index in np.ndindex(shape):
        assert packed[tuple(layout.to_physical(*index))] == array[index]
    np.testing.assert_array_equal(layout.unpacked(packed), array)


@pytest.mark.parametrize("layout", ENTRIES, ids=lambda layout: layout.name)
def test_the_index_functions_take_expressions(layout):
    from tvm import tirx

    mapping = tirx.IndexMap.from_func(
        lambda *axes: list(layout.to_physical(*axes)), ndim=4, index_dtype="int64"
    )
    for index in np.ndindex((2, 32, 2, 2)):
        moved = tuple(int(i) for i in mapping.map_indices(list(index)))
        assert moved == tuple(layout.to_physical(*index))


@pytest.mark.parametrize("layout", ENTRIES, ids=lambda layout: layout.name)
def test_shapes_without_the_form_are_refused_with_the_reason(layout):
    for shape in ((32, 4), (3, 3, 2, 2)):
        reason = layout.obstacle(shape)
        if reason is None:
            assert math.prod(layout.physical_shape(shape)) == math.prod(shape)
        else:
            with pytest.raises(ValueError, match=f"has no {layout.name} form: {reason}"):
                layout.physical_shape(shape)
    assert layout.any_rank == (layout.obstacle((32, 4)) is None) == (layout.name == PLAIN)


@pytest.mark.parametrize("precision", ["bf16", "split-bf16", HALF.name, PAIRED.name, THIRDS.name])
@pytest.mark.parametrize("order", ["NCHW", "NHWC", "NCHW16c", CHWN.name, PAIRS.name])
def test_storages_keep_their_significand_in_every_order(installed, precision, order):
    shape = (2, 32, 3, 2)
    array = np.random.default_rng(0).standard_normal(shape).astype("float32")
    layout = stored(order, PRECISIONS[precision].storage_name)
    form = PRECISIONS[precision].storage
    there = convert(array, PLAIN, layout)
    assert there.shape == physical_shape(shape, layout)
    assert there.dtype == np.dtype(getattr(ml_dtypes, form.dtype, form.dtype))
    assert there.size == form.parts * array.size
    assert logical_shape(there.shape, layout) == shape
    bits = form.parts * {"bfloat16": 8, "float16": 11}[form.dtype]
    # Half of the least float16.
    np.testing.assert_allclose(convert(there, layout, PLAIN), array, rtol=2.0**-bits, atol=2.0**-25)


def test_a_shape_of_another_layout_is_no_form_of_it(installed):
    shape = (4, 32, 3, 2)
    for order in (CHWN.name, PAIRS.name, "NHWC", "NCHW16c"):
        assert has_form(physical_shape(shape, order), order)
        assert has_form(physical_shape(shape, f"{order}.thirds"), f"{order}.thirds")
        assert not has_form(physical_shape(shape, f"{order}.thirds"), f"{order}.split")
    assert not has_form(physical_shape(shape, "NCHW16c"), "NCHW8c")
    assert not has_form(physical_shape(shape, "NCHW16c"), "NHWC")


def test_columns_of_learned_models_stay_in_place():
    # Models are trained with these: an entry that is added comes last, with a new version.
    assert encoded_layouts() == ("NCHW", "NHWC", "NCHW8c", "NCHW16c", "NCHW32c")
    assert encoded_precisions() == ("bf16", "split-bf16", "int8")


@pytest.mark.parametrize("one", [*ENTRIES, *own_precisions(), HALF], ids=lambda one: one.name)
def test_every_entry_is_described_in_a_sentence(one):
    assert one.documentation[:1].isupper()
    assert one.documentation.endswith(".")


@pytest.mark.parametrize(
    ("page", "entries"), [("layouts", own_layouts()), ("precisions", own_precisions())]
)
def test_the_guide_lists_every_entry_of_ours(page, entries):
    text = (GUIDE / f"{page}.md").read_text()
    assert not {
        one.name for one in entries if f"| `{one.name}` | {one.documentation} |" not in text
    }


def test_the_guide_shows_the_entries_that_tests_install():
    for page, module in (("layouts", "chwn"), ("precisions", "half_storage")):
        code = (PACKAGES / f"{module}.py").read_text().partition('"""\n\n')[2]
        assert code in (GUIDE / f"{page}.md").read_text()
