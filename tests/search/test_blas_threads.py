"""Threads of numpy's matrices, whatever libraries a process has loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

SCRIPT = """
    import ctypes, os, sys
    import numpy as np
    from threadpoolctl import threadpool_info

    def threads():
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    from layoutsel.search.blas_threads import one_blas_thread
    with one_blas_thread():
        assert set(threads()) <= {1}, threads()
    ctypes.CDLL(os.fsdecode(os.fsencode(sys.argv[1]) + b"/\\xff.so"))
    with one_blas_thread():
        assert (np.ones((3, 4)) @ np.ones((4, 2)) == 4).all()
"""


def test_a_library_whose_name_is_not_utf8_is_no_error(tmp_path):
    source = tmp_path / "empty.c"
    source.write_text("int nothing;\n")
    library = os.fsencode(tmp_path) + b"/\xff.so"
    subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True, timeout=60)
    script = textwrap.dedent(SCRIPT)
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=60)
