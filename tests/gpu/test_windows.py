"""Short reductions on devices: each result by one work-item; longer ones by many."""

import pytest
import tvm
from tvm.relax import op

from tests.cpu.support import model
from tvm_passes.cpu import host_target
from tvm_passes.gpu.schedule import legalise

IMAGE = (1, 32, 14, 14)
SHORT = {
    "average": lambda x: op.nn.avg_pool2d(x, [3, 3], padding=[1, 1, 1, 1]),
    "channels last": lambda x: op.nn.avg_pool2d(x, [2, 2], layout="NHWC"),
}
LONG = {
    "mean": lambda x: op.mean(x, [2, 3]),
    "softmax": lambda x: op.nn.softmax(x, 1),
}


def kernel(body) -> str:
    function = model(body, IMAGE)["main"]
    module = legalise(
        function, tvm.target.Target("opencl", host=host_target()), is_convolution=False
    )
    (code,) = [f for f in module.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]
    return code.script()


@pytest.mark.parametrize("name", SHORT)
def test_a_window_is_one_work_items(name):
    code = kernel(SHORT[name])
    assert "threadIdx.x" in code
    assert "_rf" not in code
    assert 'scope="shared"' not in code


@pytest.mark.parametrize("name", LONG)
def test_a_long_reduction_is_shared(name):
    code = kernel(LONG[name])
    assert "_rf" in code or 'scope="shared"' in code
