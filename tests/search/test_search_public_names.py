"""Public names of ``layoutsel.search`` import on first use."""

import subprocess
import sys

import pytest

from layoutsel import search


@pytest.mark.parametrize("name", search.__all__)
def test_every_name_is_there(name):
    assert getattr(search, name).__name__ == name


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match=r"'layoutsel\.search' has no attribute 'nothing'"):
        _ = search.nothing


def test_importing_the_room_loads_no_heavy_library():
    code = "import sys, layoutsel.search; assert not {'tvm', 'torch', 'onnx'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
