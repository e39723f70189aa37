"""Export networks of timm, transformers and torchvision without weights, as the graphs of ``zoo:``.

``pip install -e '.[zoo]'``, then ``python bench/zoo_export FOLDER [NAME …]`` (without names: all).
Nothing is downloaded. FOLDER keeps the single graphs; those that it already has are not exported again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
import lzma
import math
import signal
import tarfile
from pathlib import Path

import onnx
from export_one import EXPORTER, export
from networks import LICENCES, NETWORKS

from layoutsel import documents
from layoutsel.zoo import recorded
from layoutsel.zoo.recorded.filling import is_declared

MOST_ELEMENTS = 120_000_000
"""Maximum number of elements of a network's weights."""


def weights(model: onnx.ModelProto) -> int:
    """Number of elements of the declared weights."""
    return sum(math.prod(one.dims) for one in model.graph.initializer if is_declared(one))


def pack(folder: Path) -> None:
    """Write the archive and the table of the graphs in `folder`."""
    graphs: dict[str, bytes] = {}
    networks = []
    for name, recipe in NETWORKS.items():
        files = {size: folder / f"{name}@{size}.onnx" for size in recipe.sizes}
        files = {size: file for size, file in files.items() if file.exists()}
        if not files:
            continue
        model = onnx.load(next(iter(files.values())), load_external_data=False)
        if weights(model) > MOST_ELEMENTS:
            print(f"left out {name}: {weights(model):,} elements")
            continue
        graphs |= {file.name: file.read_bytes() for file in files.values()}
        networks.append(
            recorded.RecordedNetwork(
                name=name,
                families=recipe.families,
                package=recipe.package,
                source=recipe.source,
                exporter=next(one.value for one in model.metadata_props if one.key == EXPORTER),
                size_of=recipe.size_of,
                sizes=tuple(files),
                weights=weights(model),
            )
        )
    with (
        lzma.open(recorded.GRAPHS, "wb", preset=9 | lzma.PRESET_EXTREME) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data in graphs.items():
            member = tarfile.TarInfo(name)  # without owner and date: equal graphs, equal bytes
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    packages = {
        name: recorded.SourcePackage(version=importlib.metadata.version(name), licence=licence)
        for name, licence in LICENCES.items()
    }
    table = recorded.RecordedTable(
        schema_version=recorded.SCHEMA_VERSION, packages=packages, networks=tuple(networks)
    )
    documents.save(table, recorded.TABLE)
    print(
        f"{len(networks)} networks, {len(graphs)} graphs, {recorded.GRAPHS.stat().st_size:,} bytes"
    )


def _alarm(_number: int, _frame: object) -> None:
    raise TimeoutError("the time limit is over")


def main() -> None:
    """Export what is missing, then pack everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    arguments.folder.mkdir(exist_ok=True)
    signal.signal(signal.SIGALRM, _alarm)
    for name in arguments.names or NETWORKS:
        for size in NETWORKS[name].sizes:
            file = arguments.folder / f"{name}@{size}.onnx"
            if file.exists():
                continue
            try:
                file.write_bytes(export(name, size).SerializeToString(deterministic=True))
            except Exception as error:
                print(name, size, "FAILED", type(error).__name__, error, flush=True)
            else:
                print(name, size, "exported", flush=True)
    pack(arguments.folder)


if __name__ == "__main__":
    main()
