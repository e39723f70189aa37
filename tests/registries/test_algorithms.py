"""The table of algorithms: what entries say fits together, and reading it needs no TVM."""

import subprocess
import sys

import pytest

from layoutsel.cost.features import VOCABULARY
from tvm_passes.algorithms import ALGORITHMS, CandidateContext, algorithm_of, algorithms_of
from tvm_passes.backends import BACKENDS
from tvm_passes.decision import DIRECT


def context(**changes):
    known = {
        "unit": "cpu",
        "anchor": "nn.conv2d",
        "weights": ((32, 16, 3, 3),),
        "precision": "f32",
        "layouts": ("NCHW", "NHWC", "NCHW16c"),
        "packed": "NCHW16c",
    }
    return CandidateContext(**{**known, **changes})


def test_every_entry_documents_itself_and_belongs_to_known_units():
    for algorithm in ALGORITHMS.values():
        assert algorithm.about
        assert set(algorithm.units) <= set(BACKENDS)
        assert algorithm.units or algorithm.is_default


def test_candidates_come_in_the_order_of_ranks():
    ranks = [algorithm.rank for algorithm in ALGORITHMS.values()]
    assert ranks == sorted(set(ranks))
    assert [one.name for one in algorithms_of("cpu")] == [
        *("direct", "winograd", "winograd2", "tuned")
    ]


@pytest.mark.parametrize("unit", ["cpu", "amx", "onednn", "a unit from elsewhere"])
def test_every_unit_has_one_default(unit):
    assert [one.name for one in algorithms_of(unit) if one.is_default] == [DIRECT]


def test_words_of_the_vocabulary_are_entries():
    assert set(VOCABULARY["algorithm"]) <= {one.word for one in ALGORITHMS.values()}


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("direct", {}, ("NCHW", "NHWC", "NCHW16c")),
        ("winograd", {}, ("NCHW16c",)),
        ("winograd2", {"precision": "bf16"}, ()),
        ("winograd", {"weights": ((32, 16, 1, 1),)}, ()),
        ("winograd", {"weights": ()}, ()),
        ("winograd", {"anchor": "nn.conv2d_transpose"}, ()),
        ("tuned", {}, ()),
        ("alt1", {"unit": "onednn"}, ()),
        ("tall", {"unit": "amx", "layouts": ("NHWC",)}, ("NHWC",)),
    ],
)
def test_layouts_worth_asking_about(name, changes, expected):
    assert tuple(ALGORITHMS[name].layouts(context(**changes))) == expected


def test_a_name_of_another_installation_is_neutral():
    unknown = algorithm_of("strassen")
    assert unknown.name not in ALGORITHMS
    assert (unknown.speedup, unknown.packed_size, unknown.plan) == (1.0, 1.0, None)
    assert unknown.families("cpu") == ("cpu.strassen",)


def test_scopes_of_code():
    assert ALGORITHMS[DIRECT].families("cpu") == ()
    assert ALGORITHMS["winograd2"].families("cpu") == ("cpu.winograd",)
    assert ALGORITHMS["winograd2"].families("onednn") == ()
    assert ALGORITHMS["square"].families("amx") == ("amx",)


def test_reading_the_table_needs_no_tvm():
    script = (
        "import sys; from tvm_passes.algorithms import ALGORITHMS; assert len(ALGORITHMS) > 9; "
        "sys.exit('tvm' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
