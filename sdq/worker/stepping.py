"""Stable Diffusion step by step, many pictures in one turn; the rest through `drawing`."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sdq.spec import ImageSpec
from sdq.worker.conditioning import Conditioner
from sdq.worker.decoding import Decoder
from sdq.worker.devices import Device, capacity_of, decode_capacity_of
from sdq.worker.drawing import DiffusersPipeline
from sdq.worker.flight import Capacity, Drawer, Flight, OnStep, Pipeline
from sdq.worker.latents import LatentFlight, copy_of
from sdq.worker.loras import Find, Loras, nowhere
from sdq.worker.offload import TEXT_ENCODERS, Parts
from sdq.worker.pace import Pace
from sdq.worker.pipelines import SCHEDULERS, is_stepped, make_scheduler, memory_errors
from sdq.worker.previews import Previewer
from sdq.worker.stack import Stack


class SteppingPipeline:
    """See `sdq.worker.flight.Pipeline`. Draws what the pipeline's own ``__call__`` would draw for
    the same spec with a generator on the CPU, up to rounding.

    ``capacity``: what was measured here; without, what is known of such devices. ``find``: where
    the files of LoRAs lie.
    """

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
        self.decode_capacity = decode_capacity_of(device)
        # Schedulers made from one another gather settings: always start from the model's own.
        self._scheduler_config = dict(pipeline.scheduler.config)
        self._schedulers: dict[str, Any] = {}
        self._decoder = Decoder(pipeline, lambda: self._parts.leave_but("vae"))
        self._parts = Parts(pipeline, device)
        self._conditioner = Conditioner(
            pipeline,
            device.name,
            before_encoding=lambda: self._parts.need(*TEXT_ENCODERS),
        )
        self._stack = Stack(pipeline.unet, device.name)
        self._previewer = Previewer(pipeline, self._decoder, lambda: self._parts.need("vae"))
        self._loras = Loras(pipeline, device, find, on_change=self._take_parts)
        self._pace = Pace(device.name)

    def _take_parts(self) -> None:
        self._parts = Parts(self.pipeline, self.device)

    @torch.inference_mode()
    def get_ready(self) -> None:
        """Does what the first picture would have to wait for. What fails here will fail there
        too, and be told to somebody."""
        for name in SCHEDULERS:
            with contextlib.suppress(Exception):
                self._scheduler(name)
        with contextlib.suppress(Exception), memory_errors(self.device.name):
            self._conditioner.encode("")  # as most negative prompts

    def joins(self, spec: ImageSpec, others: Sequence[Flight]) -> bool:
        return self._loras.joins(spec, others)

    @torch.inference_mode()
    def begin(self, spec: ImageSpec, on_step: OnStep) -> Flight:
        with memory_errors(self.device.name):
            self._loras.use(spec)
            flight = LatentFlight(
                spec,
                self._conditioner.condition(spec),
                self._scheduler(spec.scheduler),
                channels=self.pipeline.unet.config.in_channels,
                scale_factor=self.pipeline.vae_scale_factor,
                # As the two pipelines do it themselves.
                sets_begin=type(self.pipeline).__name__ == "StableDiffusionXLPipeline",
            )
        self._loras.keep_for(flight)
        return flight

    def _scheduler(self, name: str) -> Any:
        # Made from the configuration once, a matter of milliseconds, then copied.
        if name not in self._schedulers:
            self._schedulers[name] = make_scheduler(name, self._scheduler_config)
        return copy_of(self._schedulers[name])

    @torch.inference_mode()
    def step(self, flights: Sequence[Flight]) -> list[Exception | None]:
        own = [_own(flight) for flight in flights if not flight.is_finished]
        faults: dict[Flight, Exception] = {}
        predictions = self._predict(own) if own else []
        for flight, prediction in zip(own, predictions, strict=True):
            try:
                with memory_errors(self.device.name):
                    flight.advance(prediction)
            except MemoryError:
                raise
            except Exception as error:  # noqa: BLE001 - one picture's scheduler is no other's
                faults[flight] = error
            if flight.is_finished or flight in faults:
                self._stack.forget(flight)
        self._pace.keep()
        return [faults.get(flight) for flight in flights]

    def _predict(self, flights: Sequence[LatentFlight]) -> list[Tensor]:
        try:
            with memory_errors(self.device.name):
                self._loras.use(flights[0].spec)
                self._parts.need("unet")
                return self._stack.predict(flights)
        except MemoryError:
            if not self._parts.leave_but("unet"):
                raise
        return self._predict(flights)  # once the error and what it holds are gone

    @torch.inference_mode()
    def preview(self, flight: Flight) -> Image | None:
        """One pixel for each of the latents, of what the model takes the finished picture to be:
        the latents themselves are noise for most of the way."""
        latents = _own(flight).estimate()
        return None if latents is None else self._previewer.picture(latents)

    @torch.inference_mode()
    def decode(self, flights: Sequence[Flight]) -> list[Image | Exception]:
        with memory_errors(self.device.name):
            self._parts.need("vae")
            return self._decoder.decode([_own(flight).latents for flight in flights])


def engine_pipeline(
    pipeline: Any, device: Device, capacity: Capacity | None = None, find: Find = nowhere
) -> Pipeline | Drawer:
    """The engine's view of a diffusers pipeline."""
    if not is_stepped(pipeline):
        return DiffusersPipeline(pipeline, device, capacity, find)
    stepping = SteppingPipeline(pipeline, device, capacity, find)
    stepping.get_ready()
    return stepping


def _own(flight: Flight) -> LatentFlight:
    assert isinstance(flight, LatentFlight)
    return flight
