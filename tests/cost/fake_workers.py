"""Functions for workers that misbehave in every way a candidate can."""

import ctypes
import os
import sys
import time


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


ACTIONS = {
    "ok": lambda: (2.0, 0.5, 7),
    "pid": os.getpid,
    "echo": lambda value: value,
    "env": os.environ.get,
    "abort": _abort,
    "segfault": _segfault,
    "exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(4),
    "hang": _hang,
    "raise": _raise,
    "print": _print,
    "unpicklable": lambda: lambda: 0,
    "garbage": lambda: "fast",
    "nan": lambda: (float("nan"), 0, 1),
    "spawn": _spawn_and_hang,
}
