"""Tensors beside the model: read from where the model lies, whatever holds them, and from nowhere else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from layoutsel.errors import InvalidModel, LayoutselError, ModelTooLarge
from layoutsel.model import import_model
from layoutsel.model.import_external import load_external_data
from layoutsel.model.import_load import load_model
from tvm_passes.limits import ImportLimits

VALUES = np.arange(16, dtype="float32").reshape(4, 4)
SECRET = b"-----SECRET-NEVER-SHOWN-----" * 40


def outside(location="w.bin", *, dims=(4, 4), kind=TensorProto.FLOAT, name="w", **entries):
    tensor = TensorProto(name=name, dims=dims, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def model_of(nodes, *, initializers=(), sparse=(), functions=()):
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
        sparse_initializer=sparse,
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("own", 1)] if functions else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)


def product(tensor):
    node = helper.make_node("MatMul", ["x", tensor.name], ["y"], name="product")
    return model_of([node], initializers=[tensor])


def body(tensor, *, as_constant):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["inner"])]
    if as_constant:
        nodes = [helper.make_node("Constant", [], ["w"], value=tensor), *nodes]
    result = [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, "body", [], result, [] if as_constant else [tensor])


def sparse(tensor):
    tensor.name, tensor.dims[:] = "w", [2]
    indices = numpy_helper.from_array(np.array([0, 5]), "at")
    return helper.make_sparse_tensor(tensor, indices, [4, 4])


def branch(tensor, *, as_constant=False):
    flag = numpy_helper.from_array(np.array(True), "flag")
    inner = body(tensor, as_constant=as_constant)
    node = helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner)
    return model_of([node], initializers=[flag])


def nested(tensor):
    node = branch(tensor).graph.node[0]
    outer = helper.make_graph(
        [node], "outer", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    )
    once = helper.make_node("If", ["flag"], ["y"], then_branch=outer, else_branch=outer)
    return model_of([once], initializers=[numpy_helper.from_array(np.array(True), "flag")])


def function(tensor):
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    made = helper.make_function(
        "own", "Product", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)]
    )
    return model_of([helper.make_node("Product", ["x"], ["y"], domain="own")], functions=[made])


def constant(tensor):
    nodes = [
        helper.make_node("Constant", [], ["w"], value=tensor),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return model_of(nodes)


def sparse_constant(tensor):
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse(tensor)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    return model_of(nodes)


def sparse_initializer(tensor):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model_of([node], sparse=[sparse(tensor)])


CARRIERS = {
    "initializer": product,
    "constant": constant,
    "sparse constant": sparse_constant,
    "sub-graph": branch,
    "constant in a sub-graph": lambda tensor: branch(tensor, as_constant=True),
    "sub-graph of a sub-graph": nested,
    "function": function,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with data, beside a secret."""
    (tmp_path / "secret.bin").write_bytes(SECRET)
    place = tmp_path / "model"
    place.mkdir()
    (place / "w.bin").write_bytes(VALUES.tobytes())
    return place


def written(model, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path, *fragments, **options):
    """Expect one line that shows nothing of another file; whatever waits for a pipe fails the test."""
    caught: list[BaseException] = []

    def work():
        try:
            load_model(path, **options)
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits"
    assert caught, "it was read"
    assert isinstance(caught[0], LayoutselError), caught[0]
    message = str(caught[0])
    assert "\n" not in message
    assert "SECRET" not in message
    assert len(message) < 600
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("carrier", CARRIERS)
def test_tensors_are_read_wherever_they_are_held(folder, carrier):
    path = written(CARRIERS[carrier](outside()), folder)
    if carrier == "sparse constant":
        (folder / "w.bin").write_bytes(VALUES.tobytes()[:8])
    model = load_model(path)
    assert b"w.bin" not in model.SerializeToString()
    assert VALUES.tobytes()[:8] in model.SerializeToString()


@pytest.mark.parametrize("location", ["ABSOLUTE", "../secret.bin", "w/../../secret.bin", "link"])
@pytest.mark.parametrize("carrier", [*CARRIERS, "sparse initializer"])
def test_what_leaves_the_folder_is_refused_unread(folder, carrier, location, monkeypatch):
    secret = folder.parent / "secret.bin"
    (folder / "link").symlink_to(secret)
    location = str(secret) if location == "ABSOLUTE" else location
    makers = {**CARRIERS, "sparse initializer": sparse_initializer}
    path = written(makers[carrier](outside(location)), folder)
    touched = []
    for name in ("stat", "lstat", "open"):
        original = getattr(os, name)

        def recording(file, *arguments, _original=original, **options):
            touched.append(str(file))
            return _original(file, *arguments, **options)

        monkeypatch.setattr(os, name, recording)
    refused(path)
    assert touched
    assert not [file for file in touched if "secret" in file]


