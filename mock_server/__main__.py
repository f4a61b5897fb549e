"""Run the mock: ``python -m mock_server --profile demo --port 0``.

The first line on stdout is ``mock_server listening on http://HOST:PORT``: its last word is the address. SIGINT and
SIGTERM stop it within about a second, with exit code 0. With ``--parent PID`` it also ends, within a second, when
that process is no longer its parent.
"""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from mock_server.options import Options
from mock_server.profile import ProfileError, bundled
from mock_server.serving import MAX_PORT, ListenError, run
from mock_server.tiers import TIERS


def main(argv: list[str] | None = None) -> int:
    """Parse, serve until told to stop, and return the exit code (2: wrong usage)."""
    options = Options(**vars(_parser().parse_args(argv)))
    try:
        run(options)
    except (ProfileError, ListenError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m mock_server", description="A Gemini look-alike with rate limits.")
    default = Options()
    parser.add_argument("--profile", default=default.profile, help=f"{', '.join(bundled())}, or a .toml file")
    parser.add_argument("--tier", default="", help=f"{', '.join(TIERS)}: with --model, what is known of a real one")
    parser.add_argument("--model", default="", help="a model of that tier")
    parser.add_argument("--host", default=default.host, help="address to listen on (default: loopback only)")
    parser.add_argument("--port", type=_port, default=default.port, help=f"0: a free one (default: {default.port})")
    parser.add_argument("--seed", type=int, default=default.seed, help="fixes every draw (default: 0)")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process is no longer the parent")
    parser.add_argument("--tls-cert", metavar="FILE", default="", help="PEM certificate: serve https and wss")
    parser.add_argument("--tls-key", metavar="FILE", default="", help="PEM key of the certificate")
    parser.add_argument("--admin-token", metavar="TOKEN", default="", help="answer under /__mock__/ to who has it")
    parser.add_argument("--metrics", action="store_true", help="answer on /metrics, for Prometheus")
    parser.add_argument("--access-log", metavar="FILE", default="", help="append a line a call, as JSON")
    parser.add_argument("--workers", type=_count, default=1, help="processes behind the port (default: 1)")
    parser.add_argument("--redis", metavar="URL", default="", help="where several workers keep their counters")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--prefix", default="", help=argparse.SUPPRESS)
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a number of processes, at least 1, not {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"must be a port from 0 to {MAX_PORT}, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
