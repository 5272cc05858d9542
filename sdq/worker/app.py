"""``sdq worker run``: the parts of a worker put together, from the first check to the last job.

::

    main thread      Celery's loop: takes tasks from Redis (consumer), from which queues (fetching)
    pool threads     one a job in hand: follows the engine, speaks with Redis (tasks)
    engine thread    owns the pipelines (engine); doubts one after a bad picture (canary)
    loader thread    brings a model into memory (loader)
    heartbeat        tells Redis what this worker is and does; hears of a drain (heartbeat)
    shutdown         waits for a signal, then ends the above in order (shutdown)
"""

import importlib.metadata

from sdq import __version__
from sdq.config import Home, WorkerSettings
from sdq.errors import UsageError
from sdq.worker import logs, models
from sdq.worker.supply import Supply, supply_of
from sdq.worker.worker import MAX_CONCURRENCY, Worker, in_hand

__all__ = ["MAX_CONCURRENCY", "in_hand", "installed_versions", "run", "serve"]


def run(home: Home, settings: WorkerSettings) -> int:
    """Runs the worker that is installed in ``home`` until a signal ends it; blocks.

    For the main thread. Models whose files are not as they were installed are left out. Returns
    the exit code: 0, or 1 when the server could not be told how a job in hand ended. Raises
    `UsageError` or `ModelError` before it takes a job, and `ModelError` when a model fails its
    proof picture, before or while it runs.
    """
    if not 0 <= settings.concurrency <= MAX_CONCURRENCY:
        raise UsageError(
            f"a worker takes 1 to {MAX_CONCURRENCY} jobs at once, not {settings.concurrency}"
        )
    config = models.load_config(home)
    with models.locked(home.worker_dir / "run.lock", wait=False) as alone:
        if not alone:
            raise UsageError(
                f"a worker runs in {home.root} already",
                hint="a second one on this computer needs a home of its own: set SDQ_HOME",
            )
        logs.configure()
        return serve(home, config, supply_of(home, config.models, settings), settings)


def serve(
    home: Home,
    config: models.WorkerConfig,
    supply: Supply,
    settings: WorkerSettings,
    *,
    versions: dict[str, str] | None = None,
) -> int:
    """Runs a worker that draws with ``supply``; `run` without the checks."""
    logs.configure()
    return Worker(home, config, supply, settings, versions or installed_versions()).run()


def installed_versions() -> dict[str, str]:
    """What goes into each picture: the versions that drew it."""
    found = {"sdq": __version__}
    for name in ("torch", "diffusers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "none"
    return found