@pytest.mark.parametrize(
    ("location", "flag"),
    [("../secret.bin", True), ("/etc/hostname", True), ("up/secret.bin", False), ("loop", False)],
)
def test_the_option_lets_links_through_and_nothing_else(folder, location, flag):
    (folder / "up").symlink_to("..")
    (folder / "loop").symlink_to("loop")
    path = written(product(outside(location, dims=(4, 4), offset=0)), folder)
    refused(path, "does not leave" if flag else "link")
    if location == "up/secret.bin":
        model = load_model(path, allow_external_links=True)
        assert model.graph.initializer[0].raw_data == SECRET[:64]
    else:
        refused(path, allow_external_links=True)


@pytest.mark.parametrize("allow", [False, True])
def test_cache_of_a_model_hub(tmp_path, allow):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "0a1b" / "onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "3f2a").write_bytes(product(outside("model.onnx_data")).SerializeToString())
    (blobs / "9c41").write_bytes(VALUES.tobytes())
    for name, blob in (("model.onnx", "3f2a"), ("model.onnx_data", "9c41")):
        (snapshot / name).symlink_to(f"../../../blobs/{blob}")
    model = load_model(snapshot / "model.onnx", allow_external_links=allow)
    assert model.graph.initializer[0].raw_data == VALUES.tobytes()
    imported = import_model(snapshot / "model.onnx", allow_external_links=allow)
    assert imported.outputs[0].shape == (2, 4)


def test_a_hubs_link_that_leads_elsewhere(tmp_path):
    (tmp_path / "secret.bin").write_bytes(SECRET)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "m").write_bytes(product(outside("data")).SerializeToString())
    (tmp_path / "snapshot" / "model.onnx").symlink_to("../blobs/m")
    data = tmp_path / "snapshot" / "data"
    data.symlink_to("../blobs/../secret.bin")
    refused(tmp_path / "snapshot" / "model.onnx", "--allow-external-links")
    (tmp_path / "blobs" / "d").symlink_to("../secret.bin")
    data.unlink()
    data.symlink_to("../blobs/d")
    refused(tmp_path / "snapshot" / "model.onnx", "--allow-external-links")


def test_links_within_the_folder(folder):
    (folder / "deep").mkdir()
    (folder / "w.bin").rename(folder / "deep" / "real")
    (folder / "w.bin").symlink_to("other/real")
    (folder / "other").symlink_to(folder / "deep")
    path = written(product(outside()), folder)
    assert load_model(path).graph.initializer[0].raw_data == VALUES.tobytes()
    (folder.parent / "alias").symlink_to(folder)
    model = load_model(folder.parent / "alias" / "model.onnx")
    assert model.graph.initializer[0].raw_data == VALUES.tobytes()


def test_parts_of_a_file(folder):
    (folder / "w.bin").write_bytes(b"x" * 10 + VALUES.tobytes() + b"y" * 10)
    whole = product(outside(offset=10, length=64, checksum="0" * 40, unknown="key"))
    model = load_model(written(whole, folder))
    assert model.graph.initializer[0].raw_data == VALUES.tobytes()
    model = load_model(written(product(outside(offset=10)), folder))
    assert model.graph.initializer[0].raw_data == VALUES.tobytes()
    with (folder / "w.bin").open("wb") as file:
        file.seek((1 << 32) + 8)
        file.write(VALUES.tobytes())
    model = load_model(written(product(outside(offset=(1 << 32) + 8, length=64)), folder))
    assert model.graph.initializer[0].raw_data == VALUES.tobytes()


