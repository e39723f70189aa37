"""Functions for workers that misbehave in every way a candidate can."""

import ctypes
import errno
import os
import signal
import struct
import sys
import time

from tvm_passes.errors import LayoutselError


def behave(payload):
    """Do what `payload` says."""
    what, *rest = payload if isinstance(payload, tuple) else (payload,)
    return ACTIONS[what](*rest)


def _abort():
    print("last words", flush=True)
    os.abort()


def _segfault():
    ctypes.string_at(0)


def _hang():
    time.sleep(3600)


def _raise():
    raise ValueError("no such\nkernel")


def _print():
    print("x" * 1_000_000)
    print("y" * 1_000_000, file=sys.stderr)
    return 1.0, 0.1, 5


def _spawn_and_hang():
    import subprocess

    subprocess.Popen(["sleep", "3600"])
    time.sleep(3600)


def _raised(error, cause=None):
    raise error from cause


def _signal(name):
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(10)


def _bad_alloc():
    print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
    os.abort()


def _half_an_answer():
    """Begin a message of a thousand bytes, and stop."""
    os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"begin")
    os.kill(os.getpid(), signal.SIGSTOP)


FULL = OSError(errno.ENOSPC, "No space left on device")

ACTIONS = {
    "signal": _signal,
    "bad_alloc": _bad_alloc,
    "allocate": lambda count: len(bytearray(count)),
    "declined": lambda: _raised(LayoutselError("no such layout")),
    "memory": lambda: _raised(MemoryError()),
    "disk": lambda: _raised(FULL),
    "disk below": lambda: _raised(LayoutselError("cannot write"), FULL),
    "linker": lambda: _raised(RuntimeError("ld: final link failed: No space left on device")),
    "limit": lambda: _raised(TimeoutError("a compiler")),
    "missing": lambda: _raised(ImportError("no plugin")),
    "lost": lambda: os._exit(0),
    "ok": lambda: (2.0, 0.5, 7),
    "pid": os.getpid,
    "echo": lambda value: value,
    "env": os.environ.get,
    "abort": _abort,
    "segfault": _segfault,
    "exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "hang": _hang,
    "half an answer": _half_an_answer,
    "raise": _raise,
    "print": _print,
    "unpicklable": lambda: lambda: 0,
    "garbage": lambda: "fast",
    "nan": lambda: (float("nan"), 0, 1),
    "spawn": _spawn_and_hang,
}
