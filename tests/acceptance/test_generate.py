"""`sdq generate` on a whole stack with the built-in model: what a person and a script see."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sd_parsers import ParserManager

from sdq import metadata
from sdq.spec import key_of

ROOT = Path(__file__).parents[2]
PROMPT = "a red circle on a blue background"


def near(pixel: tuple[int, ...], colour: tuple[int, int, int]) -> bool:
    return sum(abs(a - b) for a, b in zip(pixel, colour, strict=False)) < 120


def objects(stdout: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stdout.splitlines()]


def test_a_picture_of_what_was_asked_and_the_second_time_from_the_library(up):
    first = up("generate", PROMPT, "-o", "one.png")
    assert (first.returncode, first.stdout) == (0, "one.png\n"), first.stderr
    assert "made in" in first.stderr
    second = up("generate", PROMPT, "-o", "two.png")
    assert (second.returncode, second.stdout) == (0, "two.png\n"), second.stderr
    assert "from the library" in second.stderr
    one, two = up.folder / "one.png", up.folder / "two.png"
    assert one.read_bytes() == two.read_bytes()
    with Image.open(one) as image:
        assert image.size == (128, 128)
        assert near(image.getpixel((64, 64)), (220, 38, 38))
        assert near(image.getpixel((6, 6)), (37, 99, 235))


def test_the_file_says_what_it_is_to_us_and_to_others(up):
    up("generate", PROMPT, "--negative", "blurry, soft", "-o", "meta.png")
    data = (up.folder / "meta.png").read_bytes()
    found = metadata.read(data)
    assert found is not None
    assert (found.spec.prompt, found.spec.negative_prompt) == (PROMPT, "blurry, soft")
    assert key_of(found.spec, found.fingerprint) == found.key
    assert {"sdq", "torch", "diffusers"} <= found.versions.keys()
    parsed = ParserManager().parse(up.folder / "meta.png")
    assert parsed is not None
    assert [prompt.value for prompt in parsed.prompts] == [PROMPT]
    assert parsed.samplers[0].parameters["seed"] in (found.spec.seed, str(found.spec.seed))


def test_json_has_all_a_script_needs_and_only_the_missing_is_made(up):
    up("generate", "a green star on a white background", "-n", "2", "-o", "s/{n}.png")
    done = up("generate", "a green star on a white background", "-n", "3", "--json", "-o", "t/")
    assert done.returncode == 0, done.stderr
    rows = objects(done.stdout)
    assert sorted(row["cache"] for row in rows) == ["hit", "hit", "made"]
    for row in rows:
        assert {"path", "key", "seed", "cache", "seconds", "spec"} <= row.keys()
        file = metadata.read((up.folder / str(row["path"])).read_bytes())
        assert file is not None
        assert file.spec.seed == row["seed"]
        assert msgspec.to_builtins(file.spec) == row["spec"]
    assert len({row["key"] for row in rows}) == 3


def test_prompts_from_standard_input_a_line_each(up):
    prompts = "a blue square on a white background\n\na pink heart on a black background\n"
    done = up("generate", "-", "-o", "lines/{n:02}-{slug}.jpg", stdin=prompts)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == [
        "lines/01-a-blue-square-on-a-white-background.jpg",
        "lines/02-a-pink-heart-on-a-black-background.jpg",
    ]
    for name in done.stdout.split():
        found = metadata.read((up.folder / name).read_bytes())
        assert found is not None


def test_bytes_to_standard_output(up):
    done = subprocess.run(
        [sys.executable, "-m", "sdq", "generate", PROMPT, "-o", "-"],
        env=up.env,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.startswith(b"\x89PNG")
    assert metadata.read(done.stdout) is not None


def test_new_is_another_picture_and_the_same_seed_the_same(up):
    new = objects(up("generate", PROMPT, "--new", "--json", "-o", "new.png").stdout)[0]
    assert new["cache"] == "made"
    again = up("generate", PROMPT, "--seed", str(new["seed"]), "--json", "-o", "again.png")
    assert objects(again.stdout)[0]["cache"] == "hit"


def test_drawing_again_gives_the_same_bytes(up):
    up("generate", "a cyan ring", "-o", "ring1.png")
    done = up("generate", "a cyan ring", "--cache", "refresh", "--json", "-o", "ring2.png")
    assert objects(done.stdout)[0]["cache"] == "made"
    assert (up.folder / "ring1.png").read_bytes() == (up.folder / "ring2.png").read_bytes()


@pytest.mark.parametrize("scheduler", ["euler", "dpmpp_2m", "unipc"])
def test_other_schedulers_draw_too(up, scheduler: str):
    done = up(
        "generate", PROMPT, "--scheduler", scheduler, "--steps", "12", "-o", f"{scheduler}.png"
    )
    assert done.returncode == 0, done.stderr
    with Image.open(up.folder / f"{scheduler}.png") as image:
        assert near(image.getpixel((6, 6)), (37, 99, 235))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a cat", "--model", "shapez"], 2, "shapes"),
        (["a cat", "--scheduler", "eular"], 2, "euler"),
        (["a cat", "--width", "100"], 2, "multiple of 8"),
        (["a cat", "--width", "512"], 2, "256"),
        ([""], 2, "prompt"),
        (["x" * 2001], 2, "2000"),
        (["a cat", "--cache", "only"], 5, "not in the library"),
        (["a cat", "-o", "picture.gif"], 2, ".png"),
        (["a cat", "--timeout", "0.001"], 7, ""),
        (["a cat", "--server", "127.0.0.1:1"], 3, "127.0.0.1:1"),
        (["a cat", "--model", "sdxl", "--no-wait"], 6, "no worker online holds 'sdxl'"),
    ],
)
def test_what_goes_wrong_is_said_with_its_exit_code(up, arguments, code: int, words: str):
    done = up("generate", *arguments)
    assert done.returncode == code, done.stderr
    assert words in re.sub(r"\s+", " ", done.stderr)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_existing_file_is_kept_unless_forced(up):
    (up.folder / "mine.png").write_text("precious")
    done = up("generate", PROMPT, "-o", "mine.png")
    assert done.returncode == 2
    assert "--force" in done.stderr
    assert (up.folder / "mine.png").read_text() == "precious"
    assert up("generate", PROMPT, "-o", "mine.png", "--force").returncode == 0
    assert (up.folder / "mine.png").read_bytes().startswith(b"\x89PNG")


def test_ctrl_c_stops_the_drawing_and_leaves_nothing(up):
    process = subprocess.Popen(
        [sys.executable, "-m", "sdq", "generate", "a long one", "--steps", "100", "-o", "long.png"],
        cwd=up.folder,
        env=up.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: status(up)["running"] == 1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not list(up.folder.glob("*long*"))
    wait_for(lambda: status(up)["running"] == 0)


def test_the_example_in_the_protocols_document_draws(up):
    text = (ROOT / "docs" / "protocol.md").read_text()
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "socket" in block
    )
    script = up.folder / "example.py"
    script.write_text(example)
    host, _, port = up.env["SDQ_SERVER"].rpartition(":")
    done = subprocess.run(
        [sys.executable, str(script), host, port, PROMPT, "example.png"],
        cwd=up.folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert any(file.read_bytes().startswith(b"\x89PNG") for file in up.folder.glob("example*.png"))


def status(sdq) -> dict[str, int]:
    answer: dict[str, int] = json.loads(sdq("status", "--json").stdout)
    return answer


def wait_for(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_picture_is_found_again_and_proved(up):
    up("generate", "a purple star on a yellow background", "--steps", "8", "-o", "proof.png")
    found = up("find", "yellow", "PURP*", "--keys")
    said = metadata.read((up.folder / "proof.png").read_bytes())
    assert said is not None
    assert found.stdout == f"{said.key}\n", found.stderr
    proved = up("verify", "proof.png")
    assert (proved.returncode, proved.stdout) == (0, "proof.png: identical\n"), proved.stderr
    again = up("generate", "--from", "proof.png", "--seed", str(said.spec.seed + 1), "-o", "o.png")
    assert again.returncode == 0, again.stderr
    with Image.open(up.folder / "proof.png") as image:
        image.putpixel((0, 0), (1, 2, 3))
        info = PngInfo()
        info.add_text("sdq", image.info["sdq"])
        image.save(up.folder / "changed.png", pnginfo=info)
    changed = up("verify", "changed.png")
    assert changed.returncode == 1
    assert "different: 1 of 16384 pixels differ" in changed.stdout
    assert said.key[:12] in up("history", "--limit", "9").stdout
    page = up("gallery", "purple", "-o", "page.html")
    assert page.returncode == 0, page.stderr
    assert "a purple star on a yellow background" in (up.folder / "page.html").read_text()
