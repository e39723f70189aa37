"""Libraries and permissions that the code of a unit needs in a process."""

from __future__ import annotations

from tvm_passes.backends import known_backend, own_backends

# Entries are found by name: imported here, they are packed with the runner for devices.
own_backends()


def missing(unit: str) -> str | None:
    """Load the libraries that the code of a unit calls; the reason of a failure, or None."""
    backend = known_backend(unit)
    if backend is None:
        return (
            "no installed package has it (entry-point group layoutsel.units); install the one that "
            "the model was compiled with"
        )
    return backend.missing()


def is_packable(unit: str) -> bool:
    """True for a unit whose library `layoutsel runtime` packs on request."""
    backend = known_backend(unit)
    return backend is not None and bool(backend.package)


def identity(kind: str, index: int) -> str:
    """Hardware and driver of a device, which measurements depend on, by the kind of its target."""
    backend = known_backend(kind)
    return backend.identity(index) if backend else ""
