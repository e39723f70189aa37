"""TVM is imported without PyTorch, and PyTorch still can be imported afterwards."""

import subprocess
import sys

import pytest

AFTERWARDS = "import torch; assert torch.IS_FAKE"
PROGRAMS = {
    "by layoutsel": "import layoutsel, tvm, sys; assert 'torch' not in sys.modules",
    "twice": "import layoutsel, tvm_ffi, tvm, sys; assert 'torch' not in sys.modules",
    "by the user first": "import torch, layoutsel, sys; assert sys.modules['torch'] is torch",
    "from the command line": (
        "import sys; from layoutsel.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    ),
}


@pytest.fixture
def folder(tmp_path):
    """Folder with an empty package that has the name of PyTorch."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("IS_FAKE = True")
    return tmp_path


@pytest.mark.parametrize("case", PROGRAMS)
def test_pytorch_stays_out(folder, case):
    program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{PROGRAMS[case]}\n{AFTERWARDS}"
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
