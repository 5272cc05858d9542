"""What a picture file says of itself, in words that other tools read and in full.

Two texts go into every file:

- ``parameters``: the text of the A1111 web UI (format read from its ``modules/images.py``,
  ``processing.py`` and ``infotext_utils.py``): prompt, negative prompt, then one line of
  ``Name: value`` pairs. LoRAs stand behind the prompt as ``<lora:name:weight>``, and once more
  by ``Lora hashes`` (from its ``extensions-builtin/Lora``). A PNG text chunk; in JPEG and WebP the
  EXIF field UserComment. Many tools read it, but it is not lossless.
- ``sdq``: JSON with the whole spec and what drew it. This one is the truth. A PNG text chunk;
  in JPEG and WebP the EXIF field ImageDescription.
"""

import io
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from sdq.errors import UsageError
from sdq.spec import MAX_SIDE_PIXELS, ImageSpec, Lora

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_IMAGE_DESCRIPTION = 0x010E
_MAX_EXIF_BYTES = 65_000
_FORMATS = ("PNG", "JPEG", "WEBP")
_UNICODE_PREFIX = b"UNICODE\x00"

SAMPLER_NAMES = {
    "ddim": "DDIM",
    "pndm": "PLMS",
    "euler": "Euler",
    "euler_ancestral": "Euler a",
    "dpmpp_2m": "DPM++ 2M",
    "lcm": "LCM",
    "heun": "Heun",
    "unipc": "UniPC",
}
"""Our schedulers by the names that A1111 shows."""


LORA_HASH_DIGITS = 12
"""As A1111 writes. Ours begin the SHA-256 of the file; it hashes what is behind the header, so its
own digits are others, and readers go by the name."""


class Provenance(msgspec.Struct, frozen=True):
    """The ``sdq`` text: all that is needed to draw the picture again."""

    spec: ImageSpec
    key: str
    fingerprint: str  # of the model
    model_hash: str  # first 10 hexadecimal digits, as A1111 writes
    device: str
    versions: dict[str, str]  # sdq, torch, diffusers


def parameters_text(provenance: Provenance) -> str:
    """The A1111 text."""
    spec = provenance.spec
    pairs = {
        "Steps": str(spec.num_inference_steps),
        "Sampler": SAMPLER_NAMES.get(spec.scheduler, spec.scheduler),
        "CFG scale": f"{spec.guidance_scale:g}",
        "Seed": str(spec.seed),
        "Size": f"{spec.width}x{spec.height}",
        "Model hash": provenance.model_hash,
        "Model": spec.model,
    }
    if spec.loras:
        pairs["Lora hashes"] = ", ".join(
            f"{_tag_name(lora)}: {lora.sha256[:LORA_HASH_DIGITS]}" for lora in spec.loras
        )
    pairs["Version"] = f"sdq {provenance.versions.get('sdq', '')}".strip()
    tags = [f"<lora:{_tag_name(lora)}:{lora.weight:g}>" for lora in spec.loras]
    lines = [" ".join([spec.prompt, *tags])]
    if spec.negative_prompt:
        lines.append(f"Negative prompt: {spec.negative_prompt}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in pairs.items()))
    return "\n".join(lines)


def _tag_name(lora: Lora) -> str:
    """Without what would end the name in a tag or in the list of hashes."""
    return re.sub(r"[:,<>\s]", "", lora.name)


def _quoted(value: str) -> str:
    special = any(mark in value for mark in ",:\n")
    return json.dumps(value, ensure_ascii=False) if special else value


def png_bytes(image: "Image", provenance: Provenance) -> bytes:
    """The picture as PNG with both texts."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    _add_text(info.add_text, info.add_itxt, "parameters", parameters_text(provenance))
    _add_text(info.add_text, info.add_itxt, "sdq", msgspec.json.encode(provenance).decode())
    buffer = io.BytesIO()
    # Level 1 is several times quicker than the default; the files grow by some per cent.
    image.save(buffer, "PNG", pnginfo=info, compress_level=1)
    return buffer.getvalue()


def _add_text(add_text: object, add_itxt: object, name: str, text: str) -> None:
    """tEXt where Latin-1 suffices, as other tools expect, else iTXt."""
    assert callable(add_text)
    assert callable(add_itxt)
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        add_itxt(name, text)
    else:
        add_text(name, text)


def convert(png: bytes, file_format: str, quality: int = 92) -> bytes:
    """A PNG of ours as ``JPEG`` or ``WEBP``, both texts carried over into EXIF.

    Raises `UsageError` when the bytes are no picture.
    """
    with _opened(png) as image:
        exif = image.getexif()
        _fill_exif(exif, str(image.info.get("parameters", "")), str(image.info.get("sdq", "")))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, file_format, quality=quality, exif=exif.tobytes())
    return buffer.getvalue()


def _fill_exif(exif: "Exif", parameters: str, sdq: str) -> None:
    description = sdq.encode("utf-8")
    comment = _UNICODE_PREFIX + parameters.encode("utf-16-be")
    exif[_IMAGE_DESCRIPTION] = description
    # JPEG has room for 64 KiB; two very long prompts leave it to the text that is the truth.
    if len(description) + len(comment) < _MAX_EXIF_BYTES:
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment


def read(data: bytes) -> Provenance | None:
    """What a file of ours says of itself; ``None`` when it says nothing of sdq.

    Raises `UsageError` when the bytes are no picture or the text was tampered with.
    """
    with _opened(data) as image:
        text = _sdq_text(image)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Provenance)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise UsageError(
            f"its sdq text cannot be read: {error}", hint="the file was changed by another program"
        ) from error


def _sdq_text(image: "Image") -> bytes:
    chunk = image.info.get("sdq")
    if isinstance(chunk, str):
        return chunk.encode("utf-8", "replace")
    described = image.getexif().get(_IMAGE_DESCRIPTION, "")
    # Pillow reads EXIF text as Latin-1; other programs put captions there.
    text = described.encode("latin-1", "replace") if isinstance(described, str) else b""
    return text if text.startswith(b'{"spec"') else b""


def decoded(data: bytes) -> "Image":
    """The pixels of a PNG, JPEG or WebP file. Raises `UsageError` when it is no picture."""
    with _opened(data) as image:
        image.load()
        return image


@contextmanager
def _opened(data: bytes) -> Iterator["Image"]:
    """The picture in ``data``; all that a broken or hostile file may cause is a `UsageError`."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes (ours are bounded) and odd EXIF
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                if max(image.size) > MAX_SIDE_PIXELS:
                    raise ValueError(f"{image.width}x{image.height} pixels are too many")
                yield image
    except UsageError:
        raise
    except Exception as error:  # Pillow raises what its parsers stumble on
        raise UsageError(
            f"this is not a picture that can be read: {_reason(error)}",
            hint="sdq reads PNG, JPEG and WebP",
        ) from error


def _reason(error: Exception) -> str:
    """In words; Pillow names the place in memory of what it cannot identify."""
    return str(error).partition(" <_io.")[0] or type(error).__name__
