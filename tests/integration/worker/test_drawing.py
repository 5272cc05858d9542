"""The real model in a real Celery worker: from a task to a picture that one can look at."""

import io
from collections.abc import Callable
from typing import Any

from PIL import Image

from sdq import metadata
from sdq.broker import Begun, Drawn, Stopped


def test_a_worker_draws_what_it_is_told(
    install_shapes: Callable[[], Any],
    start: Callable[..., Any],
    send_shapes: Any,
    until: Callable[..., Any],
) -> None:
    """One worker for all of it: the model takes seconds to load."""
    installed = install_shapes()
    worker = start("sdq", "worker", "run", worker_id=installed.worker_id)

    send_shapes.send("job1")
    drawn = send_shapes.last_event("job1")
    assert isinstance(drawn, Drawn)
    assert [type(event) for event in send_shapes.events] == [Begun, Drawn]
    assert send_shapes.steps("job1")[-1] == 20
    with Image.open(io.BytesIO(drawn.image)) as image:
        assert image.format == "PNG"
        assert image.size == (128, 128)
        red, green, blue = image.getpixel((64, 64))
        assert red > 180 > 120 > max(green, blue)
        red, green, blue = image.getpixel((4, 4))
        assert blue > 180 > 140 > max(red, green)
    provenance = metadata.read(drawn.image)
    assert provenance is not None
    assert provenance.spec == send_shapes.spec()
    assert provenance.device.startswith("cpu (")
    assert set(provenance.versions) == {"sdq", "torch", "diffusers"}

    send_shapes.send("job2")
    again = send_shapes.last_event("job2")
    assert isinstance(again, Drawn)
    assert again.image == drawn.image

    send_shapes.send("job3", send_shapes.spec(num_inference_steps=100))
    until(lambda: send_shapes.steps("job3"))
    send_shapes.cancel("job3")
    assert isinstance(send_shapes.last_event("job3"), Stopped)
    assert send_shapes.steps("job3")[-1] < 50

    beat = worker.beat
    assert beat.seconds_per_step > 0
    assert beat.models[0].fingerprint == send_shapes.manifest.fingerprint
    worker.ask_to_end()
    assert worker.end() == 0
    assert worker.beat is None
    assert all(" worker: " in line for line in worker.lines), worker.lines
