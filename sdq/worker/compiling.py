"""The UNet through ``torch.compile``: quicker turns for a long load. Nobody's picture waits for a
compiler, and none fails because of one.

What is compiled while the model loads is what is used: turns of pictures of the model's own size,
from one to as many as such a device draws at once. All others go through the UNet as it is.
"""

import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from sdq.protocol.model import ModelManifest, canary_spec
from sdq.spec import ImageSpec
from sdq.worker.conditioning import Conditioner
from sdq.worker.devices import Device, capacity_of
from sdq.worker.latents import LatentFlight, copy_of
from sdq.worker.memory import memory_errors
from sdq.worker.stack import Stack

MOST_DIFFERENCE = {torch.float32: 0.001, torch.float16: 0.05, torch.bfloat16: 0.1}
"""Between what the compiled and the plain UNet say, as a share of the largest number. More is a
wrong compilation: halves keep 11 and 8 bits, through some hundred layers."""

_log = logging.getLogger(__name__)


class Compiled:
    """Stands in for a UNet's ``forward``, which is ``plain``. For one thread at a time."""

    def __init__(self, plain: Callable[..., Any]) -> None:
        self._plain = plain
        self._compiled: Callable[..., Any] = plain
        self._learned: set[torch.Size] = set()
        self.is_learning = False
        self._threads = threading.local()
        self.calls = 0
        """How many went through what was compiled."""

    def __call__(self, sample: Tensor, *arguments: Any, **named: Any) -> Any:
        if self.is_learning:
            return self._learn(sample, *arguments, **named)
        # A change of mode would be compiled for anew.
        if sample.shape not in self._learned or not torch.is_inference_mode_enabled():
            return self._plain(sample, *arguments, **named)
        self._refuse_in_this_thread()
        try:
            made = self._compiled(_in_order(sample), *arguments, **named)
        except torch._dynamo.exc.RecompileError:
            pass  # such as while another model loads, which changes settings of torch for a moment
        except torch._dynamo.exc.TorchDynamoException as error:
            self.give_up(error)
        else:
            self.calls += 1
            return made
        return self._plain(sample, *arguments, **named)

    @property
    def is_used(self) -> bool:
        return bool(self._learned)

    def give_up(self, error: Exception) -> None:
        """From now on all is drawn with the UNet as it is."""
        self._learned.clear()
        reason = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        _log.warning("the UNet is used without compiling: %s: %s", type(error).__name__, reason)

    def retire(self, reason: str) -> None:
        """The same, when that is nobody's fault; said once."""
        if self._learned:
            self._learned.clear()
            _log.info("the UNet is used without compiling from now on: %s", reason)

    def _refuse_in_this_thread(self) -> None:
        """Torch's settings are of each thread. From here on it says so instead of compiling."""
        if not hasattr(self._threads, "refuses"):
            self._threads.refuses = torch._dynamo.config.error_on_recompile = True

    def _learn(self, sample: Tensor, *arguments: Any, **named: Any) -> Any:
        """Compiles for this shape and compares. Raises whatever the compiler does."""
        if not self._learned:
            self._compiled = torch.compile(self._plain, **_of_its_own())
        sample = _in_order(sample)
        right = self._plain(sample, *arguments, **named)[0]
        for tensor in _tensors([sample, arguments, named]):
            torch._dynamo.maybe_mark_dynamic(tensor, 0)  # by the number of pictures
        made = self._compiled(sample, *arguments, **named)
        away = float((made[0] - right).abs().max() / right.abs().max())
        if not away <= MOST_DIFFERENCE[sample.dtype]:
            raise ValueError(f"what was compiled gives other numbers, by {away:.1%}")
        self._learned.add(sample.shape)
        return made


def prepare(pipeline: Any) -> Compiled:
    """Puts a `Compiled` in place of the UNet's forward; nothing is compiled yet.

    To be called before accelerate's hooks come around the forward.
    """
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)  # they tell of each fallback
    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    pipeline.unet.forward = Compiled(pipeline.unet.forward)
    compiled: Compiled = pipeline.unet.forward
    return compiled


def learn(compiled: Compiled, pipeline: Any, device: Device, manifest: ModelManifest) -> None:
    """Compiles for turns of this model: a minute or many. Without raising: whatever comes up ends
    in a warning, or, with a full device, in fewer pictures at once."""
    spec = canary_spec(manifest)
    began = time.monotonic()
    _log.info("compiling the UNet of %s", manifest.model_id)
    compiled.is_learning = True
    try:
        with (
            torch.inference_mode(),
            memory_errors(device.name),
            torch._dynamo.config.patch(error_on_recompile=False),
        ):
            stack = Stack(pipeline.unet, device.name)
            flights = _flights(pipeline, device, spec)
            for count in range(1, len(flights) + 1):
                stack.predict(flights[:count])
    except MemoryError:
        pass  # so many at once are drawn without, if they fit
    except Exception as error:  # noqa: BLE001 - a compiler may fail in any way
        compiled.give_up(error)
    finally:
        compiled.is_learning = False
        _end_compilers()
    if compiled.is_used:
        _log.info("compiled in %.0f s", time.monotonic() - began)


def _flights(pipeline: Any, device: Device, spec: ImageSpec) -> list[LatentFlight]:
    """As many as are drawn at once of such pictures; just begun."""
    capacity = capacity_of(device)
    fitting = capacity.area_pixels // (spec.width * spec.height)
    condition = Conditioner(pipeline, device.name).condition(spec)
    return [
        LatentFlight(
            spec,
            condition,
            copy_of(pipeline.scheduler),
            channels=pipeline.unet.config.in_channels,
            scale_factor=pipeline.vae_scale_factor,
            sets_begin=True,
        )
        for _ in range(max(1, min(capacity.pictures, fitting)))
    ]


def _in_order(sample: Tensor) -> Tensor:
    """Latents come as their schedulers leave them; what was compiled knows one order in memory."""
    return sample.contiguous()


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _of_its_own() -> dict[str, Any]:
    """Models share a class, and so what was compiled of it, unless torch is told otherwise."""
    known = inspect.signature(torch.compile).parameters
    return {"isolate_recompiles": True} if "isolate_recompiles" in known else {}


def _end_compilers() -> None:
    """The processes that torch starts to compile in; it would keep them for later."""
    from torch._inductor.async_compile import shutdown_compile_workers

    shutdown_compile_workers()
