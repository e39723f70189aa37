"""Settings of Ray: performance, failure detection and security, as environment and options."""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tvm_passes.errors import LayoutselError

PORT = 6379
"""Port of the head."""
RESOURCE = "layoutsel:"
"""Start of the name of the resource that marks a node of a topology."""
TUNING: Mapping[str, str] = {
    # Ray lowers the priority of its workers by default, and ours are the node's purpose.
    "RAY_worker_niceness": "0",
    # A spilled tensor is slower than an error that names the node.
    "RAY_automatic_object_spilling_enabled": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables of every process of Ray."""
MOST_INLINE = 4 << 20
"""Largest tensor of the origin that goes with a call, bytes.

Ray's object stores would cost both ends more processor time.
"""
DRIVER: Mapping[str, str] = {"RAY_max_direct_call_object_size": str(MOST_INLINE + (1 << 16))}
"""Variables of the driver alone: results of nodes stay where they are made."""
TLS_FILES: Mapping[str, str] = {
    "RAY_TLS_SERVER_CERT": "tls.crt",
    "RAY_TLS_SERVER_KEY": "tls.key",
    "RAY_TLS_CA_CERT": "ca.crt",
}
"""Files of a TLS folder by variable."""


@dataclass(frozen=True, kw_only=True)
class Security:
    """Protection of a cluster. Whoever reaches an unprotected one can run any code on its nodes."""

    token_file: Path | None = None
    """File with the token that all nodes share; None without."""
    tls: Path | None = None
    """Folder with ``tls.crt``, ``tls.key`` and ``ca.crt``; None for connections in clear text."""
    is_insecure: bool = False
    """True to accept addresses other than loopback without a token."""

    def check(self, *addresses: str) -> None:
        """Reject addresses that need a token, and files that are missing.

        Raises
        ------
        LayoutselError
            If a file is missing, or an address is not loopback and there is no token.
        """
        if self.token_file is not None and not _is_filled(self.token_file):
            raise LayoutselError(
                f"--token-file {self.token_file}: got no file with a token; make one with "
                f"'python -c \"import secrets; print(secrets.token_hex(32))\"', the same on all "
                f"nodes"
            )
        for name in TLS_FILES.values() if self.tls is not None else ():
            assert self.tls is not None
            if not (self.tls / name).is_file():
                expected = ", ".join(TLS_FILES.values())
                raise LayoutselError(f"--tls {self.tls}: {name} is missing; expected {expected}")
        open_ = [address for address in addresses if not is_loopback(address)]
        if open_ and self.token_file is None and not self.is_insecure:
            raise LayoutselError(
                f"{open_[0]} can be reached from other machines, and Ray runs any code for all who "
                f"reach it: give a token with --token-file, or --insecure in a closed network"
            )

    def environment(self) -> dict[str, str]:
        """Variables for Ray's processes."""
        found = {"RAY_AUTH_MODE": "disabled" if self.token_file is None else "token"}
        if self.token_file is not None:
            found["RAY_AUTH_TOKEN_PATH"] = str(self.token_file.resolve())
        if self.tls is not None:
            found["RAY_USE_TLS"] = "1"
            found |= {key: str((self.tls / name).resolve()) for key, name in TLS_FILES.items()}
        return found


def is_loopback(address: str) -> bool:
    """True for an address, with or without a port, that only this machine reaches."""
    for host in (address, address.rpartition(":")[0].strip("[]")):
        if host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
    return False


def environment(security: Security, others: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of ``ray start`` and of a driver: `others`, or this process's, with settings."""
    return {**(os.environ if others is None else others), **TUNING, **security.environment()}


def _is_filled(file: Path) -> bool:
    try:
        return bool(file.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return False
