"""LoRAs in a loaded pipeline: which ones are in it, and which of them work now.

Nothing is changed in a pipeline that never met one. Then peft's layers stand around some of the
model's own; with none of them switched on they hand through what these say, bit for bit.
"""

import contextlib
import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch

from sdq.errors import GenerationFailed, SdqError
from sdq.spec import ImageSpec, Lora
from sdq.worker import offload
from sdq.worker.devices import Device
from sdq.worker.flight import Flight
from sdq.worker.lora_files import layers_in, unfit
from sdq.worker.memory import memory_errors

MAX_LOADED = 4
"""LoRAs that stay in a model although nobody needs them at the moment. A picture that asks for more
gets them, and begins beside others only as long as all together need no more than that."""

Find = Callable[[Lora], Path]
"""Where its file lies, which is whole and right."""

LoraSet = tuple[tuple[str, float], ...]
"""Hashes and weights: equal for pictures that may share a turn."""

NO_LAYER = "none of its layers is one of the model's"

_log = logging.getLogger(__name__)


def set_of(spec: ImageSpec) -> LoraSet:
    """What of a picture's LoRAs counts for drawing it."""
    return tuple((lora.sha256, float(lora.weight)) for lora in spec.loras)


def nowhere(lora: Lora) -> Path:
    """The `Find` of who has no place for LoRAs."""
    raise GenerationFailed(f"the LoRA {lora.name} is not here")


