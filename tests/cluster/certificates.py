"""Certificates for a cluster of a test: an authority of its own, and one certificate for all nodes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
"""Options of ``openssl req`` for a new key without a password."""


def tls_folder(folder: Path, addresses: Sequence[str]) -> Path:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key`` for nodes at the addresses."""
    folder.mkdir()
    names = ",".join(["DNS:localhost", *(f"IP:{one}" for one in ("127.0.0.1", *addresses))])
    (folder / "names").write_text(f"subjectAltName={names}\n")
    for command in (
        ["req", "-x509", *KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority"],
        ["req", *KEY, "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=node"],
        ["x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
         "-out", "tls.crt", "-days", "2", "-extfile", "names"],
    ):  # fmt: skip
        subprocess.run(
            ["openssl", *command], cwd=folder, check=True, capture_output=True, timeout=60
        )
    return folder
