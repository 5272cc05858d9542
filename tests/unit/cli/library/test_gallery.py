"""``sdq gallery``: one HTML file, whole or not at all, harmless whatever the prompts are.

How it looks, its search, dialog and keys were tried by hand in a browser; here its HTML is read.
"""

import base64
import hashlib
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sdq.spec import SpecDraft
from sdq.testing.transport import drawn, resolved

VOID = {"meta", "img", "input"}


class Read(HTMLParser):
    """The page as a browser takes it: elements, texts by element, and that all are closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_has_each_picture_and_nothing_else(shop: Any, ask: Any) -> None:
    code, out, err = ask("gallery", "-o", "pages/g.html", "--title", "<Mine>", "--thumbnail", "32")
    assert (code, out) == (0, "pages/g.html\n")
    assert "4 pictures" in err
    html = Path("pages/g.html").read_text("utf-8")
    page = Read(html)
    assert page.texts["h2"] == [spec.prompt for spec in reversed(shop.specs)]
    assert page.texts["title"] == ["<Mine>"]
    assert {"key", "seed", "fingerprint"} <= set(page.texts["dt"])
    assert set(shop.keys) <= set(page.texts["dd"])
    for attrs in page.all("img"):
        kind, _, data = str(attrs["src"]).partition(",")
        assert kind == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert (image.format, image.size) == ("WEBP", (32, 32))


def test_no_prompt_is_run_and_nothing_is_loaded(shop: Any, ask: Any) -> None:
    ask("gallery", "-o", "g.html")
    html = Path("g.html").read_text("utf-8")
    page = Read(html)
    assert len(page.all("script")) == html.count("<script") == 1
    assert not page.all("b")  # of a prompt
    assert not page.all("link")
    assert not any("onerror" in attrs or "href" in attrs for _, attrs in page.tags)
    digest = base64.b64encode(hashlib.sha256(page.texts["script"][0].encode()).digest()).decode()
    (policy,) = [str(attrs["content"]) for attrs in page.all("meta") if "http-equiv" in attrs]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://", html)


def test_words_and_filters_choose(shop: Any, ask: Any) -> None:
    ask("gallery", "red", "--seed", "2", "-o", "g.html")
    assert Read(Path("g.html").read_text("utf-8")).texts["h2"] == ["a red square"]
    ask("gallery", "--limit", "2", "-o", "h.html")
    assert len(Read(Path("h.html").read_text("utf-8")).texts["h2"]) == 2


def test_a_folder(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDQ_SERVER", "127.0.0.1:1")  # nobody is asked
    Path("pics/deep").mkdir(parents=True)
    Path("pics/deep/a.png").write_bytes(drawn(resolved(SpecDraft(prompt="in a folder"))))
    Path("pics/broken.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8)).save("pics/silent.jpg")
    Path("pics/link.png").symlink_to(Path("pics/deep/a.png").absolute())
    os.mkfifo("pics/pipe.png")  # without a writer: who opens it waits
    code, out, _ = ask("gallery", "--from", "pics", "-o", "g.html", "--json")
    assert code == 0
    said = json.loads(out)
    assert (said["pictures"], said["without"], said["left_out"]) == (1, 2, 0)
    assert Read(Path("g.html").read_text("utf-8")).texts["h2"] == ["in a folder"]
    assert ask("gallery", "red", "--from", "pics", "-o", "h.html")[0] == 2
    assert ask("gallery", "--from", "nowhere", "-o", "h.html")[0] == 2


def test_whole_or_not_at_all(shop: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("g.html").write_text("mine")
    code, _, err = ask("gallery", "-o", "g.html")
    assert code != 0
    assert "exists already" in err
    assert ask("gallery", "nothing", "-o", "g.html", "--force")[0] == 2  # no picture, no page
    assert Path("g.html").read_text() == "mine"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sdq.cli.gallery.making._Writer.add", full)
    code, _, err = ask("gallery", "-o", "g.html", "--force")
    assert code != 0
    assert "No space left" in err
    assert Path("g.html").read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["g.html"]
    assert ask("gallery", "-o", "g.txt")[0] == 2


def test_a_page_has_an_end(shop: Any, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdq.cli.gallery.making.MAX_PAGE_BYTES", 3_000)
    code, out, _ = ask("gallery", "-o", "g.html", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["pictures"] + said["left_out"] == 4
    assert 0 < said["pictures"] < 4
    assert len(Read(Path("g.html").read_text("utf-8")).texts["h2"]) == said["pictures"]


def test_one_that_is_gone_stops_no_other(shop: Any, ask: Any, tmp_path: Path) -> None:
    key = shop.keys[0]
    file = next((tmp_path / "server").rglob(f"{key}.png"))
    file.write_bytes(b"damaged")
    said = json.loads(ask("gallery", "-o", "g.html", "--json")[1])
    assert (said["pictures"], said["without"]) == (3, 1)
