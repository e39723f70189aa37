"""A device behind TVM's RPC: another process that has the runtime alone, and a gateway to it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import layoutsel
from layoutsel.cluster.engine import digest
from layoutsel.cluster.rpc_device import DeviceLost, RpcAddress, RpcDevice
from layoutsel.errors import InputError, RunTimeout
from tests.runtime.branching import expected, image, network, planned
from tvm_passes.errors import LayoutselError

LIMIT_S = 60
CODE = "import sys; from layoutsel.device.command import main; sys.exit(main())"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    model = layoutsel.compile_plan(network(), planned(network(), ["cpu"]), units=["cpu"])
    return model.save(tmp_path_factory.mktemp("device") / "model.so")


def serving(artifact, *options):
    """A server process and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "serve", str(artifact), "--rpc", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line.startswith("serving"), process.stderr.read()
    return process, int(line.rpartition(":")[2])


@pytest.fixture(scope="module")
def server(artifact):
    process, port = serving(artifact)
    yield port
    process.kill()
    process.wait(LIMIT_S)


@pytest.fixture
def device(server, artifact):
    one = RpcDevice(RpcAddress(server), sha256=digest(artifact), limit_s=LIMIT_S)
    yield one
    one.close()


def test_stages_run_on_the_device(device):
    assert [stage.name for stage in device.stages] == ["trunk", "a", "b"]
    for seed in range(3):
        tensors = {"input.0": image(seed)}
        tensors |= device.result(device.run(["trunk", "a"], tensors))
        tensors |= device.result(device.run(["b"], tensors))
        want = expected(network(), image(seed))
        for index, one in enumerate(want):
            np.testing.assert_allclose(tensors[f"output.{index}"], one, rtol=1e-4, atol=1e-5)


def test_what_the_device_rejects_is_an_error_and_the_session_goes_on(device):
    with pytest.raises(InputError, match=r"input\.0"):
        device.run(["trunk"], {"input.0": image()[:, :1]})
    with pytest.raises(LayoutselError, match="no stage 'c'"):
        device.run(["c"], {})
    assert device.result(device.run(["trunk"], {"input.0": image()}))


def test_sessions_follow_each_other(server, device):
    """A client of another protocol is sent away, and so is one that says nothing."""
    device.close()
    del device
    for greeting in (b"GET / HTTP/1.1\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", server), timeout=LIMIT_S) as client:
            client.sendall(greeting)
    again = RpcDevice(RpcAddress(server))
    assert again.result(again.run(["trunk"], {"input.0": image()}))
    again.close()


def test_another_artifact_is_refused(server):
    with pytest.raises(LayoutselError, match="its artifact has the SHA-256"):
        RpcDevice(RpcAddress(server), sha256="0" * 64)


def test_only_loopback():
    with pytest.raises(LayoutselError, match=r"ssh -L 9090:localhost:9090 192\.0\.2\.1"):
        RpcAddress(9090, "192.0.2.1")


def test_no_server_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises((DeviceLost, RunTimeout), match=f"127.0.0.1:{port}"):
        RpcDevice(RpcAddress(port))


def test_a_device_that_dies_is_lost(artifact):
    process, port = serving(artifact)
    device = RpcDevice(RpcAddress(port), limit_s=30)
    device.result(device.run(["trunk"], {"input.0": image()}))
    process.kill()
    process.wait(LIMIT_S)
    start = time.monotonic()
    with pytest.raises((DeviceLost, RunTimeout), match=f"127.0.0.1:{port}"):
        device.result(device.run(["trunk"], {"input.0": image()}))
    assert time.monotonic() - start < LIMIT_S
    with pytest.raises(DeviceLost):
        device.run(["trunk"], {"input.0": image()})
    device.close()
