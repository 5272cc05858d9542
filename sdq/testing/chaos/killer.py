"""Carries out the kills of a plan, and notes what it did."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import redis.asyncio
from redis.exceptions import RedisError

from sdq.broker import heartbeat_key, read_heartbeat
from sdq.errors import SdqError
from sdq.testing.chaos.parts import Part, Stack
from sdq.testing.chaos.plan import Blow, Kill, Target
from sdq.worker.models import load_config

MOST_PATIENCE_SECONDS = 20.0
"""How long a kill waits for a part that is away or stopped already."""

_POLL_SECONDS = 0.02
_ASK_REDIS_SECONDS = 0.3


@dataclass(frozen=True)
class Deed:
    """A kill that was carried out. Times in seconds since 1970."""

    part: str
    target: Target
    blow: Blow
    at: float
    back_at: float  # when it was started again, or could go on
    in_hand: tuple[str, ...]  # job ids that a killed worker named in its last heartbeat


class Killer:
    """``deeds`` in the order of their ends; also line by line in ``killer.log``."""

    def __init__(self, stack: Stack) -> None:
        self.deeds: list[Deed] = []
        self.missed: list[Kill] = []  # there was nothing to hit for too long
        self._stack = stack

    async def run(self, kills: Sequence[Kill], began: float) -> None:
        """All of them, at their times after ``began`` (of `time.monotonic`) or a little later.

        Whatever was stopped goes on when this returns, also when it is cancelled.
        """
        async with asyncio.TaskGroup() as stopped:
            for kill in kills:
                await asyncio.sleep(began + kill.at_seconds - time.monotonic())
                part = await self._victim(kill)
                if part is None:
                    self.missed.append(kill)
                elif kill.blow is Blow.STOPPED:
                    part.stop()
                    stopped.create_task(self._stopped(part, kill))
                else:
                    await self._kill(part, kill)

    async def _victim(self, kill: Kill) -> Part | None:
        deadline = time.monotonic() + MOST_PATIENCE_SECONDS
        parts = [part for part in self._stack.parts if part.target is kill.target]
        first = kill.choice % len(parts)
        while time.monotonic() < deadline:
            for part in parts[first:] + parts[:first]:
                if part.is_running:
                    return part
            await asyncio.sleep(_POLL_SECONDS)
        return None

    async def _kill(self, part: Part, kill: Kill) -> None:
        in_hand = await self._in_hand(part.name) if part.target is Target.WORKER else ()
        if not part.is_running:  # it ended while we asked
            self.missed.append(kill)
            return
        if kill.blow is Blow.EMPTIED:
            self._stack.empty_redis = True
        at = time.time()
        part.kill(kill.away_seconds)
        self._note(part, kill, at, at + kill.away_seconds, in_hand)

    async def _stopped(self, part: Part, kill: Kill) -> None:
        at = time.time()
        try:
            await asyncio.sleep(kill.away_seconds)
        finally:
            part.go_on()
            self._note(part, kill, at, time.time(), ())

    def _note(
        self, part: Part, kill: Kill, at: float, back_at: float, in_hand: tuple[str, ...]
    ) -> None:
        deed = Deed(part.name, kill.target, kill.blow, at, back_at, in_hand)
        self.deeds.append(deed)
        when = datetime.fromtimestamp(at).astimezone().isoformat(" ", "milliseconds")
        with (self._stack.logs / "killer.log").open("a") as log:
            log.write(
                f"{when} {deed.part} {deed.blow}, back after {back_at - at:.1f} s "
                f"{' '.join(in_hand)}\n"
            )

    async def _in_hand(self, name: str) -> tuple[str, ...]:
        """What the worker's last heartbeat names; nothing when Redis does not answer."""
        with contextlib.suppress(RedisError, OSError, TimeoutError, SdqError):
            worker_id = load_config(self._stack.home(name)).worker_id
            async with (
                asyncio.timeout(_ASK_REDIS_SECONDS),
                redis.asyncio.from_url(self._stack.redis.url) as client,
            ):
                data = await client.get(heartbeat_key(worker_id))
                return read_heartbeat(data).active if isinstance(data, bytes) else ()
        return ()