class Loras:
    """Those of one pipeline. For the engine's thread. Cancelling is safe between two calls only.

    ``on_change`` is called when the pipeline's parts were taken out of their hooks
    (`sdq.worker.offload`) and put back.
    """

    def __init__(
        self,
        pipeline: Any,
        device: Device,
        find: Find = nowhere,
        *,
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._pipeline = pipeline
        self._device = device
        self._find = find
        self._on_change = on_change
        self._loaded: OrderedDict[str, None] = OrderedDict()  # hashes, the one used last at the end
        self._layers: list[Any] = []
        self._on: LoraSet = ()
        self._flights: WeakSet[Flight] = WeakSet()

    @property
    def loaded(self) -> tuple[str, ...]:
        """The hashes of those that are in memory."""
        return tuple(self._loaded)

    def joins(self, spec: ImageSpec, others: Sequence[Flight]) -> bool:
        """Whether there is room for this picture's LoRAs beside those of others."""
        if not spec.loras:
            return True
        needed = {lora.sha256 for flight in others for lora in flight.spec.loras}
        own = {lora.sha256 for lora in spec.loras}
        return len(needed | own) <= max(MAX_LOADED, len(own))

    def keep_for(self, flight: Flight) -> None:
        """As long as this picture is under way its LoRAs stay."""
        if flight.spec.loras:
            self._flights.add(flight)

    def use(self, spec: ImageSpec) -> None:
        """From now on the pipeline draws with exactly the LoRAs of this picture.

        Raises `GenerationFailed` when one does not fit the model, `MemoryError` when there is too
        little for it, and what ``find`` raises; the pipeline draws with none of them then.
        """
        wanted = set_of(spec)
        if wanted == self._on:
            return
        needed = {sha256 for sha256, _ in wanted}
        for lora in spec.loras:
            if lora.sha256 not in self._loaded:
                self._switch(())
                self._bring(lora, needed)
            self._loaded.move_to_end(lora.sha256)
        self._switch(wanted)

    def _switch(self, wanted: LoraSet) -> None:
        """Not through diffusers, which looks for the layers each time: milliseconds a turn."""
        names = [_name(sha256) for sha256, _ in wanted]
        for layer in self._layers:
            layer._active_adapter = names  # where peft keeps it, its setters go through all weights
            layer._disable_adapters = not names
            for name, (_, weight) in zip(names, wanted, strict=True):
                layer.set_scale(name, weight)
        self._on = wanted

    # ------------------------------------------------------------ in and out of memory

    def _bring(self, lora: Lora, needed: Collection[str]) -> None:
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise GenerationFailed(
                f"this model takes no LoRA, so {lora.name} cannot be used with it",
                hint="draw without it, or with another model",
            )
        path = self._find(lora)
        try:
            expected = layers_in(path, lora.name)
        except OSError as error:
            raise SdqError(f"the LoRA {lora.name} cannot be read: {error.strerror}") from error
        try:
            self._load(lora, path, expected, self._surplus(MAX_LOADED - 1, needed))
        except MemoryError:
            idle = self._surplus(0, needed)
            if not idle:
                raise
        else:
            return
        self._load(lora, path, expected, idle)  # once the error and what it holds are gone

    def _surplus(self, most: int, needed: Collection[str]) -> list[str]:
        """Those that may leave, the one that was idle longest first, so that no more stay."""
        flying = {lora.sha256 for flight in self._flights for lora in flight.spec.loras}
        idle = [sha256 for sha256 in self._loaded if sha256 not in flying | {*needed}]
        return idle[: max(0, len(self._loaded) - most)]

    def _load(self, lora: Lora, path: Path, expected: int, leaving: Sequence[str]) -> None:
        """Puts it in, switched off. When that fails, all is as before."""
        _silence()
        _stop_compiled(self._pipeline)
        with self._without_hooks():
            for sha256 in leaving:
                self._remove(sha256)
            try:
                with memory_errors(self._device.name):
                    self._pipeline.load_lora_weights(
                        str(path), adapter_name=_name(lora.sha256), use_safetensors=True
                    )
                    self._settle(lora, expected)
            except MemoryError:
                self._remove(lora.sha256)
                raise
            except Exception as error:
                self._remove(lora.sha256)
                if isinstance(error, GenerationFailed):
                    raise
                raise unfit(lora.name, _in_words(error)) from error
            self._loaded[lora.sha256] = None

    @contextlib.contextmanager
    def _without_hooks(self) -> Iterator[None]:
        """diffusers would put the hooks back in its own way, and on the first device."""
        was_hooked = False
        try:
            with (
                torch.inference_mode(),  # as weights that have moved in it, which peft marks
                offload.without_hooks(self._pipeline, self._device) as was_hooked,
            ):
                yield
        finally:
            if was_hooked:
                self._on_change()

    def _settle(self, lora: Lora, expected: int) -> None:
        """Its weights in the form of the model's. Raises `GenerationFailed` when there are none."""
        self._look_for_layers()
        name = _name(lora.sha256)
        layers = [layer for layer in self._layers if name in layer.scaling]
        if not layers:
            raise unfit(lora.name, NO_LAYER)
        if len(layers) < expected:
            _log.warning(
                "LoRA %s: %d of its %d layers are not in the model and are left out",
                lora.name,
                expected - len(layers),
                expected,
            )
        is_last = not self._device.name.startswith("mps")  # as `pipelines.channels_last`
        for layer in layers:
            layer.eval()
            weights = layer.get_base_layer().weight
            for half in (layer.lora_A, layer.lora_B):
                if name in half:
                    half[name].to(device=weights.device, dtype=weights.dtype)
                    if is_last:
                        half[name].to(memory_format=torch.channels_last)
        self._switch(())

    def _remove(self, sha256: str) -> None:
        """Takes out whatever there is of it, and peft's layers with the last one."""
        self._loaded.pop(sha256, None)
        self._look_for_layers()
        self._switch(())
        name = _name(sha256)
        for layer in self._layers:
            layer.delete_adapter(name)
        for part in _parts(self._pipeline):
            getattr(part, "peft_config", {}).pop(name, None)
        if not self._loaded and self._layers:
            self._pipeline.unload_lora_weights()
            self._layers = []

    def _look_for_layers(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [
            layer
            for part in _parts(self._pipeline)
            for layer in part.modules()
            if isinstance(layer, BaseTunerLayer)
        ]


def _name(sha256: str) -> str:
    """As peft knows it."""
    return sha256[:16]


def _parts(pipeline: Any) -> list[torch.nn.Module]:
    found = pipeline.components.values()
    return [part for part in found if isinstance(part, torch.nn.Module)]


def _stop_compiled(pipeline: Any) -> None:
    """What was compiled of the UNet knows nothing of LoRAs, and each would be compiled anew."""
    unet = getattr(pipeline, "unet", None)
    for forward in (getattr(unet, "forward", None), getattr(unet, "_old_forward", None)):
        retire = getattr(forward, "retire", None)  # `sdq.worker.compiling.Compiled`
        if retire is not None:
            retire("a LoRA was asked for")


def _silence() -> None:
    """What does not fit is said by us, once, and to the one who asked."""
    warnings.filterwarnings("ignore", module=r"peft\.")
    for name in ("diffusers.loaders", "diffusers.utils.peft_utils", "transformers.integrations"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _in_words(error: Exception) -> str:
    """What diffusers, peft, transformers and safetensors say, for who asked for a picture."""
    text = " ".join(str(error).split())
    if "size mismatch" in text or "mismatched_sizes" in text:
        return "it was made for another kind of model, its layers have other sizes"
    if "not found in the base model" in text:
        return NO_LAYER
    return f"it is no LoRA of a kind that is known here ({type(error).__name__}: {text[:150]})"
