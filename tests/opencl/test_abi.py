"""The plugin declares anew what TVM's run time expects: these declarations are those of the installed TVM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tvm

OURS = Path(__file__).parents[2] / "cmake" / "opencl" / "tvm_abi.h"
TVM = Path(tvm.__file__).parent
DEVICE_API, TIMER = (TVM / "include/tvm/runtime" / name for name in ("device_api.h", "timer.h"))


def text(path: Path) -> str:
    """A header without comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text(), flags=re.DOTALL)


def body(source: str, start: str) -> str:
    """What stands between the braces behind `start`."""
    first = source.index("{", source.index(start))
    depth = 0
    for end in range(first, len(source)):
        depth += {"{": 1, "}": -1}.get(source[end], 0)
        if depth == 0:
            return source[first + 1 : end]
    raise AssertionError(start)


def virtual_functions(path: Path, start: str) -> list[tuple[str, list[str], str]]:
    """Name, types of the parameters and last words of each virtual function, in order."""
    found = []
    declarations = body(text(path), start).replace("= {}", "")
    for declaration in re.findall(r"virtual\s+(.*?)[;{]", declarations, re.DOTALL):
        flat = " ".join(declaration.split())
        name, parameters, rest = re.match(r".*?([~\w]+)\((.*)\)\s*([\w\s=]*)$", flat).groups()
        types = re.findall(r"(?:^|, )((?:const )?[\w:]+(?:<[^>]*>)?[*&]?)", parameters)
        found.append((name, types, rest.strip()))
    return found


def enumerators(path: Path, start: str) -> dict[str, int]:
    return {k: int(v) for k, v in re.findall(r"(\w+)\s*=\s*(\d+)", body(text(path), start))}


@pytest.mark.parametrize(("header", "name"), [(DEVICE_API, "DeviceAPI"), (TIMER, "TimerNode")])
def test_virtual_functions_in_their_order(header, name):
    expected = virtual_functions(
        header, re.search(rf"class (\w+ )?{name}\b[^;]*?{{", text(header)).group()
    )
    found = virtual_functions(
        OURS, re.search(rf"class [^;{{]*{name}\b[^;]*?{{", text(OURS)).group()
    )
    assert len(expected) > 3
    assert found == expected


def test_attributes_of_devices():
    assert enumerators(OURS, "enum DeviceAttrKind") == enumerators(
        DEVICE_API, "enum DeviceAttrKind"
    )


def test_what_is_known_of_a_kernel():
    header = TVM / "src/runtime/metadata.h"
    if not header.exists():
        pytest.skip("this TVM ships no sources of its run time")
    fields = [
        re.findall(r"^\s*ffi::[\w<>: ]+ \w+;", body(text(path), "class FunctionInfoObj"), re.M)
        for path in (OURS, header)
    ]
    assert len(fields[0]) == 4
    assert [" ".join(f.split()) for f in fields[0]] == [" ".join(f.split()) for f in fields[1]]
