"""``sdq worker run``: the parts of a worker put together, from the first check to the last job.

::

    main thread      Celery's loop: takes tasks from Redis
    pool threads     one a job in hand: follows the engine, speaks with Redis (tasks)
    engine thread    owns the pipeline (engine); doubts it after a bad picture (canary)
    heartbeat        tells Redis what this worker is and does; hears of a drain (heartbeat)
    shutdown         waits for a signal, then ends the above in order (shutdown)
"""

import importlib.metadata
import logging
import os
import platform
import sys
import time
from collections.abc import Callable

from sdq import __version__
from sdq.broker import Heartbeat, queue_of
from sdq.config import Home, WorkerSettings
from sdq.errors import SdqError, UsageError
from sdq.protocol.model import canary_spec
from sdq.worker import canary, consumer, delivery, logs, models
from sdq.worker.delivery import Delivery, connect
from sdq.worker.engine import Engine, GivenBack
from sdq.worker.flight import Drawer, Pipeline
from sdq.worker.heartbeat import HeartbeatThread
from sdq.worker.holding import Holding
from sdq.worker.identity import Identity
from sdq.worker.shutdown import DRAINING, Shutdown
from sdq.worker.tasks import JobRunner

MAX_CONCURRENCY = 64
DRAIN_SECONDS = WorkerSettings.drain_seconds

_log = logging.getLogger(__name__)


def run(home: Home, *, concurrency: int, device: str, drain_seconds: float = DRAIN_SECONDS) -> int:
    """Runs the worker that is installed in ``home`` until a signal ends it; blocks.

    For the main thread. ``drain_seconds``: how long begun pictures may go on after the first
    signal; ``concurrency``: jobs in hand at once, 0 for as many as the pipeline draws at once and
    some more. Returns the exit code: 0, or 1 when the server could not be told how a job in hand
    ended. Raises `UsageError` or `ModelError` before it takes a job, and `ModelError` when the
    model fails its proof picture, before or while it runs.
    """
    if not 0 <= concurrency <= MAX_CONCURRENCY:
        raise UsageError(f"a worker takes 1 to {MAX_CONCURRENCY} jobs at once, not {concurrency}")
    config = models.load_config(home)
    with models.locked(home.worker_dir / "run.lock", wait=False) as alone:
        if not alone:
            raise UsageError(
                f"a worker runs in {home.root} already",
                hint="a second one on this computer needs a home of its own: set SDQ_HOME",
            )
        folder = models.check_files(home, config.model)
        from sdq.worker.devices import choose

        chosen = choose(device)

        def load() -> Pipeline | Drawer:
            from sdq.worker import pipelines, stepping

            return stepping.engine_pipeline(pipelines.load(folder, config.model, chosen), chosen)

        return serve(
            home,
            config,
            load,
            concurrency=concurrency,
            device=chosen.describe(),
            drain_seconds=drain_seconds,
        )


def serve(
    home: Home,
    config: models.WorkerConfig,
    load: Callable[[], Pipeline | Drawer],
    *,
    concurrency: int,
    device: str,
    drain_seconds: float = DRAIN_SECONDS,
    versions: dict[str, str] | None = None,
) -> int:
    """Runs a worker with the pipeline that ``load`` gives; `run` without the checks."""
    logs.configure()
    identity = Identity(
        config.worker_id,
        tuple(installed.manifest for installed in config.models),
        device,
        versions or installed_versions(),
    )
    return Worker(home, config, load, identity, concurrency, drain_seconds).run()


