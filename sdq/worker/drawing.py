"""Drawing one picture with a diffusers pipeline, through its own ``__call__``."""

from collections.abc import Callable
from typing import Any

from PIL.Image import Image

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec
from sdq.worker.devices import Device
from sdq.worker.flight import NoPicture
from sdq.worker.pipelines import memory_errors, set_scheduler


class DiffusersPipeline:
    """The engine's view of a diffusers pipeline. For one thread: pipelines are not shared."""

    def __init__(self, pipeline: Any, device: Device) -> None:
        self.pipeline = pipeline
        self.device = device
        # Schedulers made from one another gather settings: always start from the model's own.
        self._scheduler_config = dict(pipeline.scheduler.config)

    def draw(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Image:
        """The picture, RGB, ``spec.width`` × ``spec.height``.

        ``on_step(step, steps)`` is called between steps; what it raises ends the drawing.
        Raises `MemoryError` when the device is full, `NoPicture` when the model's numbers went
        wrong, and `GenerationFailed` when it refuses the spec or its safety checker the picture.
        """
        set_scheduler(self.pipeline, spec.scheduler, self._scheduler_config)
        try:
            with memory_errors(self.device.name):
                output = self._call(spec, on_step)
        except ValueError as error:  # a parameter that this pipeline or scheduler cannot do
            raise GenerationFailed(f"the model refuses this picture: {error}") from error
        return self._checked(output)

    def _call(self, spec: ImageSpec, on_step: Callable[[int, int], None]) -> Any:
        import torch

        steps = spec.num_inference_steps

        def after_step(pipeline: Any, index: int, _time: Any, values: dict[str, Any]) -> Any:
            # Some schedulers (Heun) go through the model more often than the steps asked for.
            turns = getattr(pipeline, "num_timesteps", None) or steps
            on_step(min(steps, (index + 1) * steps // turns), steps)
            return values

        return self.pipeline(
            prompt=spec.prompt,
            negative_prompt=spec.negative_prompt or None,
            width=spec.width,
            height=spec.height,
            num_inference_steps=steps,
            guidance_scale=spec.guidance_scale,
            # On the CPU always: the same noise on every device, for every picture on its own.
            generator=torch.Generator("cpu").manual_seed(spec.seed),
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=[],
            output_type="np",
        )

    def _checked(self, output: Any) -> Image:
        import numpy

        if (getattr(output, "nsfw_content_detected", None) or [False])[0]:
            raise GenerationFailed("the model's safety checker held the picture back")
        pixels = output.images
        if not numpy.isfinite(pixels).all():
            raise NoPicture(
                "the model gave no picture but numbers that are none (NaN)",
                hint="half precision may be too small for this model: try another device",
            )
        image: Image = self.pipeline.image_processor.numpy_to_pil(pixels)[0]
        return image
