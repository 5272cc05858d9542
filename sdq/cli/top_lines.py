"""`sdq top` without a screen: once as text, or as JSON for programs."""

import asyncio
import time

from sdq.cli.output import print_data, print_json, print_table
from sdq.cli.output import tell as tell_person
from sdq.cli.progress import FOUND, LOST
from sdq.cli.top_view import (
    WORKER_TITLES,
    Look,
    drawn_line,
    event_lines,
    head_lines,
    look,
    person_lines,
    record_of,
    worker_row,
)
from sdq.client.connecting import connect
from sdq.client.losses import may_pass
from sdq.config import ClientSettings
from sdq.errors import ConnectionFailed

INTERVAL_SECONDS = 1.0


async def tell(settings: ClientSettings, *, once: bool, as_json: bool) -> int:
    """One look, or one each second until it is cancelled; a lost server is looked for as long as
    `sdq generate` does. Raises `ConnectionFailed`."""
    lost_at: float | None = None
    async with connect(settings.server, reconnect_seconds=settings.reconnect_seconds) as client:
        while True:
            try:
                seen = await look(client)
            except ConnectionFailed as error:
                if once or not may_pass(error):
                    raise
                if lost_at is None:
                    lost_at = time.monotonic()
                    tell_person(LOST)
                if time.monotonic() - lost_at >= settings.reconnect_seconds:
                    raise
            else:
                if lost_at is not None:
                    lost_at = None
                    tell_person(FOUND)
                print_json(record_of(seen)) if as_json else _print(seen)
                if once:
                    return 0
            await asyncio.sleep(INTERVAL_SECONDS)


def _print(seen: Look) -> None:
    status, activity = seen
    for line in (*head_lines(seen), drawn_line(activity), *person_lines(activity)):
        print_data(line)
    if status.workers:
        print_data("")
        print_table(WORKER_TITLES, [worker_row(worker) for worker in status.workers])
    for number, line in enumerate(event_lines(activity)):
        if number == 0:
            print_data("")
        print_data(line)
