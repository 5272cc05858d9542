"""What the file of a LoRA says of itself, looked at before a library reads it.

Names in it become patterns (regular expressions) and its notes become settings of peft, which has
some that import modules by name or read other files. So names must be plain, and notes may say
nothing but the numbers of the LoRA itself.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from sdq.errors import GenerationFailed, ModelError
from sdq.worker.tensor_files import notes_in, read_head, shapes_in

NOTES = "lora_adapter_metadata"
"""Where diffusers keeps them (``diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY``)."""

MAX_TENSORS = 20_000
"""SDXL with all of its layers has some 6,000."""

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,300}\Z")
_NUMBERS = ("r", "lora_alpha", "lora_dropout")
_PATTERNS = ("rank_pattern", "alpha_pattern")
_SWITCHES = ("use_rslora", "use_dora", "lora_bias", "inference_mode", "init_lora_weights")
_WORDS = ("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "bias")
FIRST_HALVES = (".lora_A.", "lora_down.", ".lora.down.", "_lora.down.")
"""Of a layer's two: each layer of a LoRA has one."""


def layers_in(path: Path, name: str) -> int:
    """How many layers of a model the file changes, as far as its names say.

    Raises `GenerationFailed` in words when it is no LoRA, or none that is to be trusted, and
    `OSError`.
    """
    try:
        head = read_head(path)
        shapes, notes = shapes_in(path.name, head), notes_in(path.name, head)
    except ModelError as error:
        raise unfit(name, "it is no safetensors file") from error
    if not 0 < len(shapes) <= MAX_TENSORS:
        raise unfit(name, f"it holds {len(shapes)} tensors")
    for tensor in shapes:
        if not _PLAIN.match(tensor):
            raise unfit(name, f"it holds a tensor of the name {tensor[:60]!r}")
    _check_notes(name, notes.get(NOTES))
    return sum(any(half in tensor for half in FIRST_HALVES) for tensor in shapes)


def unfit(name: str, reason: str) -> GenerationFailed:
    """The error for people."""
    return GenerationFailed(
        f"the LoRA {name} cannot be used with this model: {reason}",
        hint="draw without it, or tell whoever keeps the server's catalog",
    )


def _check_notes(name: str, text: str | None) -> None:
    if text is None:
        return
    try:
        notes = msgspec.json.decode(text, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise unfit(name, "its notes cannot be read") from error
    usual = _usual_settings()
    for key, value in notes.items():
        setting = key.rpartition(".")[2]
        if value != usual.get(setting) and not _is_harmless(setting, value):
            raise unfit(name, f"its notes ask for {setting[:40]!r}, which is not done here")


def _usual_settings() -> dict[str, object]:
    """Those of a LoRA that asks for nothing."""
    from peft import LoraConfig

    nothing: Any = LoraConfig()
    return dict(nothing.to_dict())


def _is_harmless(setting: str, value: object) -> bool:
    if value in (None, False, "", [], {}):
        return True  # switched off, whatever it is
    if setting in _NUMBERS:
        return isinstance(value, int | float)
    if setting in _PATTERNS:
        return isinstance(value, Mapping) and _are_plain(value)
    if setting in ("target_modules", "exclude_modules"):
        return isinstance(value, list) and _are_plain(value)
    if setting in _SWITCHES:
        return isinstance(value, bool)
    if setting in _WORDS:
        return isinstance(value, str) and value not in ("all", "lora_only")  # of ``bias``
    return False


def _are_plain(names: Iterable[object]) -> bool:
    return all(isinstance(name, str) and _PLAIN.match(name.lstrip("^")) for name in names)
