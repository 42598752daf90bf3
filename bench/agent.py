"""An agent in a process of its own that answers at once and writes down when each call arrived.

The first line on stdout is its URL, each further one the time of a call by the monotonic clock,
which all processes of a machine share.
"""

import asyncio
import sys
import time

from aiohttp import web


async def _work(_: web.Request) -> web.Response:
    print(time.monotonic_ns(), flush=True)
    return web.json_response({})


async def _health(_: web.Request) -> web.Response:
    return web.json_response({})


async def serve() -> None:
    """Serve until stdin closes."""
    app = web.Application()
    app.router.add_post("/work", _work)
    app.router.add_get("/health", _health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
