"""What a picture says of itself: read back by us and by an outside reader."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager
from sd_parsers.data import PromptInfo

from sdq.errors import UsageError
from sdq.metadata import Provenance, convert, parameters_text, png_bytes, read
from sdq.spec import MAX_PROMPT_CHARACTERS, ImageSpec, Lora

FORMATS = ["PNG", "JPEG", "WEBP"]


def provenance(prompt: str = "a red circle", negative: str = "", **change: Any) -> Provenance:
    spec = ImageSpec(prompt, negative, "shapes", 64, 48, 20, 7.5, "euler_ancestral", 965_400_086)
    return Provenance(
        spec=msgspec.structs.replace(spec, **change),
        key="a" * 64,
        fingerprint="b" * 64,
        model_hash="45dee52b00",
        device="cpu",
        versions={"sdq": "0.1.0", "torch": "2.6"},
    )


def file_of(known: Provenance, file_format: str) -> bytes:
    png = png_bytes(Image.new("RGB", (64, 48), "red"), known)
    return png if file_format == "PNG" else convert(png, file_format)


_kept_open: list[Image.Image] = []


def outside_reader(data: bytes) -> PromptInfo:
    """sd-parsers remembers pictures by their place in memory: none may be used twice."""
    image = Image.open(io.BytesIO(data))
    _kept_open.append(image)
    found = ParserManager().parse(image)
    assert found is not None
    return found


PROMPTS = {
    "plain": ("a red circle", "blurry"),
    "no negative": ("a red circle", ""),
    "Latin-1": ("ein Käse", "hässlich"),
    "beyond": ("日本 😀 Ω", "плохо"),
    "lines": ("a\nb\n\nc", "d\ne"),
    "false friends": ("a\nNegative prompt: b\nSteps: 1, Sampler: x, Seed: 2", "Negative prompt: c"),
    "marks": ('a, b: c "d" {e|f} \\ <lora:x:1>', "(worst:1.4)"),
    "control characters": ("a\x00b\x1b[31mc", "\x7f"),
    "longest": ("x" * MAX_PROMPT_CHARACTERS, "y" * MAX_PROMPT_CHARACTERS),
    "longest in UTF-16": ("😀" * MAX_PROMPT_CHARACTERS, "😀" * MAX_PROMPT_CHARACTERS),
    "longest in JSON": ("\x01" * MAX_PROMPT_CHARACTERS, "\x02" * MAX_PROMPT_CHARACTERS),
}


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", PROMPTS)
def test_there_and_back(name: str, file_format: str) -> None:
    known = provenance(*PROMPTS[name])
    assert read(file_of(known, file_format)) == known


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", ["plain", "no negative", "Latin-1", "beyond", "lines", "marks"])
def test_an_outside_reader_finds_it_too(name: str, file_format: str) -> None:
    prompt, negative = PROMPTS[name]
    data = file_of(provenance(prompt, negative), file_format)
    found = outside_reader(data)
    assert [p.value for p in found.prompts] == [prompt]
    assert [p.value for p in found.negative_prompts] == ([negative] if negative else [])
    [sampler] = found.samplers
    assert sampler.name == "Euler a"
    assert sampler.parameters["seed"] == "965400086"
    assert sampler.parameters["steps"] == "20"
    assert sampler.parameters["cfg_scale"] == "7.5"
    assert [(model.name, model.hash) for model in found.models] == [("shapes", "45dee52b00")]
    assert found.metadata["Size"] == "64x48"


def test_the_text_is_as_a1111_writes_it() -> None:
    assert parameters_text(provenance("a\nb", "c")) == (
        "a\nb\nNegative prompt: c\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 965400086, Size: 64x48, "
        "Model hash: 45dee52b00, Model: shapes, Version: sdq 0.1.0"
    )
    assert "Negative prompt" not in parameters_text(provenance("a"))
    assert "CFG scale: 7," in parameters_text(provenance(guidance_scale=7.0))


@pytest.mark.parametrize("value", ["a, b", "a: b", "a\nb", 'say "x", y'])
def test_values_that_would_break_the_line_are_quoted(value: str) -> None:
    last_line = parameters_text(provenance(model=value)).splitlines()[-1]
    assert f"Model: {msgspec.json.encode(value).decode()}, Version" in last_line
    data = file_of(provenance(model=value), "PNG")
    found = outside_reader(data)
    assert found.metadata["Version"] == "sdq 0.1.0"


LORAS = (Lora("neon", "0a" * 32, 0.8), Lora("ink.v2", "f0" * 32, -1.0))


def test_loras_are_told_as_a1111_tells_them() -> None:
    known = provenance("a\nb", "c", loras=LORAS)
    assert parameters_text(known) == (
        "a\nb <lora:neon:0.8> <lora:ink.v2:-1>\nNegative prompt: c\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 965400086, Size: 64x48, "
        "Model hash: 45dee52b00, Model: shapes, "
        'Lora hashes: "neon: 0a0a0a0a0a0a, ink.v2: f0f0f0f0f0f0", Version: sdq 0.1.0'
    )
    odd = provenance(loras=(Lora("a:b,<c>\nd", "0a" * 32, 1.0),))
    assert "<lora:abcd:1>" in parameters_text(odd)


@pytest.mark.parametrize("file_format", FORMATS)
def test_loras_come_back_and_an_outside_reader_still_finds_all(file_format: str) -> None:
    known = provenance("a red circle", "blurry", loras=LORAS)
    data = file_of(known, file_format)
    assert read(data) == known
    found = outside_reader(data)
    assert [p.value for p in found.prompts] == ["a red circle <lora:neon:0.8> <lora:ink.v2:-1>"]
    assert [p.value for p in found.negative_prompts] == ["blurry"]
    assert [model.name for model in found.models] == ["shapes"]
    [sampler] = found.samplers
    assert sampler.parameters == {"cfg_scale": "7.5", "seed": "965400086", "steps": "20"}
    assert found.metadata["Size"] == "64x48"
    assert found.metadata["Version"] == "sdq 0.1.0"


def test_the_text_of_a_picture_without_loras_says_nothing_of_them() -> None:
    assert b"lora" not in msgspec.json.encode(provenance())
    assert "ora" not in parameters_text(provenance())


def test_which_chunks_a_png_has() -> None:
    latin = file_of(provenance("Käse"), "PNG")
    assert b"tEXtparameters\0K\xe4se" in latin
    wide = file_of(provenance("日本"), "PNG")
    assert b"iTXtparameters\0" in wide


def test_an_unknown_scheduler_keeps_its_name() -> None:
    assert "Sampler: my_own," in parameters_text(provenance(scheduler="my_own"))


def plain_picture(file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, file_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_picture_of_somebody_else_says_nothing(file_format: str) -> None:
    assert read(plain_picture(file_format)) is None


def test_a_caption_of_a_camera_says_nothing() -> None:
    for caption in ("OLYMPUS DIGITAL CAMERA", b"\xff\xfe", '{"x": 1}', 7):
        exif = Image.Exif()
        exif[0x010E] = caption
        assert read(plain_picture("JPEG", exif=exif.tobytes())) is None


def with_sdq_text(text: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("sdq", text)
    return plain_picture("PNG", pnginfo=info)


GOOD_JSON = msgspec.json.encode(provenance()).decode()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", "x", '{"spec": {}}', GOOD_JSON[:-1], "[" * 100_000,
     GOOD_JSON.replace('"width":64', '"width":6400000'),
     GOOD_JSON.replace('"width":64', '"width":"64"'),
     GOOD_JSON.replace('"seed":', '"strength":1,"seed":')],
)  # fmt: skip
def test_tampered_text_is_the_users_error(text: str) -> None:
    with pytest.raises(UsageError, match="sdq text cannot be read"):
        read(with_sdq_text(text))
    assert read(with_sdq_text(GOOD_JSON)) == provenance()


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x10\0\0\0WEBPVP8 ", b"GIF89a",
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"<svg/>", plain_picture("BMP"),
     plain_picture("GIF"), plain_picture("TIFF")],
)  # fmt: skip
@pytest.mark.parametrize("act", [read, lambda data: convert(data, "JPEG")])
def test_what_is_no_picture_of_ours(data: bytes, act: Callable[[bytes], object]) -> None:
    with pytest.raises(UsageError, match="not a picture that can be read") as caught:
        act(data)
    assert caught.value.hint


def chunk(name: bytes, data: bytes) -> bytes:
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_with(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", b"") + b""


@pytest.mark.parametrize("side", [5_000, 12_000, 60_000, 2**31 - 1])
def test_a_bomb_of_pixels_is_an_error(side: int) -> None:
    with pytest.raises(UsageError):
        read(png_with(side, side))


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt"])
def test_a_bomb_of_text_is_an_error_or_left_out(name: bytes) -> None:
    packed = zlib.compress(b" " * 100_000_000)
    middle = b"\0\0" if name == b"zTXt" else b"\0\1\0\0\0"
    data = png_with(8, 8, chunk(name, b"sdq" + middle + packed))
    with suppress(UsageError):
        assert read(data) is None


def test_a_huge_plain_text_is_an_error() -> None:
    with pytest.raises(UsageError):
        read(png_with(8, 8, chunk(b"tEXt", b"sdq\0" + b"x" * 3_000_000)))


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_damaged_file_is_an_error_and_never_a_crash(file_format: str) -> None:
    whole = file_of(provenance("Käse 日本"), file_format)
    dice = random.Random(7)
    for round_number in range(400):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 2, 8))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        if round_number % 5 == 0:
            del data[dice.randrange(len(data)) :]
        with suppress(UsageError):
            read(bytes(data))
