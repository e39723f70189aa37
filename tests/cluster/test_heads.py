"""Heads of clusters that answer, end the connection, or are not there; without Ray."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading

import pytest
from certificates import tls_folder

from layoutsel.cluster.heads import check_head
from layoutsel.cluster.ray_settings import Security
from tvm_passes.errors import LayoutselError

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@contextlib.contextmanager
def server(answer: bytes):
    """Address of a server that gives one client an answer and ends the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


def test_a_head_that_speaks_clear_text_is_accepted():
    with server(SETTINGS) as address:
        check_head(address, Security())


@pytest.mark.parametrize("answer", [b"", b"\x15\x03\x01\x00\x02\x02\x46", b"HTTP/1.1 400 Bad"])
def test_another_answer_is_refused(answer):
    with server(answer) as address, pytest.raises(LayoutselError, match="give --tls if it has TLS"):
        check_head(address, Security())


def test_nothing_at_the_address_is_one_error():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with pytest.raises(LayoutselError, match=f"no cluster at {address}: .*cluster join --head"):
        check_head(address, Security())


def test_a_port_that_is_no_number_is_one_error():
    with pytest.raises(LayoutselError, match=r"no cluster at 127.0.0.1:port: .*HOST:PORT"):
        check_head("127.0.0.1:port", Security())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_files_of_tls_are_needed_in_full(tmp_path):
    """A key that is of another certificate; and a server without TLS."""
    one, other = (tls_folder(tmp_path / name, ["127.0.0.1"]) for name in ("one", "other"))
    with server(SETTINGS) as address, pytest.raises(LayoutselError, match="refuses these files"):
        check_head(address, Security(tls=one))
    shutil.copy(other / "tls.key", one)
    with pytest.raises(LayoutselError, match=r"--tls .*: .*expected ca.crt, tls.crt and its key"):
        check_head("127.0.0.1:1", Security(tls=one))
