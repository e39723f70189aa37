"""Check of a cluster's head before Ray connects: Ray waits without end for one that it cannot read.

Ray speaks HTTP/2, in clear text or within TLS.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from layoutsel.cluster.ray_settings import PORT, Security
from tvm_passes.errors import LayoutselError

LIMIT_S = 20.0
"""Time limit of each step, seconds."""
_FRAME = 9
"""Size of the header of a frame of HTTP/2, bytes."""
_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
"""Frame of settings without any: the first one of both ends."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _SETTINGS
"""First bytes of a client (RFC 9113, section 3.4)."""


def check_head(address: str, security: Security) -> None:
    """Connect to the head of a cluster as Ray would.

    Parameters
    ----------
    address
        Address with the port.
    security
        Protection of the cluster.

    Raises
    ------
    LayoutselError
        If nothing answers there, or its encryption is another one.
    """
    try:
        with _stream(address, security) as stream:
            stream.sendall(_PREFACE)
            answer = stream.recv(_FRAME)
    except ssl.SSLCertVerificationError as error:
        raise LayoutselError(
            f"--tls {security.tls}: the certificate of the head at {address} is refused: "
            f"{error.verify_message}; expected one that ca.crt signs, with all addresses of the "
            f"nodes as alternative names"
        ) from error
    except ssl.SSLError as error:
        raise LayoutselError(_refusal(address, security, str(error.reason))) from error
    except OSError as error:
        raise LayoutselError(
            f"no cluster at {address}: {error.strerror or error}. Start one with 'layoutsel "
            f"cluster join --head'"
        ) from error
    except ValueError as error:
        raise LayoutselError(f"no cluster at {address}: {error}; expected HOST:PORT") from error
    if answer[3:4] != _SETTINGS[3:4]:
        raise LayoutselError(_refusal(address, security, f"its answer is {answer!r}"))


def _refusal(address: str, security: Security, why: str) -> str:
    """Message for a head that does not speak with this client."""
    if security.tls is None:
        return f"the head at {address} speaks no clear text ({why}): give --tls if it has TLS"
    return (
        f"--tls {security.tls}: the head at {address} refuses these files ({why}); expected the "
        f"same ca.crt there, and a certificate that it signs here"
    )


@contextlib.contextmanager
def _stream(address: str, security: Security) -> Iterator[socket.socket]:
    host, _, port = address.rpartition(":")
    place = (host.strip("[]") or address, int(port) if host else PORT)
    context = None if security.tls is None else _context(security.tls)
    with socket.create_connection(place, LIMIT_S) as plain:
        if context is None:
            yield plain
            return
        with context.wrap_socket(plain, server_hostname=place[0]) as stream:
            yield stream


def _context(folder: Path) -> ssl.SSLContext:
    """Settings of TLS from a folder's files."""
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    except ssl.SSLError as error:
        raise LayoutselError(
            f"--tls {folder}: {error.reason or error}; expected ca.crt, tls.crt and its key tls.key"
        ) from error
    context.set_alpn_protocols(["h2"])
    return context
