"""One picture in flight through a UNet: its latents, its noise, its own scheduler object."""

import copy
import inspect
from typing import Any

import torch
from torch import Tensor

from sdq.errors import GenerationFailed
from sdq.spec import ImageSpec
from sdq.worker.conditioning import Condition
from sdq.worker.flight import Flight
from sdq.worker.loras import set_of
from sdq.worker.previews import clean


class LatentFlight(Flight):
    """The state between two steps. ``scheduler`` is this picture's own; they keep state.

    Noise comes from a generator on the CPU that is this picture's own: the same on every
    device, whoever else is in the turn. Raises `GenerationFailed` when the scheduler refuses
    the number of steps.
    """

    def __init__(
        self,
        spec: ImageSpec,
        condition: Condition,
        scheduler: Any,
        *,
        channels: int,
        scale_factor: int,
        sets_begin: bool,
    ) -> None:
        self.condition = condition
        self.scheduler = scheduler
        self.generator = torch.Generator("cpu").manual_seed(spec.seed)
        try:
            # On the CPU: looking up a timestep on an accelerator would wait for it each step.
            scheduler.set_timesteps(spec.num_inference_steps, device="cpu")
        except ValueError as error:
            raise _refused(error) from error
        if sets_begin and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        self._timesteps = list(scheduler.timesteps)
        self._times: list[float] = scheduler.timesteps.float().tolist()
        self._turn = 0
        tokens = condition.positive.tokens
        shape = (1, channels, spec.height // scale_factor, spec.width // scale_factor)
        noise = torch.randn(shape, generator=self.generator, dtype=tokens.dtype)
        self.latents: Tensor = noise.to(tokens.device) * scheduler.init_noise_sigma
        self._input: Tensor | None = None
        self._last: tuple[Tensor, Tensor, float] | None = None  # shown, said, when
        self._options = _step_options(scheduler, self.generator)
        super().__init__(spec, group=(shape, self.latents.dtype, tokens.shape, set_of(spec)))

    @property
    def time(self) -> float:
        """The timestep that comes next, as the UNet reads it."""
        return self._times[self._turn]

    def model_input(self) -> Tensor:
        """The latents as the UNet wants them at this step, 1 × channels × height × width."""
        scaled: Tensor = self.scheduler.scale_model_input(self.latents, self._timesteps[self._turn])
        self._input = scaled
        return scaled

    def estimate(self) -> Tensor | None:
        """What the model took the finished latents to be at the last step, of the shape of
        ``latents``; ``None`` before the first one, and where nobody can say."""
        return None if self._last is None else clean(*self._last, self.scheduler)

    def advance(self, prediction: Tensor) -> None:
        """One call of the scheduler. When it fails, all is as it was before.

        Raises `GenerationFailed` when the scheduler refuses the picture, else what it raises.
        """
        kept = _state_of(self.scheduler)
        noise = self.generator.get_state() if "generator" in self._options else None
        try:
            self.latents = self.scheduler.step(
                prediction,
                self._timesteps[self._turn],
                self.latents,
                **self._options,
                return_dict=False,
            )[0]
        except Exception as error:  # whatever it is, the step is undone; raised again
            vars(self.scheduler).clear()
            vars(self.scheduler).update(kept)
            if noise is not None:
                self.generator.set_state(noise)
            if isinstance(error, ValueError):
                raise _refused(error) from error
            raise
        if self._input is not None:
            self._last = (self._input, prediction, self.time)
        self._turn += 1
        steps, turns = self.spec.num_inference_steps, len(self._times)
        # Some schedulers (Heun) go through the model more often than the steps asked for.
        self.step = min(steps, self._turn * steps // turns)
        self.is_finished = self._turn >= turns


def _step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """As the pipelines choose them: not every scheduler draws noise between its steps."""
    known = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in options.items() if name in known}


def copy_of(scheduler: Any) -> Any:
    """Another one in the same state. The tensors are the same: none is ever changed in place."""
    copied = copy.copy(scheduler)
    vars(copied).update(_state_of(scheduler))
    return copied


def _state_of(scheduler: Any) -> dict[str, Any]:
    """What a step may change. Schedulers put new tensors in place of old ones, into lists too."""
    return {
        name: list(value) if isinstance(value, list) else value
        for name, value in vars(scheduler).items()
    }


def _refused(error: ValueError) -> GenerationFailed:
    return GenerationFailed(f"the model refuses this picture: {error}")
