"""One run: a stack, clients and a killer beside each other, and the verdict at the end."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from PIL import Image

from sdq.protocol.messages import Status
from sdq.protocol.model import ModelManifest
from sdq.server.catalog import Catalog
from sdq.spec import ImageSpec, SpecDraft, key_of, seed_at
from sdq.testing.chaos.killer import Killer
from sdq.testing.chaos.parts import Stack
from sdq.testing.chaos.people import People
from sdq.testing.chaos.plan import Plan, Scale, Target, make_plan
from sdq.testing.chaos.verdict import Evidence, Painter, Verdict, judge
from sdq.testing.pipeline import picture_of

REDRAWN_PICTURES = 4
"""Of the real model; the pictures of the double are all compared."""

Tell = Callable[[str], None]


async def run(seed: int, scale: Scale, folder: Path, tell: Tell) -> Verdict:
    """A whole run in an empty folder, which keeps all logs. From the main thread only.

    Takes ``scale.seconds`` and what settling needs, bounded by ``scale.settle_seconds``, and
    leaves no process behind, also when it is cancelled. Raises `StackError` and `TimeoutError`
    when the stack does not stand.
    """
    plan = make_plan(seed, scale)
    catalog = Catalog.load()
    manifest = catalog.manifest(None)
    async with Stack(folder, scale, manifest.fingerprint) as stack:
        tell(f"seed {seed}: the stack stands; logs: {stack.logs}")
        people, killer = People(stack, plan), Killer(stack)
        remarks = await _let_them(plan, people, killer, stack)
        remarks += await stack.end_gently()
    evidence = Evidence(
        data_dir=stack.data_dir,
        drawn_log=stack.drawn_log,
        worker_logs=[part.log_file for part in stack.parts if part.target is Target.WORKER],
        fingerprint=manifest.fingerprint,
        outcomes=people.outcomes,
        wishes=wishes_of(plan, catalog, manifest),
        deeds=killer.deeds,
        painter=_painter(scale, manifest),
    )
    verdict = await asyncio.to_thread(judge, evidence, seed)
    verdict.remarks += remarks + _surprises(stack) + [_tally(people)]
    if verdict.jobs < scale.least_jobs:
        verdict.too_little.append(f"{verdict.jobs} jobs, and {scale.least_jobs} were wanted")
    if killer.missed:
        verdict.too_little.append(f"{len(killer.missed)} kills found nothing to hit")
    return verdict


async def _let_them(plan: Plan, people: People, killer: Killer, stack: Stack) -> list[str]:
    """Orders and kills to the last, then a bounded time for what is left; remarks."""
    began = time.monotonic()
    asking = asyncio.create_task(people.run(began), name="people")
    killing = asyncio.create_task(killer.run(plan.kills, began), name="killer")
    try:
        await killing
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.scale.settle_seconds):
                await asyncio.shield(asking)
                settling = time.monotonic()
                await stack.until(_is_idle)
                return [f"settled {time.monotonic() - settling:.1f} s after the last client"]
        status = await stack.status()
        return [f"not settled after {plan.scale.settle_seconds:g} s: {status}"]
    finally:
        for task in (asking, killing):
            task.cancel()
        await asyncio.wait({asking, killing})
        if not asking.cancelled():
            asking.result()


def _is_idle(status: Status) -> bool:
    return not (status.queued or status.dispatched or status.running)


def _surprises(stack: Stack) -> list[str]:
    return [
        f"{found.part} ended by itself with {found.exit_code}"
        for part in stack.parts
        for found in part.surprises
    ]


def _tally(people: People) -> str:
    outcomes = people.outcomes
    killed = sum(outcome.was_killed for outcome in outcomes)
    knocked = sum(outcome.knocked_in_vain for outcome in outcomes)
    asked = sum(len(outcome.order.prompts) * outcome.order.count for outcome in outcomes)
    return (
        f"{asked} pictures were asked for in {len(outcomes)} requests; {killed} clients were "
        f"killed; nobody answered at the door {knocked} times"
    )


def wishes_of(plan: Plan, catalog: Catalog, manifest: ModelManifest) -> dict[int, dict[str, str]]:
    """Order number → key → prompt: worked out here, not asked of the server."""
    wishes: dict[int, dict[str, str]] = {}
    for number, order in enumerate(plan.orders):
        wishes[number] = {}
        for prompt in order.prompts:
            spec = catalog.resolve(SpecDraft(prompt=prompt))
            for index in range(order.count):
                seeded = msgspec.structs.replace(spec, seed=seed_at(spec, None, index))
                wishes[number][key_of(seeded, manifest.fingerprint)] = prompt
    return wishes


def _painter(scale: Scale, manifest: ModelManifest) -> Painter:
    if not scale.is_real:
        return picture_of
    return RealPainter(manifest)


class RealPainter:
    """Draws the first `REDRAWN_PICTURES` different specs anew, in this process."""

    def __init__(self, manifest: ModelManifest) -> None:
        import sdq_shapes

        from sdq.worker import devices, drawing, pipelines

        device = devices.choose("cpu")
        pipeline = pipelines.load(sdq_shapes.folder(), manifest, device)
        self._pipeline = drawing.DiffusersPipeline(pipeline, device)
        self._drawn: dict[ImageSpec, Image.Image] = {}

    def __call__(self, spec: ImageSpec) -> Image.Image | None:
        if spec not in self._drawn and len(self._drawn) < REDRAWN_PICTURES:
            self._drawn[spec] = self._pipeline.draw(spec, lambda step, steps: None)
        return self._drawn.get(spec)
