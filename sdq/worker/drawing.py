"""Drawing with a diffusers pipeline through its own ``__call__``: what cannot be stepped."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from PIL.Image import Image

from sdq.errors import Cancelled, GenerationFailed
from sdq.spec import ImageSpec
from sdq.worker.decoding import picture_of
from sdq.worker.devices import Device, capacity_of
from sdq.worker.flight import Capacity, OnStep
from sdq.worker.loras import Find, Loras, nowhere, set_of
from sdq.worker.pipelines import memory_errors, set_scheduler


class DiffusersPipeline:
    """See `sdq.worker.flight.Drawer`. For one thread: pipelines are not shared."""

    def __init__(
        self,
        pipeline: Any,
        device: Device,
        capacity: Capacity | None = None,
        find: Find = nowhere,
    ) -> None:
        self.pipeline = pipeline
        self.device = device
        self.capacity = capacity or capacity_of(device)
        self._loras = Loras(pipeline, device, find)
        # Schedulers made from one another gather settings: always start from the model's own.
        self._scheduler_config = dict(pipeline.scheduler.config)

    def group_of(self, spec: ImageSpec) -> Hashable:
        """What must be equal in all pictures of one call."""
        return (
            *(spec.width, spec.height, spec.num_inference_steps),
            *(spec.guidance_scale, spec.scheduler, bool(spec.negative_prompt), set_of(spec)),
        )

    def draw(self, spec: ImageSpec, on_step: OnStep) -> Image:
        """The picture, RGB, ``spec.width`` × ``spec.height``.

        ``on_step(step, steps)`` is called between steps; what it raises ends the drawing.
        Raises `MemoryError` when the device is full, `NoPicture` when the model's numbers went
        wrong, and `GenerationFailed` when it refuses the spec or its safety checker the picture.
        """
        (made,) = self.draw_many([spec], [on_step])
        if isinstance(made, Exception):
            raise made
        return made

    def draw_many(
        self, specs: Sequence[ImageSpec], on_steps: Sequence[OnStep]
    ) -> list[Image | Exception]:
        """The pictures of one group in one call, each with what ended it in its place.

        Raises what `draw` does for faults that are not one picture's own. The call goes on while
        anybody waits for one of its pictures.
        """
        ended: dict[int, Exception] = {}

        def on_step(step: int, steps: int) -> None:
            for number, tell in enumerate(on_steps):
                try:
                    if number not in ended:
                        tell(step, steps)
                except Exception as error:  # noqa: BLE001 - told to the one who waits
                    ended[number] = error
            if len(ended) == len(on_steps):
                raise Cancelled("nobody waits for these pictures any more")

        set_scheduler(self.pipeline, specs[0].scheduler, self._scheduler_config)
        try:
            with memory_errors(self.device.name):
                self._loras.use(specs[0])
                output = self._call(specs, on_step)
        except ValueError as error:  # a parameter that this pipeline or scheduler cannot do
            raise GenerationFailed(f"the model refuses this picture: {error}") from error
        except Cancelled:
            return [ended[number] for number in range(len(on_steps))]
        unsafe = getattr(output, "nsfw_content_detected", None) or [False] * len(specs)
        pictures = [
            picture_of(self.pipeline.image_processor, pixels, held_back)
            for pixels, held_back in zip(output.images, unsafe, strict=True)
        ]
        return [ended.get(number, picture) for number, picture in enumerate(pictures)]

    def _call(self, specs: Sequence[ImageSpec], on_step: Callable[[int, int], None]) -> Any:
        first = specs[0]
        steps = first.num_inference_steps

        def after_step(pipeline: Any, index: int, _time: Any, values: dict[str, Any]) -> Any:
            # Some schedulers (Heun) go through the model more often than the steps asked for.
            turns = getattr(pipeline, "num_timesteps", None) or steps
            on_step(min(steps, (index + 1) * steps // turns), steps)
            return values

        prompts = [spec.prompt for spec in specs]
        negatives = [spec.negative_prompt for spec in specs]
        # On the CPU always: the same noise on every device, for every picture on its own.
        generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs]
        one = len(specs) == 1
        return self.pipeline(
            prompt=prompts[0] if one else prompts,
            negative_prompt=(negatives[0] if one else negatives) if any(negatives) else None,
            width=first.width,
            height=first.height,
            num_inference_steps=steps,
            guidance_scale=first.guidance_scale,
            generator=generators[0] if one else generators,
            callback_on_step_end=after_step,
            callback_on_step_end_tensor_inputs=[],
            output_type="np",
        )
