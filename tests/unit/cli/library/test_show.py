"""``sdq show`` and ``sdq inspect``: what a file says, ours and those of other programs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdq.metadata import Provenance, convert, png_bytes
from sdq.spec import Lora, SpecDraft
from sdq.testing.transport import FINGERPRINT, drawn, resolved

A1111 = """a castle, fog
Negative prompt: blurry
Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x512, Model hash: 45dee52b"""


def foreign(path: Path, text: str, number: int = 0) -> None:
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (8 + number, 8)).save(path, pnginfo=info)


def test_a_file_and_a_key(shop: Any, ask: Any) -> None:
    Path("out.png").write_bytes(drawn(shop.specs[0]))
    code, out, _ = ask("show", "out.png")
    assert code == 0
    assert "prompt:      a red circle\n" in out
    assert "seed:        0\n" in out
    assert "▀" not in out  # nobody looks: it is no terminal
    code, out, _ = ask("show", shop.keys[3][:8])
    assert "</script><b>é\\x1b[31m" in out
    assert json.loads(ask("show", shop.keys[1], "--json")[1])["spec"]["prompt"] == "a blue circle"
    code, _, err = ask("show", "nothing.png")
    assert code == 2
    assert "no file, and no key" in err


def test_inspect_needs_no_server(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDQ_SERVER", "127.0.0.1:1")
    lora = Lora("neon", "a" * 64, 0.8)
    spec = resolved(SpecDraft(prompt="x", negative_prompt="line\nend"))
    spec = type(spec)(**{**{n: getattr(spec, n) for n in spec.__struct_fields__}, "loras": (lora,)})
    said = Provenance(spec, "b" * 64, FINGERPRINT, "f" * 10, "cuda:0", {"sdq": "1", "torch": "2"})
    png = png_bytes(Image.new("RGB", (64, 64)), said)
    for name, data in (("a.png", png), ("a.webp", convert(png, "WEBP"))):
        Path(name).write_bytes(data)
        code, out, _ = ask("inspect", name)
        assert code == 0
        for line in (
            "negative:    line\\nend",
            "lora:        neon:0.8 (aaaaaaaaaa)",
            "versions:    sdq 1, torch 2",
            "device:      cuda:0",
        ):
            assert line in out.splitlines()
        said_too = json.loads(ask("inspect", "--json", name)[1])
        assert said_too["program"] == "sdq"
        assert said_too["spec"]["loras"] == [{"name": "neon", "sha256": "a" * 64, "weight": 0.8}]


def test_files_of_other_programs(ask: Any) -> None:
    foreign(Path("one.png"), A1111)
    foreign(Path("two.png"), A1111.replace("castle", "tower"))
    code, out, _ = ask("inspect", "--json", "one.png", "two.png")
    assert code == 0
    one, two = (json.loads(line) for line in out.splitlines())
    assert one["program"] == "AUTOMATIC1111"
    assert (one["prompt"], two["prompt"]) == ("a castle, fog", "a tower, fog")
    assert one["negative_prompt"] == "blurry"
    assert one["samplers"][0]["parameters"]["seed"] == "965400086"
    assert "prompt:     a castle, fog" in ask("inspect", "one.png")[1].splitlines()


def test_what_says_nothing_stops_no_other(ask: Any) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    Path("text.png").write_text("no picture")
    foreign(Path("good.png"), A1111)
    code, out, err = ask("inspect", "plain.png", "text.png", "missing.png", "good.png")
    assert code == 2
    assert "a castle" in out
    assert "plain.png does not say how it was drawn" in err
    assert "text.png: this is not a picture that can be read: cannot identify image file\n" in err
    assert "cannot read missing.png" in err
    assert ask("inspect", "plain.png")[0] == 2


def test_without_sd_parsers_it_says_what_to_install(tmp_path: Path) -> None:
    foreign(tmp_path / "one.png", A1111)
    (tmp_path / "ours.png").write_bytes(drawn(resolved(SpecDraft(prompt="x"))))
    code = (
        "import sys; sys.modules['sd_parsers'] = None\n"
        "from sdq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )

    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "inspect", str(tmp_path / name)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("ours.png").returncode == 0
    found = run("one.png")
    assert found.returncode == 2
    assert "pip install 'sdq[inspect]'" in found.stderr
