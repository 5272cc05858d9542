"""What a prompt becomes before the first step; the same text is encoded once.

Each text is encoded alone, prompt and negative prompt in the same way, as the pipelines do for
a single picture: so what is remembered is, bit for bit, what they would compute.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdq.spec import ImageSpec
from sdq.worker.loras import LoraSet, set_of

MAX_CACHE_BYTES = 32 * 1024**2
"""Embeddings kept on the device: about 100 texts of SDXL in halves, 280 of SD 1.x."""


@dataclass(frozen=True)
class Encoded:
    """One text: 1 × tokens × channels, and with SDXL 1 × channels of the whole text."""

    tokens: Tensor
    pooled: Tensor | None

    @property
    def size_bytes(self) -> int:
        return _size_bytes(self.tokens) + _size_bytes(self.pooled)


@dataclass(frozen=True)
class Condition:
    """All that steers one picture beside its latents. ``negative``: only with guidance."""

    positive: Encoded
    negative: Encoded | None
    time_ids: Tensor | None
    """SDXL's sizes, 1 × 6."""
    guidance: Tensor | None
    """The guidance as numbers for models that were distilled with it, 1 × channels."""


class Conditioner:
    """For the engine's thread: tokenizers are not safe to call from several at once.

    ``device_name``: where the text encoders calculate, wherever they rest. ``before_encoding`` is
    called when they are about to.
    """

    def __init__(
        self,
        pipeline: Any,
        device_name: str = "cpu",
        *,
        before_encoding: Callable[[], object] = lambda: None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self._pipeline = pipeline
        self._device_name = device_name
        self._before_encoding = before_encoding
        self._max_cache_bytes = max_cache_bytes
        self._cache: OrderedDict[tuple[LoraSet, str], Encoded] = OrderedDict()
        self.cache_bytes = 0

    def condition(self, spec: ImageSpec) -> Condition:
        """With the LoRAs that work now, which are the picture's. Raises what the text encoders
        raise."""
        positive = self.encode(spec.prompt, set_of(spec))
        return Condition(
            positive=positive,
            negative=self._negative(spec, positive) if self.is_guided(spec) else None,
            time_ids=self._time_ids(spec, positive),
            guidance=self._guidance(spec, positive),
        )

    def is_guided(self, spec: ImageSpec) -> bool:
        """Whether the unconditional half is needed; turbo models do without."""
        return spec.guidance_scale > 1 and not self._pipeline.unet.config.time_cond_proj_dim

    def _negative(self, spec: ImageSpec, positive: Encoded) -> Encoded:
        zeros = getattr(self._pipeline.config, "force_zeros_for_empty_prompt", False)
        if spec.negative_prompt or positive.pooled is None or not zeros:
            return self.encode(spec.negative_prompt, set_of(spec))
        return Encoded(
            positive.tokens.new_zeros(positive.tokens.shape),
            positive.pooled.new_zeros(positive.pooled.shape),
        )

    def encode(self, text: str, loras: LoraSet = ()) -> Encoded:
        """Once with each set of LoRAs, which may change the encoders; then it is remembered. Raises
        what the text encoders raise."""
        found = self._cache.get((loras, text))
        if found is not None:
            self._cache.move_to_end((loras, text))
            return found
        self._before_encoding()
        made = self._pipeline.encode_prompt(
            prompt=text,
            device=torch.device(self._device_name),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        encoded = Encoded(made[0], made[2] if len(made) > 2 else None)
        self._remember((loras, text), encoded)
        return encoded

    def _remember(self, name: tuple[LoraSet, str], encoded: Encoded) -> None:
        self._cache[name] = encoded
        self.cache_bytes += encoded.size_bytes
        while self.cache_bytes > self._max_cache_bytes:
            _, forgotten = self._cache.popitem(last=False)
            self.cache_bytes -= forgotten.size_bytes

    def _time_ids(self, spec: ImageSpec, encoded: Encoded) -> Tensor | None:
        if encoded.pooled is None:
            return None
        size = (float(spec.height), float(spec.width))
        return encoded.tokens.new_tensor([[*size, 0.0, 0.0, *size]])  # whole size, no crop

    def _guidance(self, spec: ImageSpec, encoded: Encoded) -> Tensor | None:
        channels = self._pipeline.unet.config.time_cond_proj_dim
        if not channels:
            return None
        # As the pipelines do: on the CPU, in full numbers. Of a scale in halves the embedding, of
        # a thousand times as much, would be that of another one.
        scale = torch.tensor([spec.guidance_scale - 1], dtype=torch.float32)
        row = self._pipeline.get_guidance_scale_embedding(scale, embedding_dim=channels)
        return row.to(encoded.tokens)  # type: ignore[no-any-return]


def _size_bytes(tensor: Tensor | None) -> int:
    return tensor.numel() * tensor.element_size() if tensor is not None else 0
