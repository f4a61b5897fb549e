"""TLS is verified: a certificate that nobody trusts ends the call before the key is sent."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from redline.client import Order, open_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ANSWER = b'{"candidates":[{"finishReason":"STOP"}]}'
SUBJECT = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every POST, and remembers the keys that it was shown."""

    protocol_version = "HTTP/1.1"
    keys: list[str | None]

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.keys.append(self.headers["x-goog-api-key"])
        self.send_response(200)
        self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class QuietServer(http.server.ThreadingHTTPServer):
    """Says nothing of clients that break off the handshake."""

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(certificate: Path, key: Path) -> Iterator[tuple[str, list[str | None]]]:
    """Serve over TLS from a thread; give the URL and the keys that were shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    handler = type("Handler", (Handler,), {"keys": []})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://localhost:{server.server_address[1]}", handler.keys
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["fast", "sdk"])
def test_an_unknown_certificate_is_refused_and_a_trusted_one_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_program: Callable[..., str]
) -> None:
    """By both transports; the key is shown to the trusted server alone."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = [require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *SUBJECT]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    statuses = []
    with serving(certificate, key) as (url, shown):
        for trusted in (False, True):
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            transport = open_transport(name, url, time.monotonic, ("k",))
            statuses.append(transport.call(Order("m", "p", timeout_s=20), lambda _: None).answer.status)
            transport.close()
    assert statuses == [0, 200]
    assert shown == ["k"]
