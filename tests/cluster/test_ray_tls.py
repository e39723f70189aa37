"""Two emulated nodes with a token and TLS, by the commands that a user types."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from certificates import tls_folder
from divided import CLASS, distribution, distributions, image, network, plan_in_atoms

import layoutsel

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]
NODES = pytest.importorskip("cluster.nodes", reason="the benches are not on the path")
if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'layoutsel[cluster]'", allow_module_level=True)
if shutil.which("openssl") is None:
    pytest.skip("there is no openssl to make certificates with", allow_module_level=True)
if reason := NODES.why_not():
    pytest.skip(reason, allow_module_level=True)

LAYOUTSEL = Path(sys.executable).with_name("layoutsel")
PIPELINE = ("edge", "srv", "srv", "edge")
TOKEN, OTHER_TOKEN = 32 * "ab", 32 * "cd"


class Lab:
    """Nodes that have joined one cluster, with the files that protect it."""

    def __init__(self, emulation, folder: Path) -> None:
        self.edge, self.srv = emulation.nodes
        self.folder = folder
        self.tls = tls_folder(folder / "tls", [node.address for node in emulation.nodes])
        self.token = folder / "token"
        self.token.write_text(TOKEN)
        self.head = f"{self.edge.address}:6379"
        self.secure = ("--token-file", self.token, "--tls", self.tls)

    def command(self, node, *arguments, limit_s: float = 200):
        """Run ``layoutsel cluster`` on a node; returns the exit code and all that is printed.

        Names of files are those of this lab's folder: the node has another working folder.
        """
        files = (".json", ".npz")
        given = [self.folder / one if str(one).endswith(files) else one for one in arguments]
        done = subprocess.run(
            node.command([LAYOUTSEL, "cluster", *given]),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
        return done.returncode, done.stdout.decode()

    def succeed(self, node, *arguments) -> str:
        code, printed = self.command(node, *arguments)
        assert code == 0, printed
        return printed

    def refused(self, node, *arguments) -> str:
        """Error of a command, which must come within a minute and be a single line."""
        code, printed = self.command(node, *arguments, limit_s=60)
        assert code == 2, printed
        (line,) = [one for one in printed.splitlines() if one.startswith("layoutsel: error: ")]
        return line


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    from cluster.nodes import emulated

    with emulated() as emulation:
        lab = Lab(emulation, tmp_path_factory.mktemp("lab"))
        lab.succeed(
            lab.edge, "join", "edge", "--head", "--own-address", lab.edge.address,
            "--threads", 1, *lab.secure,
        )  # fmt: skip
        lab.succeed(lab.srv, "join", "srv", "--address", lab.head, "--threads", 1, *lab.secure)
        yield lab


@pytest.fixture(scope="module")
def planned(lab):
    """Distributions over both nodes, and the artifact."""
    plan = plan_in_atoms(network())
    file = layoutsel.compile_plan(network(), plan).save(lab.folder / "model.so")
    found = distributions(plan, distribution(plan.stages, {PIPELINE: 1}), ("edge", "srv"))
    found.save(lab.folder / "d.json")
    (lab.folder / "lab.json").write_text(
        json.dumps(json.loads((lab.folder / "d.json").read_text())["topology"])
    )
    return file


def test_a_distribution_runs(lab, planned):
    np.savez(lab.folder / "x.npz", x=image())
    printed = lab.succeed(
        lab.edge, "run", "d.json", "--target", "latency", "--artifact", f"{CLASS}={planned}",
        "--input", "x.npz", "-o", "y.npz", "--trace", "trace.json", *lab.secure,
    )  # fmt: skip
    assert "10 requests in" in printed
    (result,) = np.load(lab.folder / "y.npz").values()
    np.testing.assert_array_equal(result, layoutsel.load(planned)(image()))
    rows = {
        one["args"]["name"]
        for one in json.loads((lab.folder / "trace.json").read_text())["traceEvents"]
        if one["name"] == "thread_name"
    }
    assert {"node edge", "node srv", "link edge → srv", "link srv → edge"} <= rows


def test_links_are_probed(lab, planned):
    printed = lab.succeed(lab.edge, "probe", "lab.json", "-o", "probed.json", *lab.secure)
    assert "srv – edge:" in printed or "edge – srv:" in printed


def test_clear_text_is_refused(lab, planned):
    stats = "stats", "lab.json", "-o", "now.json", "--token-file", lab.token
    assert "give --tls if it has TLS" in lab.refused(lab.edge, *stats)
    join = "join", "other", "--address", lab.head, "--token-file", lab.token
    assert "give --tls if it has TLS" in lab.refused(lab.srv, *join)


def test_another_authority_is_refused(lab, planned):
    own = tls_folder(lab.folder / "other", [lab.edge.address, lab.srv.address])
    join = "join", "other", "--address", lab.head, "--token-file", lab.token
    assert "the certificate of the head" in lab.refused(lab.srv, *join, "--tls", own)
    # It trusts the head's authority, which has not signed its own certificate.
    shutil.copy(lab.tls / "ca.crt", own)
    assert "refuses these files" in lab.refused(lab.srv, *join, "--tls", own)


def test_another_token_is_refused(lab, planned):
    other = lab.folder / "other-token"
    other.write_text(OTHER_TOKEN)
    stats = "stats", "lab.json", "-o", "now.json", "--token-file", other, "--tls", lab.tls
    assert "Expected the same token" in lab.refused(lab.edge, *stats)
