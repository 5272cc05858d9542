"""What `sdq attach` does: wait for jobs, write their pictures."""

import asyncio
from collections.abc import Sequence

from sdq.cli.deadline import deadline
from sdq.cli.files import Outputs
from sdq.cli.output import Sink
from sdq.cli.receiving import Receiving, Request
from sdq.cli.showing import Showing
from sdq.client.client import Client
from sdq.client.connecting import connect
from sdq.config import ClientSettings
from sdq.errors import ConnectionFailed, OutputError, SdqError
from sdq.protocol.constants import MAX_JOBS_AT_ONCE

_AGAIN = "attach again, with a longer --timeout; `sdq jobs` shows how they are"


async def fetch(
    settings: ClientSettings,
    job_ids: Sequence[str],
    outputs: Outputs,
    sink: Sink,
    *,
    timeout_seconds: float | None,
    showing: Showing | None = None,
) -> int:
    """Until the last job has ended; the exit code. Leaving it stops no job.

    Raises what ends everything: `ConnectionFailed`, `DeadlinePassed`, `OutputError`.
    """
    receiving = Receiving(outputs, sink, showing)
    try:
        async with (
            deadline(timeout_seconds, left=lambda: "the jobs go on", hint=_AGAIN),
            connect(settings.server, reconnect_seconds=settings.reconnect_seconds) as client,
        ):
            await _fetch_all(client, job_ids, receiving, sink)
    except asyncio.CancelledError:
        receiving.close()
        written = receiving.tally.written
        sink.say(f"left: {written} of {len(job_ids)} written, the jobs go on")
        raise
    finally:
        receiving.close()
    return receiving.end()


async def _fetch_all(
    client: Client, job_ids: Sequence[str], receiving: Receiving, sink: Sink
) -> None:
    for start in range(0, len(job_ids), MAX_JOBS_AT_ONCE):
        chunk = tuple(job_ids[start : start + MAX_JOBS_AT_ONCE])
        request = Request(start + 1, len(chunk), job_ids=chunk)
        receiving.tally.asked += len(chunk)
        try:
            news = client.attach(chunk, preview=receiving.wants_preview)
            await receiving.follow(request, news)
        except (ConnectionFailed, OutputError):
            raise
        except SdqError as error:
            receiving.tally.fail(error, len(request.left))
            sink.error(error)
