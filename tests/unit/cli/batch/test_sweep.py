"""`sdq sweep`: combinations of values on one sheet."""

import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq.cli.batch.axes import sweep_of
from sdq.cli.batch.sheet import refuse_foreign
from sdq.errors import OutputError, UsageError
from sdq.spec import SpecDraft
from sdq.testing.scripted_plans import ScriptedHouse
from sdq.testing.transport import ScriptedServer

Sdq = Callable[..., Awaitable[Any]]
DRAFT = SpecDraft("", "blurry")


def test_the_last_list_goes_across_and_the_others_down() -> None:
    sweep = sweep_of(
        DRAFT, ["a", "b"], {"seed": "7", "steps": "5, 10,20", "guidance": "3,7.5", "model": None}
    )
    assert sweep.columns == ("guidance 3", "guidance 7.5")
    assert sweep.rows == (
        "a, steps 5", "a, steps 10", "a, steps 20", "b, steps 5", "b, steps 10", "b, steps 20",
    )  # fmt: skip
    lines = sweep.lines()
    assert [line.number for line in lines] == list(range(1, 13))
    drafts = [line.draft for line in lines]
    assert drafts[1] == SpecDraft("a", "blurry", num_inference_steps=5, guidance_scale=7.5, seed=7)
    assert [draft.num_inference_steps for draft in drafts[::2]] == [5, 10, 20] * 2
    assert [draft.prompt for draft in drafts] == ["a"] * 6 + ["b"] * 6


def test_an_axis_that_is_not_last_may_be_the_only_one() -> None:
    sweep = sweep_of(DRAFT, ["a"], {"size": "64x64,128x64", "steps": "5"})
    assert (sweep.columns, sweep.rows) == (("size 64x64", "size 128x64"), ("",))
    assert [(line.draft.width, line.draft.num_inference_steps) for line in sweep.lines()] == [
        (64, 5), (128, 5),
    ]  # fmt: skip
    one = sweep_of(DRAFT, ["a"], {})
    assert (one.columns, one.rows, len(one.lines())) == (("",), ("",), 1)


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ({"steps": "5,x"}, "--steps 5,x is no list"),
        ({"guidance": "3,,7"}, "is no list"),
        ({"scheduler": ","}, "twice"),
        ({"seed": "1,1"}, "twice"),
        ({"size": "big"}, "is no size"),
        ({"seed": ",".join(map(str, range(401)))}, "401 pictures, a sheet holds 400"),
    ],
)
def test_lists_that_mean_nothing(lists: dict[str, str | None], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        sweep_of(DRAFT, ["a"], lists)
    assert words in refused.value.message


@pytest.fixture
async def server() -> AsyncIterator[str]:
    async with ScriptedServer(ScriptedHouse(breaks={"b": -1}).handle) as server:
        yield server.address


async def test_a_sheet(sdq: Sdq, tmp_path: Path, server: str) -> None:
    flags = ("--steps", "5,6,7", "--guidance", "3,7", "--grid", "sheet.png")
    outcome = await sdq("sweep", "a", *flags, server=server)
    assert (outcome.code, outcome.lines) == (0, ["sheet.png"]), outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        colours = sheet.convert("RGB").getcolors(100_000)
        assert sheet.width > 2 * 64
        assert sheet.height > 3 * 64
    assert colours is not None
    assert sum(count >= 64 * 64 for count, _ in colours) == 7, "six pictures and the paper"
    again = await sdq("sweep", "a", *flags, "-o", "cells/", server=server)
    assert (again.code, len(again.lines)) == (0, 7)
    assert "6 from the library" in again.stderr


async def test_a_place_without_its_picture_is_grey(sdq: Sdq, tmp_path: Path, server: str) -> None:
    outcome = await sdq("sweep", "{a|b}", "--expand", "--grid", "s.webp", "--json", server=server)
    assert outcome.code == 1
    assert b'"event": "grid"' in outcome.stdout
    with Image.open(tmp_path / "s.webp") as sheet:
        right = sheet.convert("RGB").getpixel((sheet.width - 12, sheet.height - 40))
    assert isinstance(right, tuple)
    assert max(abs(part - 0xD0) for part in right) < 6


async def test_what_is_no_sheet_of_ours_is_not_replaced(
    sdq: Sdq, tmp_path: Path, server: str
) -> None:
    (tmp_path / "mine.png").write_bytes(b"notes")
    outcome = await sdq("sweep", "a", "--grid", "mine.png", server=server)
    assert outcome.code == 2
    assert "no sheet" in outcome.stderr
    assert (tmp_path / "mine.png").read_bytes() == b"notes"
    gif = await sdq("sweep", "a", "--grid", "mine.gif", server=server)
    assert gif.code == 2


def test_a_file_that_claims_to_be_far_too_large_is_no_sheet(tmp_path: Path) -> None:
    data = b"\x89PNG\r\n\x1a\n"
    for chunk in (b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT"):
        data += struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "huge.png").write_bytes(data)
    with pytest.raises(OutputError, match="is no sheet"):
        refuse_foreign(tmp_path / "huge.png", force=False)
