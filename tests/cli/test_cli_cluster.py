"""``layoutsel cluster plan``, ``explain`` and ``simulate``, run as a user does."""

import json

import pytest
from command import layoutsel, refused, succeed
from test_cli_machine import MACHINE

from layoutsel import cluster
from layoutsel.cli.cluster import parse_limit, parse_targets
from layoutsel.cluster.metrics import METRICS
from tvm_passes.errors import LayoutselError

LAB = {
    "directed": False,
    "multigraph": False,
    "graph": {"schema_version": 1, "origin": "edge0"},
    "nodes": [
        {"id": "edge0", "threads": 2, "power_w": {"idle": 2.0, "busy": 8.0}},
        {"id": "edge1", "threads": 2, "power_w": {"idle": 2.0, "busy": 8.0}},
        {"id": "srv", "machine": "fast.json", "power_w": {"idle": 50.0, "busy": 200.0}},
        {"id": "sw", "kind": "switch"},
    ],
    "links": [
        {"source": "edge0", "target": "sw", "gbps": 1.0, "rtt_us": 100.0},
        {"source": "edge1", "target": "sw", "gbps": 1.0, "rtt_us": 100.0},
        {"source": "srv", "target": "sw", "gbps": 10.0, "rtt_us": 50.0},
    ],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    machine = {**MACHINE, "peaks": {**MACHINE["peaks"], "gflops": 2000.0}}
    (folder / "fast.json").write_text(json.dumps(machine))
    (folder / "lab.json").write_text(json.dumps(LAB))
    return folder / "lab.json"


@pytest.fixture(scope="module")
def planned(model, lab, tmp_path_factory):
    """Distributions of the small model, written by a process of its own."""
    file = tmp_path_factory.mktemp("planned") / "d.json"
    targets = [part for name in METRICS for part in ("--target", name)]
    text = succeed("cluster", "plan", model, "--topology", lab, *targets, "-o", file, run=layoutsel)
    return file, text


def test_one_distribution_is_made_for_each_target(planned):
    file, text = planned
    made = cluster.Distributions.load(file)
    assert [one.target.name for one in made.distributions] == list(METRICS)
    assert made.classes == {"edge0": "here-2t", "edge1": "here-2t", "srv": "fast"}
    assert all(name in text for name in (*METRICS, "bound", "edge1", str(file)))
    for plan in made.plans.values():
        assert plan.model_hash == made.model_hash
        assert tuple(plan.held_by_stages) == tuple(made.graph.atoms)
        assert plan.decisions.keys() == {i for ids in made.graph.atoms.values() for i in ids}


def test_atoms_take_the_times_of_their_plans(planned):
    made = cluster.Distributions.load(planned[0])
    for name, plan in made.plans.items():
        subgraphs = sum(one.cost_us for one in plan.subgraphs)
        total = sum(made.costs[name].us.values())
        assert total >= plan.cost_us * (1 - 1e-6)  # transforms are not shared between stages
        assert total - subgraphs <= 2 * (plan.cost_us - subgraphs) + 1e-6


def test_an_explanation_says_who_runs_what_and_what_else_would_cost(planned, tmp_path):
    file, _ = planned
    graph = tmp_path / "d.dot"
    text = succeed("cluster", "explain", file, "--dot", graph, run=layoutsel)
    for part in ("segment", "elsewhere", "nothing has less than", "without edge1", "route 1"):
        assert part in text
    assert graph.read_text().startswith("digraph")
    one = succeed("cluster", "explain", file, "--target", "memory")
    assert "route 1" in one
    assert json.loads(succeed("cluster", "explain", file, "--json"))["schema_version"] == 1


def test_limits_are_kept(model, lab, tmp_path):
    file = tmp_path / "d.json"
    limits = ("--limit", "memory=100MB", "--limit", "latency=10s")
    succeed(
        "cluster", "plan", model, "--topology", lab, "--target", "throughput", *limits,
        "--no-spares", "--time-limit", "2s", "-o", file,
    )  # fmt: skip
    (one,) = cluster.Distributions.load(file).distributions
    assert one.target.limits == {"memory": 1e8, "latency": 1e7}
    assert one.without == {}


def test_statistics_change_the_plan_and_the_python_api_agrees(model, lab, tmp_path):
    now = tmp_path / "now.json"
    now.write_text(json.dumps({"schema_version": 1, "nodes": {"srv": {"others_busy": 0.95}}}))
    idle = cluster.distribute(model, lab, targets=["energy"], spares=False)
    busy = cluster.distribute(
        model, cluster.Topology.load(lab), now, ["energy"], folder=lab.parent, spares=False
    )
    names = (one["energy"].metrics["energy"].predicted for one in (idle, busy))
    before, after = names
    assert before <= after
    again = cluster.redistribute(idle, busy.statistics, spares=False)
    assert again["energy"].metrics["energy"].predicted == pytest.approx(after)


BAD = [
    (("--topology", "no.json"), "no such file"),
    (("--target", "speed"), "--target speed: expected one of latency, throughput"),
    (("--target", "latency", "--target", "latency"), "got it twice"),
    (("--limit", "latency=50"), "--limit latency=50: expected a metric and a number above 0 in us"),
    (("--limit", "memory=1B"), "does not fit"),
    (
        ("--target", "energy", "--limit", "latency=1us"),
        "keeps the limits: latency of at most 0.001 ms",
    ),
    (("--statistics", "no.json"), "no such file"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input_is_one_error(model, tmp_path, options, message):
    alike = {"nodes": [*LAB["nodes"][:2], LAB["nodes"][3]], "links": LAB["links"][:2]}
    (tmp_path / "lab.json").write_text(json.dumps(LAB | alike))
    options = (
        options if options[0] == "--topology" else ("--topology", tmp_path / "lab.json", *options)
    )
    assert message in refused("cluster", "plan", model, *options)


def test_a_bad_machine_file_is_named_with_its_nodes(model, lab, tmp_path):
    document = json.loads(json.dumps(LAB))
    document["nodes"][2]["machine"] = "missing.json"
    (tmp_path / "lab.json").write_text(json.dumps(document))
    message = refused("cluster", "plan", model, "--topology", tmp_path / "lab.json")
    assert "planning for srv" in message
    assert "missing.json" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency=50ms", ("latency", 5e4)),
        ("throughput=20/s", ("throughput", 20.0)),
        ("energy=5mJ", ("energy", 5e-3)),
        ("memory=1.5GB", ("memory", 1.5e9)),
    ],
)
def test_limits_have_units(text, expected):
    assert parse_limit(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["latency", "latency=5GB", "latency=-1ms", "x=1s", "latency=1e999s"]
)
def test_other_limits_are_refused(text):
    with pytest.raises(LayoutselError, match="expected a metric and a number above 0"):
        parse_limit(text)


def test_a_limit_does_not_concern_its_own_target():
    one, other = parse_targets(["latency", "throughput"], ["latency=50ms"])
    assert (one.limits, other.limits) == ({}, {"latency": 5e4})


def test_a_front_is_a_file_of_distributions(planned, tmp_path):
    file, _ = planned
    front = tmp_path / "front.json"
    targets = ["--target", "latency", "--target", "energy"]
    options = ["--points", 3, "--time-limit", "1s", "-o", front]
    text = succeed("cluster", "pareto", file, *targets, *options)
    made = cluster.Distributions.load(front)
    assert 1 <= len(made.distributions) <= 4
    assert made.distributions[0].target.label in text
    for one in made.distributions:
        assert made[one.target.label].routes
    assert "expected two different ones" in refused("cluster", "pareto", file, *targets[:2])


def test_a_simulation_agrees_with_the_prediction_of_one_request(planned, tmp_path):
    file, _ = planned
    text = succeed(
        "cluster", "simulate", file, "--target", "latency", "--requests", "50",
        "--svg", tmp_path / "gantt.svg", "-o", tmp_path / "told.json",
    )  # fmt: skip
    assert "latency, median" in text
    assert (tmp_path / "gantt.svg").read_text().startswith("<svg")
    metrics = cluster.Distributions.load(tmp_path / "told.json")["latency"].metrics
    # Segments end where others wait, so that the branches of small networks may differ a little.
    assert metrics["latency"].simulated == pytest.approx(metrics["latency"].predicted, rel=0.05)
    assert metrics["energy"].simulated == pytest.approx(metrics["energy"].predicted, rel=0.05)
    assert metrics["throughput"].simulated is None


def test_a_simulated_loss_is_survived(planned):
    file, _ = planned
    used = cluster.Distributions.load(file)["throughput"].nodes
    lost = next(node for node in used if node != "edge0")
    options = ["--kill", f"{lost}@1s", "--join", f"{lost}@3s", "--json"]
    load = ["--target", "throughput", "--rate", "200", "--requests", "1000"]
    found = json.loads(succeed("cluster", "simulate", file, *load, *options))
    assert found["requests"] == 1000
    assert found["lost"] == 0
    assert found["p50_us"] <= found["p99_us"]
    assert lost in found["utilisation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kill", "edge9@1s"], "cannot lose node 'edge9': expected a node other than the origin"),
        (["--kill", "edge0@1s"], "cannot lose node 'edge0'"),
        (["--kill", "srv"], "--kill srv: expected a node and a time, such as srv@30s"),
        (["--target", "speed"], "no distribution for the target 'speed'"),
        (["--rate", "-1"], "rate: got -1 Hz; expected a positive rate"),
        (["--requests", "0"], "requests: got 0; expected at least 1"),
        (["--in-flight", "0"], "requests in flight: got 0; expected at least 1"),
    ],
)
def test_what_cannot_be_simulated_is_refused(planned, options, message):
    assert message in refused("cluster", "simulate", planned[0], *options)


def test_what_is_compiled_runs_on_this_machines_nodes(model, lab, planned, tmp_path):
    file, _ = planned
    parts = tmp_path / "parts"
    text = succeed("cluster", "compile", model, file, "-o", parts, "--machines", lab.parent)
    assert {one.name for one in parts.iterdir()} == {"fast.so", "here-2t.so"}
    assert "fast.so: nodes srv" in text
    here = tmp_path / "here.json"
    document = json.loads(json.dumps(LAB))
    document["nodes"] = [one for one in document["nodes"] if one["id"] != "srv"]
    document["links"] = document["links"][:2]
    (tmp_path / "two.json").write_text(json.dumps(document))
    options = ["--topology", tmp_path / "two.json", "--target", "memory", "-o", here]
    succeed("cluster", "plan", model, *options)
    run = ["--target", "memory", "--artifact", parts, "--engine", "local", "--repeat", 3]
    succeed("cluster", "run", here, *run)


def test_another_model_is_not_compiled(planned, tmp_path):
    file, _ = planned
    message = refused("cluster", "compile", "light:squeezenet", file, "-o", tmp_path / "parts")
    assert "expected" in message