def installed_versions() -> dict[str, str]:
    """What goes into each picture: the versions that drew it."""
    found = {"sdq": __version__}
    for name in ("torch", "diffusers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def in_hand(at_once: int) -> int:
    """How many jobs a worker takes that draws so many at once: some get ready meanwhile, and
    theirs are finished while others are drawn. More would keep them from idle workers."""
    return min(MAX_CONCURRENCY, at_once + max(1, at_once // 4))


class Worker:
    """One worker's parts and their order of life."""

    def __init__(
        self,
        home: Home,
        config: models.WorkerConfig,
        load: Callable[[], Pipeline | Drawer],
        identity: Identity,
        concurrency: int,
        drain_seconds: float,
    ) -> None:
        self._home = home
        self._config = config
        self._concurrency = concurrency
        self._identity = identity
        self._ready = False
        self._client = connect(config.redis_url)
        self._patient = connect(
            config.redis_url, answer_timeout_seconds=delivery.LARGE_TIMEOUT_SECONDS
        )
        self._engine = Engine(
            [Holding(config.model.model_id, load, canary_spec(config.model))],
            prove_first=canary.is_marked(home),
            on_broken=self._on_broken,
        )
        self._was_drained = False
        self._heartbeat = HeartbeatThread(
            self._client, config.worker_id, self._describe, on_drain=self._on_drain
        )
        self._runner = JobRunner(
            self._engine,
            Delivery(self._client, patient=self._patient),
            identity,
            on_change=self._heartbeat.beat_soon,
        )
        self._shutdown = Shutdown(
            self._drain,
            self._runner.drop_all,
            self._heartbeat.beat_soon,
            drain_seconds=drain_seconds,
        )

    def run(self) -> int:
        """Loads, draws, ends. See `serve`."""
        _log.info("loading %s on %s", self._config.model.model_id, self._identity.device)
        if canary.is_marked(self._home):
            _log.warning("this worker broke before: it draws its proof picture first")
        with self._shutdown:
            self._heartbeat.start()
            self._engine.start()
            try:
                if self._loaded():
                    self._concurrency = self._concurrency or in_hand(self._engine.at_once)
                    self._consume()
            finally:
                engine_ended = self._engine.close()
                self._heartbeat.stop(keep_last=bool(self._engine.broken))
                self._patient.close()
                self._client.close()
        if self._engine.broken:
            raise self._broken()
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
        """Waits for the model; False when a signal came first."""
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

    def _on_drain(self) -> None:
        _log.info("the server asks this worker to drain")
        self._was_drained = True
        self._shutdown.ask()

    def _drain(self) -> None:
        self._runner.drain(self._engine.broken or "the worker is draining")

    def _broken(self) -> SdqError:
        return canary.broken(
            self._config.model.model_id, self._identity.device, self._engine.broken
        )

    def _consume(self) -> None:
        controller = consumer.build(
            self._config.redis_url,
            [queue_of(held.model_id, held.fingerprint) for held in self._config.held()],
            self._runner.run,
            concurrency=self._concurrency,
            name=self._config.worker_id,
            on_ready=self._say_ready,
        )
        with self._shutdown.of(lambda: consumer.stop(controller)):
            controller.start()
        if not self._shutdown.asked:
            raise SdqError("the Celery worker ended by itself", hint="the lines above may say why")

    def _say_ready(self) -> None:
        self._ready = True
        self._heartbeat.beat_soon()
        _log.info(
            "%s is ready: %s on %s, %d at once; Ctrl-C stops it",
            self._config.worker_id,
            self._config.model.model_id,
            self._identity.device,
            self._concurrency,
        )

    def _describe(self) -> Heartbeat:
        active = self._runner.active
        state, note = "drawing" if active else "ready", ""
        if self._engine.broken:
            state, note = "broken", self._engine.broken
        elif self._shutdown.asked:
            state, note = "stopping", DRAINING
        elif not self._ready:
            state = "loading"
        return Heartbeat(
            worker_id=self._config.worker_id,
            host=platform.node(),
            models=self._config.held(),
            device=self._identity.device,
            state=state,
            active=active,
            concurrency=max(1, self._concurrency),
            seconds_per_step=self._engine.seconds_per_step,
            at_once=self._engine.at_once,
            versions=self._identity.versions,
            sent_at=time.time(),
            note=note,
            loaded=self._engine.loaded,
        )


def _leave(code: int) -> None:
    """Ends the process although the engine's thread is inside a step or still loads.

    It cannot be interrupted there, and Python would crash tearing torch down under it.
    """
    logging.shutdown()
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
