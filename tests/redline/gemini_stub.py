"""A tiny Gemini look-alike for tests of the sender: answers after a while, refuses beyond a limit a second.

Run as a script; it prints its address. The options shape the answers: ``--refuse-above N`` calls in each window of one
second, ``--latency-s``, ``--status`` for all answers, ``--text`` for a body that is no JSON, ``--cut`` to break
off in the middle of one.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from aiohttp import web

REFUSAL = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota.\nPlease retry in 1.5s.",
        "status": "RESOURCE_EXHAUSTED",
    }
}


def application(options: argparse.Namespace) -> web.Application:
    """Build the app; its state is the count of calls in the present second."""
    window = {"second": 0, "used": 0}

    async def answer(request: web.Request) -> web.Response:
        sent = await request.json()
        if request.path.endswith(":countTokens"):
            return web.json_response({"totalTokens": 2 * len(sent["contents"][0]["parts"][0]["text"].split())})
        if request.headers.get("x-goog-api-key") == "wrong":
            return web.json_response({"error": {"code": 400, "message": "API key not valid."}}, status=400)
        if options.status != 200:
            return web.json_response({"error": {"code": options.status, "message": "no"}}, status=options.status)
        second = int(time.monotonic())
        if second != window["second"]:
            window.update(second=second, used=0)
        window["used"] += 1
        if window["used"] > options.refuse_above:
            return web.json_response(REFUSAL, status=429)
        await asyncio.sleep(options.latency_s)
        if options.text:
            return web.Response(text=options.text)
        if options.cut and request.transport is not None:
            request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{")
            request.transport.close()
        words = len(sent["contents"][0]["parts"][0]["text"].split())
        usage = {"promptTokenCount": words, "candidatesTokenCount": 1, "totalTokenCount": words + 1}
        return web.json_response({"candidates": [{"finishReason": "MAX_TOKENS"}], "usageMetadata": usage})

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    return app


async def serve(options: argparse.Namespace) -> None:
    """Serve on a free port until killed."""
    runner = web.AppRunner(application(options), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)  # noqa: T201 - how the test learns the port
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--refuse-above", type=int, default=10**9)
    parser.add_argument("--latency-s", type=float, default=0.0)
    parser.add_argument("--status", type=int, default=200)
    parser.add_argument("--text", default="")
    parser.add_argument("--cut", action="store_true")
    asyncio.run(serve(parser.parse_args()))
