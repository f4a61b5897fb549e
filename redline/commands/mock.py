"""`redline mock`: serve the bundled mock in this process until it is told to stop. Loads no Locust."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mock_server.options import Options
from mock_server.profile import ProfileError, bundled, load
from mock_server.tiers import TIERS, models
from redline.errors import UsageError


def mock(  # noqa: PLR0913 - each is an option of the command
    *,
    profile: Annotated[str, typer.Option(help="Name of a bundled profile, or a .toml file.")] = "demo",
    tier: Annotated[str, typer.Option(help=f"{', '.join(TIERS)}: with --model, what is known of a real one.")] = "",
    model: Annotated[str, typer.Option(help="A model of that tier.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; loopback only unless set.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8899,
    seed: Annotated[int, typer.Option(help="Fixes latency, lengths, faults and random refusals.")] = 0,
    tls_cert: Annotated[str, typer.Option(help="PEM certificate: serve https and wss.")] = "",
    tls_key: Annotated[str, typer.Option(help="PEM key of the certificate.")] = "",
    admin_token: Annotated[str, typer.Option(help="Answer under /__mock__/ to who has this token.")] = "",
    metrics: Annotated[bool, typer.Option("--metrics", help="Answer on /metrics, for Prometheus.")] = False,
    access_log: Annotated[str, typer.Option(help="Append a line a call to this file; redline analyze reads it.")] = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes behind the port; more than one need --redis.")] = 1,
    redis: Annotated[str, typer.Option(help="URL of the Redis where several workers keep their counters.")] = "",
    list_: Annotated[bool, typer.Option("--list", help="Show the profiles, tiers and models, and end.")] = False,
) -> None:
    """Serve a Gemini look-alike that enforces the limits of a profile. Prints the address that it listens on."""
    if list_:
        _show_profiles()
        return
    from mock_server.serving import ListenError, run  # noqa: PLC0415 - a server's imports, not for --list

    options = Options(
        profile=profile,
        tier=tier,
        model=model,
        host=host,
        port=port,
        seed=seed,
        tls_cert=tls_cert,
        tls_key=tls_key,
        admin_token=admin_token,
        metrics=metrics,
        access_log=access_log,
        workers=workers,
        redis=redis,
    )
    try:
        run(options)
    except (ProfileError, ListenError) as error:
        raise UsageError(str(error).replace("profile ", "--profile ", 1)) from None


def _show_profiles() -> None:
    names = bundled()
    width = max(map(len, names)) + 2
    sys.stdout.write("--profile\n")
    for name in names:
        sys.stdout.write(f"  {name:{width}}{load(name).description}\n")
    for tier in TIERS:
        sys.stdout.write(f"\n--tier {tier} --model\n")
        sys.stdout.writelines(f"  {model}\n" for model in models(tier))
