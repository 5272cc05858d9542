"""What `sdq submit` does once its flags are understood: hand in, print the job ids."""

import sys
from contextlib import aclosing

import msgspec

from sdq.cli.order import Order
from sdq.cli.output import Sink, as_pictures, print_data
from sdq.cli.prompts import prompts_of
from sdq.cli.receiving import Tally
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.errors import ConnectionFailed, SdqError
from sdq.protocol.job_messages import PlannedPicture
from sdq.protocol.messages import Origin


async def hand_in(server: str, order: Order, sink: Sink) -> int:
    """Hands in one prompt, or each line of standard input; the exit code.

    One after the other, so that the ids come in the order of the prompts. Raises
    `ConnectionFailed`; what was printed by then is safe.
    """
    counts = _Counts()
    try:
        async with connect(server, reconnect_seconds=0) as client:
            if order.prompt is None and sys.stdin.isatty():
                sink.say("one prompt a line, Ctrl-D ends")
            async with aclosing(prompts_of(order.prompt, order.expansion)) as prompts:
                async for about, prompt in prompts:
                    await _hand_in_one(client, order, prompt, about, sink, counts)
            if order.expansion.hint:
                sink.say(order.expansion.hint)
    finally:
        counts.say(sink)
    return counts.tally.exit_code


class _Counts:
    def __init__(self) -> None:
        self.tally = Tally()
        self.hits = 0

    def say(self, sink: Sink) -> None:
        if not self.tally.written:
            return
        if self.tally.written == 1:
            in_library = ", it was in the library already" if self.hits else ""
        else:
            in_library = f", {self.hits} of them in the library already" if self.hits else ""
        sink.say(f"{as_pictures(self.tally.written)} handed in{in_library}")


async def _hand_in_one(
    client: Client, order: Order, prompt: str, about: str, sink: Sink, counts: _Counts
) -> None:
    try:
        answer = await client.submit(
            order.draft_of(prompt), count=order.count, cache=order.cache, priority=order.priority
        )
    except ConnectionFailed:
        raise
    except SdqError as error:
        counts.tally.fail(error, order.count)
        sink.error(error, about=about)
        return
    for picture in answer.pictures:
        counts.tally.written += 1
        counts.hits += picture.cache is Origin.HIT
        if sink.as_json:
            sink.record(_record(picture))
        else:
            print_data(picture.job_id or "")


def _record(picture: PlannedPicture) -> dict[str, object]:
    return {
        "job_id": picture.job_id,
        "index": picture.index,
        "key": picture.key,
        "seed": picture.spec.seed,
        "cache": picture.cache.value,
        "spec": msgspec.to_builtins(picture.spec),
    }
