"""A worker's parts and their order of life."""

import logging
import os
import platform
import sys
import time

from celery.worker import WorkController

from sdq.broker import Heartbeat
from sdq.config import Home, WorkerSettings
from sdq.errors import SdqError
from sdq.worker import canary, consumer, delivery
from sdq.worker.delivery import Delivery, connect
from sdq.worker.engine import Engine, GivenBack
from sdq.worker.fetching import Cycle, Fetching
from sdq.worker.heartbeat import HeartbeatThread
from sdq.worker.identity import Identity
from sdq.worker.lora_store import LoraStore
from sdq.worker.models import WorkerConfig
from sdq.worker.shutdown import DRAINING, Shutdown
from sdq.worker.supply import Supply
from sdq.worker.tasks import JobRunner

MAX_CONCURRENCY = 64

_log = logging.getLogger(__name__)


def in_hand(at_once: int) -> int:
    """How many jobs a worker takes that draws so many at once: some get ready meanwhile, and
    theirs are finished while others are drawn. More would keep them from idle workers."""
    return min(MAX_CONCURRENCY, at_once + max(1, at_once // 4))


def hands(concurrency: int, at_once: int, models: int) -> int:
    """Jobs in hand: as many as were asked for (0: see `in_hand`), and one more for each further
    model, since of a model that is not in memory one job waits there (`sdq.worker.fetching`)."""
    usual = concurrency or in_hand(at_once)
    if models == 1:
        return usual
    # With a single one the model in memory would have nothing to do after each picture, and leave.
    return min(MAX_CONCURRENCY, max(2, usual) + models - 1)


class Worker:
    """Runs once, in the main thread."""

    def __init__(
        self,
        home: Home,
        config: WorkerConfig,
        supply: Supply,
        settings: WorkerSettings,
        versions: dict[str, str],
    ) -> None:
        self._home = home
        self._worker_id = config.worker_id
        self._redis_url = config.redis_url
        self._supply = supply
        self._concurrency = settings.concurrency
        manifests = tuple(supply.manifests)
        self._identity = Identity(config.worker_id, manifests, supply.device, versions)
        self._ready = False
        self._was_drained = False
        self._client = connect(config.redis_url)
        self._patient = connect(
            config.redis_url, answer_timeout_seconds=delivery.LARGE_TIMEOUT_SECONDS
        )
        self._controller: WorkController | None = None
        self._engine = Engine(
            supply.holdings,
            budget_bytes=supply.budget_bytes,
            keep_alive_seconds=settings.keep_alive_seconds,
            prove_first=canary.is_marked(home),
            on_broken=self._on_broken,
            on_change=self._on_change,
        )
        self._heartbeat = HeartbeatThread(
            self._client,
            config.worker_id,
            self._describe,
            on_drain=self._on_drain,
            look=self._look,
        )
        self._loras = LoraStore(home.loras_dir, settings.lora_bytes)
        self._runner = JobRunner(
            self._engine,
            Delivery(self._client, patient=self._patient),
            self._identity,
            loras=self._loras,
            on_change=self._heartbeat.beat_soon,
        )
        self._fetching = Fetching(
            config.worker_id,
            supply.held,
            serving=lambda: self._engine.serving,
            failing=lambda: self._engine.unloadable,
            in_hand=lambda: self._runner.active_by_model,
        )
        self._shutdown = Shutdown(
            self._drain,
            self._runner.drop_all,
            self._heartbeat.beat_soon,
            drain_seconds=settings.drain_seconds,
        )

    def run(self) -> int:
        """Loads, draws, ends. See `sdq.worker.app.serve`."""
        _log.info("drawing with %s on %s", self._supply.names, self._supply.device)
        if canary.is_marked(self._home):
            _log.warning("this worker broke before: it draws its proof picture first")
        with self._shutdown:
            self._heartbeat.start()
            self._engine.start()
            try:
                if self._loaded():
                    self._consume()
            finally:
                self._loras.close()
                engine_ended = self._engine.close()
                self._heartbeat.stop(keep_last=bool(self._engine.broken))
                self._patient.close()
                self._client.close()
        if self._engine.broken:
            raise canary.broken(self._engine.broken_model, self._supply.device, self._engine.broken)
        code = self._say_end(engine_ended)
        if not engine_ended:
            _leave(code)
        return code

    def _say_end(self, engine_ended: bool) -> int:
        """The exit code."""
        if untold := self._runner.untold:
            _log.error("stopped; Redis did not take the end of %d of the jobs in hand", untold)
            return 1
        if self._was_drained and not engine_ended:
            # The server drains a worker that hangs: it needs a new start, not to stay away.
            _log.error("stopped in the middle of a step that does not end; start it again")
            return 1
        _log.info("stopped")
        return 0

    def _loaded(self) -> bool:
        """Waits for a model; False when a signal came first."""
        while not self._shutdown.asked:
            try:
                self._engine.wait_ready(0.1)
            except TimeoutError:
                continue
            except GivenBack:  # it failed its proof picture
                return False
            if not self._shutdown.asked:
                canary.unmark(self._home)
                return True
        return False

    def _on_broken(self, reason: str) -> None:
        _log.error("the proof picture failed, this worker takes itself out: %s", reason)
        canary.mark(self._home, reason)
        self._shutdown.ask()

    def _on_change(self) -> None:
        """Other models are in memory, or are to come."""
        self._runner.make_way(self._engine.serving, self._fetching.elsewhere)
        self._heartbeat.beat_soon()
        self._wake()

    def _on_drain(self) -> None:
        _log.info("the server asks this worker to drain")
        self._was_drained = True
        self._shutdown.ask()

    def _drain(self) -> None:
        self._runner.drain(self._engine.broken or "the worker is draining")

    def _look(self) -> None:
        if self._fetching.look(self._client):
            self._runner.make_way(self._engine.serving, self._fetching.elsewhere)
            self._wake()

    def _wake(self) -> None:
        if self._controller is not None:
            consumer.wake(self._controller)

    def _consume(self) -> None:
        at_once = max(self._engine.at_once, self._supply.at_once)
        self._concurrency = hands(self._concurrency, at_once, len(self._supply.manifests))
        controller = consumer.build(
            self._redis_url,
            self._fetching.queues,
            self._runner.run,
            concurrency=self._concurrency,
            name=self._worker_id,
            on_ready=self._say_ready,
            cycle=lambda: Cycle(self._fetching),
        )
        self._controller = controller
        with self._shutdown.of(lambda: consumer.stop(controller)):
            controller.start()
        if not self._shutdown.asked:
            raise SdqError("the Celery worker ended by itself", hint="the lines above may say why")

    def _say_ready(self) -> None:
        self._ready = True
        self._heartbeat.beat_soon()
        _log.info(
            "%s is ready: %s on %s, %d at once; Ctrl-C stops it",
            self._worker_id,
            self._supply.names,
            self._supply.device,
            self._concurrency,
        )

    def _describe(self) -> Heartbeat:
        active = self._runner.active
        failing = {**self._supply.faulty, **self._engine.unloadable}
        state = "drawing" if active else "ready"
        notes = [f"{model_id}: {reason}" for model_id, reason in failing.items()]
        note = "; ".join(filter(None, [*notes, self._loras.note]))
        if self._engine.broken:
            state, note = "broken", self._engine.broken
        elif self._shutdown.asked:
            state, note = "stopping", DRAINING
        elif not self._ready:
            state = "loading"
        return Heartbeat(
            worker_id=self._worker_id,
            host=platform.node(),
            models=tuple(held for held in self._supply.held if held.model_id not in failing),
            device=self._supply.device,
            state=state,
            active=active,
            concurrency=max(1, self._concurrency),
            seconds_per_step=self._engine.seconds_per_step,
            at_once=self._engine.at_once,
            versions=self._identity.versions,
            sent_at=time.time(),
            note=note,
            loaded=self._engine.loaded,
            failing=tuple(failing),
            memory_free_bytes=self._supply.memory_free_bytes(),
        )


def _leave(code: int) -> None:
    """Ends the process although the engine's thread is inside a step or still loads.

    It cannot be interrupted there, and Python would crash tearing torch down under it.
    """
    logging.shutdown()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
