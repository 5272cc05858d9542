"""Carries out the orders of a plan: real clients, each a process, some killed on their way."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sdq.stack.supervisor import end
from sdq.testing.chaos.parts import Stack, spawn
from sdq.testing.chaos.person import EXIT_NOBODY_THERE, Errand
from sdq.testing.chaos.plan import Order, Plan, Way

_KNOCK_AGAIN_SECONDS = 0.5
_AT_THE_DOOR_SECONDS = 15.0
"""An unanswered command that took longer had got further than the door."""


@dataclass
class Outcome:
    """How an order ended."""

    number: int
    order: Order
    folder: Path  # its pictures, ``KEY.png``
    log: Path  # what its process said
    exit_code: int | None = None  # of the last process; None: killed, or still running at the end
    was_killed: bool = False
    knocked_in_vain: int = 0
    begun: float = 0.0  # seconds since 1970
    ended: float = 0.0

    @property
    def told_file(self) -> Path:
        return self.log.with_suffix(".told")

    @property
    def told(self) -> dict[str, str]:
        """Job id → key, of what its clients were told."""
        rows = (line.split() for line in _lines(self.told_file) if line.startswith("told "))
        submitted = filter(None, map(_submitted, _lines(self.log)))
        return {row[1]: row[2] for row in rows} | dict(submitted)

    @property
    def was_given_up(self) -> bool:
        """Nobody waits for these pictures any more: its client was killed and not begun again."""
        return self.was_killed and not self.order.again


@dataclass
class People:
    """All persons of a plan; ``outcomes`` is complete when `run` has returned."""

    stack: Stack
    plan: Plan
    outcomes: list[Outcome] = field(default_factory=list)

    async def run(self, began: float) -> None:
        """All orders at their times after ``began`` (of `time.monotonic`). Cancelling it ends
        the clients that still run."""
        numbered = list(enumerate(self.plan.orders))
        async with asyncio.TaskGroup() as group:
            for person in range(self.plan.scale.persons):
                own = [(number, order) for number, order in numbered if order.person == person]
                group.create_task(self._live(own, began))

    async def _live(self, orders: Sequence[tuple[int, Order]], began: float) -> None:
        for number, order in orders:
            await asyncio.sleep(began + order.at_seconds - time.monotonic())
            folder = self.stack.folder / "pictures" / f"{number:03}"
            folder.mkdir(parents=True)
            log = self.stack.logs / f"order-{number:03}-{order.way.value}.log"
            outcome = Outcome(number, order, folder, log, begun=time.time())
            self.outcomes.append(outcome)
            await self._carry_out(outcome)
            outcome.ended = time.time()

    async def _carry_out(self, outcome: Outcome) -> None:
        kill_after = outcome.order.killed_after_seconds
        if kill_after is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(kill_after):
                    await self._ask(outcome)
            outcome.was_killed = outcome.exit_code is None
            if outcome.was_given_up or not outcome.was_killed:
                return
        await self._ask(outcome)

    async def _ask(self, outcome: Outcome) -> None:
        """The order to its end; its process is killed when this is cancelled."""
        if outcome.order.way in (Way.SUBMIT, Way.SDK_SUBMIT):
            await self._run(outcome, *self._asking(outcome))
            if outcome.exit_code != 0:
                return
            outcome.exit_code = None
            await self._run(outcome, *self._attaching(outcome))
        else:
            await self._run(outcome, *self._asking(outcome))

    def _asking(self, outcome: Outcome) -> tuple[Sequence[str], Path | None]:
        """Command line and standard input of who asks."""
        order = outcome.order
        if order.way in (Way.SDK, Way.SDK_SUBMIT):
            is_submit = order.way is Way.SDK_SUBMIT
            return self._errand(outcome, prompts=order.prompts, count=order.count, submit=is_submit)
        given = outcome.log.with_suffix(".prompts")
        given.write_text("\n".join(order.prompts) + "\n")
        argv = [sys.executable, "-m", "sdq", order.way.value, "-", "-n", str(order.count), "--json"]
        if order.way is Way.GENERATE:
            argv += ["-o", str(outcome.folder / "{key}.png")]
        return argv, given

    def _attaching(self, outcome: Outcome) -> tuple[Sequence[str], Path | None]:
        """Command line and standard input of who waits for what was handed in."""
        job_ids = tuple(outcome.told)
        if outcome.order.way is Way.SDK_SUBMIT:
            return self._errand(outcome, job_ids=job_ids)
        given = outcome.log.with_suffix(".jobs")
        given.write_text("\n".join(job_ids) + "\n")
        argv = [sys.executable, "-m", "sdq", "attach", "-", "--json"]
        return [*argv, "-o", str(outcome.folder / "{key}.png")], given

    def _errand(
        self,
        outcome: Outcome,
        *,
        prompts: tuple[str, ...] = (),
        count: int = 1,
        submit: bool = False,
        job_ids: tuple[str, ...] = (),
    ) -> tuple[Sequence[str], None]:
        errand = Errand(
            address=self.stack.address,
            folder=str(outcome.folder),
            log=str(outcome.told_file),
            prompts=prompts,
            count=count,
            submit=submit,
            job_ids=job_ids,
        )
        given = outcome.log.with_suffix(".attach" if job_ids else ".errand")
        given.write_bytes(msgspec.json.encode(errand))
        return [sys.executable, "-m", "sdq.testing.chaos.person", str(given)], None

    async def _run(self, outcome: Outcome, argv: Sequence[str], stdin: Path | None) -> None:
        """A process to its end, again and again as long as nobody answers at the door."""
        env = self.stack.env(f"person-{outcome.order.person}")
        while True:
            begun, said_before = time.monotonic(), _size_bytes(outcome.log)
            process = await spawn(argv, env, outcome.log, stdin=stdin)
            try:
                exit_code = await process.wait()
            finally:
                await end(process, 0)
            # `sdq submit` does not reconnect: handing in again is harmless.
            took_seconds = 0.0 if "submit" in argv else time.monotonic() - begun
            said = outcome.log.read_bytes()[said_before:].decode("utf-8", "replace")
            if not was_at_the_door(exit_code, took_seconds, said):
                outcome.exit_code = exit_code
                return
            outcome.knocked_in_vain += 1
            await asyncio.sleep(_KNOCK_AGAIN_SECONDS)


def was_at_the_door(exit_code: int, took_seconds: float, said: str) -> bool:
    """Nobody answered, and nothing is waited for yet: whoever reads "cannot reach" tries again.

    Once it waits, a client says that it reconnects, and must not give up.
    """
    return (
        exit_code == EXIT_NOBODY_THERE
        and took_seconds < _AT_THE_DOOR_SECONDS
        and "reconnect" not in said.lower()
    )


def _submitted(line: str) -> tuple[str, str] | None:
    """Job id and key, from a line of ``sdq submit --json``; ``None`` for any other line."""
    try:
        said = msgspec.json.decode(line, type=_Submitted)
    except msgspec.MsgspecError:  # words for people, or half a line of a killed process
        return None
    return said.job_id, said.key


class _Submitted(msgspec.Struct, frozen=True):
    job_id: str
    key: str


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8", "replace").splitlines() if path.exists() else []


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
