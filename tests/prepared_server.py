"""A process that has imported other packages, and makes a copy of itself for each request of :mod:`prepared`.

A request is a message with four files: the three standard streams of the copy, and a socket for its process id and
its exit code.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import runpy
import signal
import socket
import struct
import sys
import types

MODULES = ("tvm", "tvm.relax", "onnx", "onnxscript.optimizer", "xgboost", "typer", "rich.console")
"""Modules of other packages that most commands import; those of this one are imported in each copy."""
LONGEST = 1 << 17
"""Bytes of the longest request."""


def import_others() -> None:
    """Import everything but what TVM's backends register, which depends on the environment."""
    import layoutsel  # noqa: F401  # before TVM, which would import PyTorch as well

    os.environ["TVM_DEVICE_BACKEND_AUTOLOAD"] = "0"
    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()


def serve(requests: socket.socket) -> None:
    """Wait for requests until their socket closes; returns in a copy, as the process that was requested."""
    while True:
        message, files, _, _ = socket.recv_fds(requests, LONGEST, 4)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0 if not message else os.WNOHANG)[0]:
                pass
        if not message:
            os._exit(0)
        if not os.fork():
            break
        for file in files:
            os.close(file)
    requests.close()
    *streams, answers = files
    if child := os.fork():
        watch(child, answers)
    os.close(answers)
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    become(*pickle.loads(message))


def watch(child: int, answers: int) -> None:
    """Tell the process id of a child, and its exit code when it ends."""
    with socket.socket(fileno=answers) as telling, contextlib.suppress(BrokenPipeError):
        telling.sendall(struct.pack("i", child))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        telling.sendall(struct.pack("i", code))
    os._exit(0)


def become(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """Go on as ``python ARGUMENTS`` in an environment and a folder."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.path[0] = ""
    path = environment.get("PYTHONPATH", "")
    sys.path[1:1] = [entry for entry in path.split(os.pathsep) if entry not in {"", *sys.path}]
    from tvm.backend import _autoload_backends as backends

    backends._AUTO_LOAD_DONE = False
    backends._autoload_backends()
    kind, what, *others = arguments
    if kind == "-m":
        sys.argv = [what, *others]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c"
        sys.argv = ["-c", *others]
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the server without a word
    import_others()
    client = socket.socket(fileno=int(sys.argv[1]))
    client.send(b"1")  # ready
    serve(client)
