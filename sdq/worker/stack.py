"""One turn: the latents of several pictures in one call of the UNet, each at its own step."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdq.worker.conditioning import Encoded
from sdq.worker.latents import LatentFlight

MAX_STACKED = 4
"""Groups whose stacked conditions are kept for their next turn."""


@dataclass(frozen=True)
class _Conditions:
    """The rows of a turn: first the unconditional halves of those with guidance, then all."""

    flights: tuple[LatentFlight, ...]
    guided: tuple[LatentFlight, ...]
    tokens: Tensor
    added: dict[str, Tensor] | None
    guidance: Tensor | None


class Stack:
    """Stacks and predicts. What does not change while the same pictures fly together, their
    prompts, is stacked once."""

    def __init__(self, unet: Callable[..., Any], device_name: str) -> None:
        self._unet = unet
        self._device_name = device_name
        self._kept: OrderedDict[Hashable, _Conditions] = OrderedDict()

    def predict(self, flights: Sequence[LatentFlight]) -> list[Tensor]:
        """What the model says of each picture's noise, guided by its own scale.

        All of one group; changes none of them.
        """
        rows = self._conditions(flights)
        inputs = [flight.model_input() for flight in flights]
        by_flight = dict(zip(flights, inputs, strict=True))
        latents = torch.cat([by_flight[flight] for flight in rows.guided] + inputs)
        times = [flight.time for flight in (*rows.guided, *flights)]
        predicted = self._unet(
            latents,
            # Not torch's default dtype: another model that loads meanwhile changes that.
            self._on_device(torch.tensor(times, dtype=torch.float32)),
            encoder_hidden_states=rows.tokens,
            timestep_cond=rows.guidance,
            added_cond_kwargs=rows.added,
            return_dict=False,
        )[0].split(1)
        unconditional = dict(zip(rows.guided, predicted, strict=False))
        return [
            _guided(unconditional.get(flight), text, flight.spec.guidance_scale)
            for flight, text in zip(flights, predicted[len(rows.guided) :], strict=True)
        ]

    def _on_device(self, times: Tensor) -> Tensor:
        """Without waiting for the turn before; Apple's devices read such memory too late."""
        return times.to(self._device_name, non_blocking=not self._device_name.startswith("mps"))

    def forget(self, flight: LatentFlight) -> None:
        """Lets go of what was stacked with this picture."""
        kept = self._kept.get(flight.group)
        if kept is not None and flight in kept.flights:
            del self._kept[flight.group]

    def _conditions(self, flights: Sequence[LatentFlight]) -> _Conditions:
        group, wanted = flights[0].group, tuple(flights)
        kept = self._kept.get(group)
        if kept is None or kept.flights != wanted:
            kept = self._kept[group] = _stacked(wanted)
        self._kept.move_to_end(group)
        while len(self._kept) > MAX_STACKED:
            self._kept.popitem(last=False)
        return kept


def _stacked(flights: tuple[LatentFlight, ...]) -> _Conditions:
    guided = tuple(flight for flight in flights if flight.condition.negative is not None)
    negatives = [flight.condition.negative for flight in guided]
    texts: list[Encoded] = [text for text in negatives if text is not None]
    texts += [flight.condition.positive for flight in flights]
    conditions = [flight.condition for flight in (*guided, *flights)]
    pooled = [text.pooled for text in texts if text.pooled is not None]
    sizes = [condition.time_ids for condition in conditions if condition.time_ids is not None]
    scales = [condition.guidance for condition in conditions if condition.guidance is not None]
    return _Conditions(
        flights=flights,
        guided=guided,
        tokens=torch.cat([text.tokens for text in texts]),
        added={"text_embeds": torch.cat(pooled), "time_ids": torch.cat(sizes)} if pooled else None,
        guidance=torch.cat(scales) if scales else None,
    )


def _guided(unconditional: Tensor | None, text: Tensor, scale: float) -> Tensor:
    if unconditional is None:
        return text
    return unconditional + scale * (text - unconditional)
