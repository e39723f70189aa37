"""A machine's log of measurements, for training cost models on many machines.

The log holds standard networks and sweeps alone, in the same order on every machine. It contains
nothing of a user's own networks, and describes the machine without naming it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import platformdirs

from layoutsel.compile.measuring import cost_model
from layoutsel.compile.offers import Offers
from layoutsel.compile.options import OnProgress
from layoutsel.compile.recording import recorded_model
from layoutsel.compile.session import Session
from layoutsel.core.files import check_output
from layoutsel.core.precision import F32
from layoutsel.cost.archive import write_archive
from layoutsel.cost.logs import read_logs
from layoutsel.cost.samples import BoundarySample, Dataset, RecordedModel, Sample
from layoutsel.cost.store import Context
from layoutsel.device.machine import this_machine
from layoutsel.device.threads import available_threads
from layoutsel.zoo.sweep import sweep_module
from tvm_passes.errors import LayoutselError

_ROUNDS = (
    ("light:resnet50", "shufflenet_v2_x1_0", "regnetx_004", "deit_tiny", "hgnetv2_b0"),
    ("arch:mobilenet_v2", "bert_mini", "repvit_m0_9", "dla34", "efficientformer_l1"),
    (
        "arch:vit_small_16",
        "mobilenetv4_conv_small",
        "resnest14d",
        "segformer_b0",
        "t5_small_encoder",
    ),
    ("light:squeezenet", "starnet_s1", "pvt_v2_b0", "densenetblur121d", "gmlp_ti16"),
    ("arch:efficientnet_b0", "selecsls42b", "edgenext_xx_small", "pythia_14m", "hrnet_w18_small"),
    ("light:inception_v1", "cspresnet50", "fasternet_t0", "xcit_nano_12", "unet_resnet34"),
    ("arch:convnext_tiny", "mixnet_s", "tiny_vit_5m", "rexnet_100", "dpn48b"),
    (
        "arch:yolo_tiny",
        "mobileone_s0",
        "convnextv2_atto",
        "whisper_tiny_encoder",
        "ssdlite_mobilenet",
    ),
)
"""Networks of a contribution, in order: one in all precisions, then some of the zoo in f32."""
_BEST = 4
"""Number of candidates of each sub-graph and precision that are measured, and one other."""
_SWEEP_PART = 40
"""Number of random sub-graphs of a round; all of their candidates are measured."""


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """Result of a contribution."""

    file: Path
    """Written data set."""
    samples: int
    """Number of measured candidates in the file."""
    models: tuple[str, ...]
    """Names of the networks that were measured completely."""
    seconds: float
    """Duration, seconds."""


def contribute(
    file: Path,
    *,
    budget_s: float,
    threads: int | None = None,
    precision: str = "auto",
    cache: Path | None = None,
    progress: OnProgress | None = None,
) -> Contribution:
    """Measure standard sub-graphs until the budget is spent, and write this machine's data set.

    A second call continues where the first one ended. Earlier measurements in the file stay, unless
    they were made again.

    Parameters
    ----------
    file
        Data set to write, ``.jsonl.xz``; in a folder, it is named after the machine.
    budget_s
        Time limit for measuring, seconds; opening the models adds some seconds each.
    threads
        Number of threads; by default all cores of this process.
    precision
        Mode whose precisions are measured; by default all of them.
    cache
        File of measurements; by default one for contributions alone, in the user's cache folder.
    progress
        Called after every measurement.

    Raises
    ------
    LayoutselError
        If nothing was measured within the budget, or the file cannot be written or is not a log.
    """
    threads = threads or available_threads()
    if file.is_dir():
        file = file / f"measurements-{this_machine().fingerprint}-{threads}.jsonl.xz"
    check_output(file)
    earlier = read_logs([file])[0] if file.exists() else Dataset()
    cache = cache or Path(platformdirs.user_cache_dir("layoutsel")) / "contribution.sqlite"
    started = time.monotonic()
    deadline, recorded = started + budget_s, list[RecordedModel]()
    for source in _sources():
        is_network = isinstance(source, str)
        session = Session.open(
            source,
            precision=F32 if is_network and source.startswith("zoo:") else precision,
            threads=threads,
            cache=cache,
            progress=progress,
        )
        offers = Offers.of(session)
        best = _BEST if is_network else None
        with cost_model(offers, "measured", deadline=deadline, best=best):
            pass
        if time.monotonic() >= deadline:
            break
        if is_network:
            recorded.append(recorded_model(offers))
    dataset, _ = read_logs([cache])
    is_mine = partial(_is_of, session.context)
    samples = tuple(filter(is_mine, dataset.samples))
    if not samples:
        raise LayoutselError(f"nothing was measured in {budget_s:g} s; allow more time")
    boundaries = tuple(filter(is_mine, dataset.boundaries))
    found = Dataset(samples=samples, boundaries=boundaries, models=tuple(recorded))
    joined = _joined(earlier, found)
    write_archive(joined, file)
    return Contribution(
        file=file,
        samples=len(joined.samples),
        models=tuple(model.name for model in recorded),
        seconds=time.monotonic() - started,
    )


def _joined(earlier: Dataset, found: Dataset) -> Dataset:
    """Join two data sets; what was measured again is replaced."""
    candidates, models = set(map(_candidate, found.samples)), set(map(_named, found.models))
    steps = set(map(_step, found.boundaries))
    rest = Dataset(
        samples=tuple(s for s in earlier.samples if _candidate(s) not in candidates),
        boundaries=tuple(b for b in earlier.boundaries if _step(b) not in steps),
        models=tuple(m for m in earlier.models if _named(m) not in models),
    )
    return rest + found


def _candidate(sample: Sample) -> tuple[Any, ...]:
    return sample.provenance.profile.name, sample.workload.key, sample.decision


def _step(boundary: BoundarySample) -> tuple[Any, ...]:
    ends = boundary.source, boundary.destination
    return boundary.provenance.profile.name, boundary.kind, *ends, boundary.tensor


def _named(model: RecordedModel) -> tuple[str, str]:
    return model.machine, model.name


def _is_of(context: Context, sample: Sample | BoundarySample) -> bool:
    """True if a sample is of this machine, and of the versions in use."""
    profile, versions = sample.provenance.profile, json.dumps(dict(sample.provenance.versions))
    where = profile.machine.fingerprint, profile.peaks.threads
    return where == (context.machine, context.threads) and not context.changes(versions)


def _sources() -> Iterator[Any]:
    for number, (network, *others) in enumerate(_ROUNDS):
        yield sweep_module(_SWEEP_PART, seed=number)
        yield network
        yield from (f"zoo:{name}" for name in others)
