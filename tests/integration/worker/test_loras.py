"""LoRAs in a real worker: fetched by the job that asks first, drawn with by all."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
import sdq_shapes
from PIL import Image

from sdq import broker
from sdq.broker import Broke, Drawn, DrawTask, Stopped
from sdq.protocol.model import ModelFile
from sdq.spec import Lora
from sdq.testing.file_server import Fault, FileServer
from sdq.testing.tiny_loras import write_lora
from sdq.worker import pipelines


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FileServer, Lora, Lora]]:
    """Serves two LoRAs of the built-in model at ``/<sha256>``."""
    pipelines.silence()
    from diffusers import StableDiffusionPipeline

    folder = tmp_path_factory.mktemp("loras")
    pipeline = StableDiffusionPipeline.from_pretrained(str(sdq_shapes.folder()))
    first, second = (write_lora(pipeline, folder, seed=seed, strength=1.0) for seed in (1, 2))
    with FileServer() as server:
        for lora in (first, second):
            server.files[f"/{lora.sha256}"] = read(folder, lora)
        yield server, first, second


def read(folder: Path, lora: Lora) -> bytes:
    return (folder / f"{lora.sha256}.safetensors").read_bytes()


def pixels(drawn: Any) -> Any:
    assert isinstance(drawn, Drawn), drawn
    with Image.open(io.BytesIO(drawn.image)) as image:
        return numpy.asarray(image, int)


def test_jobs_that_ask_for_loras(
    install_shapes: Callable[[], Any],
    start: Callable[..., Any],
    send_shapes: Any,
    until: Callable[..., Any],
    web: tuple[FileServer, Lora, Lora],
) -> None:
    """One worker for all of it: the model takes seconds to load."""
    server, first, second = web
    worker = start("sdq", "worker", "run", worker_id=install_shapes().worker_id)

    def send(job_id: str, *loras: Lora) -> None:
        spec = send_shapes.spec(loras=tuple(loras), num_inference_steps=4)
        files = tuple(
            ModelFile(
                f"{lora.name}.safetensors",
                len(server.files[f"/{lora.sha256}"]),
                lora.sha256,
                (f"{server.url}/{lora.sha256}",),
            )
            for lora in loras
        )
        fingerprint = send_shapes.manifest.fingerprint
        task = DrawTask(job_id, 1, "server1", spec, "a" * 64, fingerprint, files)
        send_shapes.send_raw([broker.to_argument(task)])

    send("plain")
    plain = pixels(send_shapes.last_event("plain"))
    for job_id in ("one", "two", "three"):
        send(job_id, first)
    send("beside")
    made = [pixels(send_shapes.last_event(job_id)) for job_id in ("one", "two", "three")]
    assert numpy.abs(made[0] - plain).mean() > 2
    assert all(numpy.abs(each - made[0]).max() <= 2 for each in made)
    assert numpy.abs(pixels(send_shapes.last_event("beside")) - plain).max() <= 2
    send("again", first)
    assert numpy.abs(pixels(send_shapes.last_event("again")) - made[0]).max() <= 2
    assert len(server.requests) == 1
    assert any("fetching LoRA random-1" in line for line in worker.lines)

    right = server.files[f"/{second.sha256}"]
    server.files[f"/{second.sha256}"] = bytes(reversed(right))
    send("wrong", second)
    broke = send_shapes.last_event("wrong")
    assert isinstance(broke, Broke)
    assert "the LoRA random-2 cannot be fetched" in broke.message
    assert "wrong hash" in broke.message

    server.files[f"/{second.sha256}"] = right
    server.faults[f"/{second.sha256}"] = [Fault(status=503, retry_after="60")]
    asked = len(server.requests)
    send("cancelled", second)
    until(lambda: len(server.requests) > asked)
    until(lambda: "fetching LoRA random-2" in worker.beat.note)
    send_shapes.cancel("cancelled")
    assert isinstance(send_shapes.last_event("cancelled"), Stopped)

    stronger = msgspec.structs.replace(first, weight=2.0)
    send("both", stronger, second)
    assert numpy.abs(pixels(send_shapes.last_event("both")) - made[0]).mean() > 2
    send("end")
    assert (pixels(send_shapes.last_event("end")) == plain).all()
    worker.ask_to_end()
    assert worker.end() == 0
    assert all(" worker: " in line for line in worker.lines), worker.lines
