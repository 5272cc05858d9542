"""What one model can draw: the check of a spec, in words for the person who asked."""

import difflib
from collections.abc import Iterable
from typing import NoReturn

from sdq.errors import InvalidSpec
from sdq.protocol.model import ModelManifest
from sdq.spec import MAX_GUIDANCE, SEED_LIMIT, SIZE_MULTIPLE, ImageSpec


def check(spec: ImageSpec, model: ModelManifest) -> None:
    """Raises `InvalidSpec` saying what is right instead. The prompts are not looked at."""
    limits = model.limits
    for name, side in (("width", spec.width), ("height", spec.height)):
        if side % SIZE_MULTIPLE or not limits.min_side <= side <= limits.max_side:
            _refuse_side(name, side, model)
    if spec.width * spec.height > limits.max_pixels:
        raise InvalidSpec(
            f"{spec.width}x{spec.height} has more pixels than model {model.model_id} can draw "
            f"({spec.width * spec.height}, at most {limits.max_pixels})",
            hint="make the width or the height smaller",
        )
    if not 1 <= spec.num_inference_steps <= limits.max_steps:
        raise InvalidSpec(
            f"{spec.num_inference_steps} steps: model {model.model_id} takes 1 to "
            f"{limits.max_steps}",
            hint=f"its default is {model.defaults.num_inference_steps}",
        )
    if spec.scheduler not in limits.schedulers:
        raise InvalidSpec(
            f"model {model.model_id} has no scheduler {spec.scheduler!r}"
            f"{nearest(spec.scheduler, limits.schedulers)}",
            hint="known are " + ", ".join(limits.schedulers),
        )
    # Written so that NaN is refused as well.
    if not 0 <= spec.guidance_scale <= MAX_GUIDANCE:
        raise InvalidSpec(
            f"guidance {spec.guidance_scale:g} must be between 0 and {MAX_GUIDANCE:g}",
            hint=f"the default of model {model.model_id} is {model.defaults.guidance_scale:g}",
        )
    if not 0 <= spec.seed < SEED_LIMIT:
        raise InvalidSpec(f"seed {spec.seed} must be between 0 and {SEED_LIMIT - 1}")


def _refuse_side(name: str, side: int, model: ModelManifest) -> NoReturn:
    smallest, largest = model.limits.min_side, model.limits.max_side
    if not smallest <= side <= largest:
        raise InvalidSpec(
            f"{name} {side} is outside what model {model.model_id} can draw",
            hint=f"choose {smallest} to {largest} pixels; its default is "
            f"{model.defaults.width}x{model.defaults.height}",
        )
    below = side - side % SIZE_MULTIPLE
    near = [size for size in (below, below + SIZE_MULTIPLE) if smallest <= size <= largest]
    raise InvalidSpec(
        f"{name} {side} is not a multiple of {SIZE_MULTIPLE}",
        hint=f"the nearest are {' and '.join(map(str, near))}"
        if len(near) > 1
        else f"the nearest is {near[0]}",
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'euler'?``, or nothing when no known name is near."""
    # Bounded: difflib's time grows with the length of the name, which anybody may send.
    close = difflib.get_close_matches(name[:100].lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
