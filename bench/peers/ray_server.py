"""The built-in model behind Ray Serve's `serve.batch`; started by `bench/serving.py`.

The batch function draws on the replica's own event loop, as the examples of its documentation
do. That is also what is best for it here: handed to a thread, the loop goes on cutting batches by
``batch_wait_timeout_s`` while one is drawn, and they queue up with one or two pictures each;
blocked, it finds all that arrived meanwhile and takes up to ``max_batch_size`` of it.

``--by-steps`` has a queue for each number of steps, so every batch is of one kind. Nobody's
documentation asks for it, but who knows that steps differ could do so.
"""

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

NO_LIMIT = 10_000


@serve.deployment
class Shapes:
    def __init__(self, dtype: str, threads: int, batching: dict[str, Any], by_steps: bool) -> None:
        from static import StaticBatches

        self._batches = StaticBatches(dtype, threads)
        self._batching = batching
        self._by_steps = by_steps
        self._queues: dict[int, Any] = {}

    async def __call__(self, request: Request) -> Response:
        wanted = await request.json()
        image = await self._queue(wanted["steps"] if self._by_steps else 0)(wanted)
        return Response(image, media_type="image/png")

    def _queue(self, steps: int) -> Any:
        if steps not in self._queues:

            @serve.batch(**self._batching)
            async def draw(wanted: list[dict[str, Any]]) -> list[bytes]:
                return self._batches.draw(wanted)

            self._queues[steps] = draw
        return self._queues[steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--wait-seconds", type=float, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--by-steps", action="store_true")
    options = parser.parse_args()
    asked_to_end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_end.set())
    ray.init(
        num_cpus=options.threads,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=10**8,
        _temp_dir=str(Path.cwd()),  # the bench's own, which it removes
    )
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    batching = {
        "max_batch_size": options.batch,
        "batch_wait_timeout_s": options.wait_seconds,
    }
    deployment = Shapes.options(  # type: ignore[attr-defined]
        max_ongoing_requests=NO_LIMIT, ray_actor_options={"num_cpus": options.threads}
    )
    serve.run(
        deployment.bind(options.dtype, options.threads, batching, options.by_steps),
        route_prefix="/draw",
    )
    asked_to_end.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
