"""An agent behind RabbitMQ: it takes payloads from a queue and answers each.

python -m examples.queue_agent amqp://guest:guest@localhost/ summaries
"""

import asyncio
import json
import signal
import sys

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage


def summarise(payload: dict[str, object]) -> tuple[int, object]:
    """The work: a status, as HTTP has them, and the answer."""
    text = payload.get("text")
    if not isinstance(text, str):
        return 422, {"detail": "text: a string is expected"}
    return 200, {"summary": text.partition(".")[0], "words": len(text.split())}


async def serve(url: str, name: str) -> None:
    """Take messages until cancelled; the connection is made anew when it is lost."""
    async with await aio_pika.connect_robust(url) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(name, durable=True)
        await queue.consume(lambda message: answer(channel, message))
        print(json.dumps({"event": "ready", "queue": name}), flush=True)  # noqa: T201 - says so
        await asyncio.Future()


async def answer(channel: AbstractChannel, message: AbstractIncomingMessage) -> None:
    """Do the work of one message, send the answer to where it is waited for, and acknowledge."""
    async with message.process():
        status, body = summarise(json.loads(message.body))
        reply = aio_pika.Message(
            json.dumps(body).encode(),
            content_type="application/json",
            correlation_id=message.correlation_id,
            headers={"status": status},
        )
        # Whoever has stopped waiting needs no answer.
        to = message.reply_to or ""
        await channel.default_exchange.publish(reply, to, mandatory=False)


async def main(url: str, name: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    serving = asyncio.create_task(serve(url, name))
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, serving.cancel)
    await asyncio.gather(serving, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