@pytest.mark.parametrize(
    ("entries", "fragment"),
    [
        ({"offset": "abc"}, "the offset 'abc'"),
        ({"offset": -4096}, "-4096"),
        ({"offset": "9" * 10_000}, "the offset '999"),
        ({"offset": 2**63}, "64 bytes"),
        ({"offset": "1e3"}, "1e3"),
        ({"offset": " 8"}, "' 8'"),
        ({"offset": "٣"}, "the offset"),
        ({"offset": ""}, "the offset ''"),
        ({"offset": 1}, "has only 64"),
        ({"length": "abc"}, "the length 'abc'"),
        ({"length": -1}, "-1"),
        ({"length": "9" * 10_000}, "the length '999"),
        ({"length": 10**15}, "takes 64"),
        ({"length": 8}, "a length of 8 bytes"),
        ({"length": 0}, "takes 64"),
        ({"dims": (4, 400)}, "has only 64"),
        ({"dims": (2**62, 2**62)}, "has only 64"),
        ({"dims": (-4, -4)}, "negative"),
        ({"kind": TensorProto.STRING}, "text"),
        ({"kind": TensorProto.UNDEFINED}, "type"),
        ({"kind": 4711}, "type"),
        ({"location": ""}, "name of a file"),
        ({"location": "."}, "name of a file"),
        ({"location": "w\0.bin"}, "name of a file"),
        ({"location": "n" * 5000}, "cannot be read"),
        ({"location": "w.bin/x"}, "w.bin/x"),
        ({"location": "none\nnone"}, "does not exist"),
        ({"location": "./"}, "name of a file"),
        ({"location": "folder"}, "regular file"),
    ],
)
def test_malformed_places(folder, entries, fragment):
    (folder / "folder").mkdir()
    refused(written(product(outside(**entries)), folder), "'w'", fragment.replace("64 bytes", ""))


@pytest.mark.parametrize(
    "target", ["/dev/zero", "/dev/null", "/proc/version", "/proc/self/mem", "/sys"]
)
def test_devices_and_the_kernels_files(folder, target):
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(target)
    path = written(product(outside()), folder)
    refused(path, "link")
    refused(path, "regular file", allow_external_links=True)


def test_pipes_and_sockets(folder):
    (folder / "w.bin").unlink()
    os.mkfifo(folder / "w.bin")
    refused(written(product(outside()), folder), "regular file")
    os.mkfifo(folder / "pipe.onnx")
    refused(folder / "pipe.onnx", "pipe")
    refused("/dev/zero", "device")


def test_unreadable_file(folder):
    (folder / "w.bin").chmod(0)
    path = written(product(outside()), folder)
    if os.access(folder / "w.bin", os.R_OK):
        pytest.skip("this user reads everything")
    refused(path, "cannot be read", "denied")


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_loaded_model_names_no_files(carrier, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("w.bin").write_bytes(VALUES.tobytes())
    with pytest.raises(InvalidModel, match=r"'w' lies outside of the loaded model.*give the path"):
        import_model(CARRIERS[carrier](outside()))


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("FLOAT", 60),
        ("BFLOAT16", 30),
        ("INT4", 8),
        ("UINT4", 8),
        ("FLOAT8E4M3FN", 15),
        ("BOOL", 15),
    ],
)
def test_sizes_of_types(tmp_path, kind, size):
    (tmp_path / "w.bin").write_bytes(bytes(size))
    model = onnx.ModelProto()
    tensor = outside(dims=(3, 5), kind=TensorProto.DataType.Value(kind), length=size)
    model.graph.initializer.append(tensor)
    load_external_data(model, tmp_path / "model.onnx")
    assert model.graph.initializer[0].raw_data == bytes(size)
    assert numpy_helper.to_array(model.graph.initializer[0]).shape == (3, 5)


def many(count, **entries):
    tensors = [outside(name=f"w{index}", **entries) for index in range(count)]
    nodes = [helper.make_node("MatMul", ["x", "w0"], ["y"], name="product")]
    return model_of(nodes, initializers=tensors)


def test_many_tensors_in_the_same_bytes(folder):
    (folder / "w.bin").write_bytes(bytes(4 << 20))
    path = written(many(8, dims=(1024, 1024)), folder)
    with pytest.raises(
        ModelTooLarge, match=r"takes 28 MiB more than its files hold.*--import-limit"
    ):
        load_model(path, limits=ImportLimits(tensor_bytes=20 << 20))
    assert len(load_model(path, limits=ImportLimits(tensor_bytes=28 << 20)).graph.initializer) == 8


def test_a_file_that_is_a_hole(folder):
    with (folder / "w.bin").open("wb") as file:
        file.truncate(1 << 40)
    path = written(many(1, dims=(1 << 19, 1 << 19)), folder)
    with pytest.raises(ModelTooLarge, match=r"takes 1 TiB more than its files hold"):
        load_model(path)
