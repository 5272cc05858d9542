"""Tokens and proxies: who is told what. What else a line may do is in test_mirrors.py."""

from hashlib import sha256
from pathlib import Path

import pytest

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.testing.file_server import Fault, FileServer
from sdq.worker.fetch.links import Address, resolve
from sdq.worker.fetch.mirrors import fetch_file


def ignore(_done_bytes: int) -> None:
    """Nobody wants to know the progress."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


@pytest.mark.parametrize("token", ["secret\n", " secret"])
def test_blanks_around_a_token_are_not_part_of_it(web: FileServer, token: str) -> None:
    asked = resolve("hf://org/name/w.safetensors", {"HF_ENDPOINT": web.url, "HF_TOKEN": token})
    assert isinstance(asked, Address)
    assert asked.token == "secret"


@pytest.mark.parametrize("token", ["secret\nmore", "secret\u2026", "secret more"])
def test_what_cannot_be_a_token_is_told_without_it(
    web: FileServer, target: Path, token: str
) -> None:
    """Python quotes a header that it cannot send."""
    file = ModelFile("w.safetensors", None, "0" * 64, ("hf://org/name/w.safetensors",))
    with pytest.raises(DownloadError, match="HF_TOKEN holds something") as caught:
        fetch_file(file, target, ignore, environ={"HF_ENDPOINT": web.url, "HF_TOKEN": token})
    assert "secret" not in str(caught.value) + caught.value.hint
    assert not web.requests


def test_the_token_is_not_sent_where_a_page_leads(
    web: FileServer, target: Path, body: bytes
) -> None:
    elsewhere = web.url.replace("127.0.0.1", "localhost") + "/two?download"
    page = f'<form action="{elsewhere}"><input name="confirm" value="t"></form>'
    web.always["/org/name/resolve/main/w.safetensors"] = Fault(page=page)
    file = ModelFile(
        "w.safetensors", None, sha256(body).hexdigest(), ("hf://org/name/w.safetensors",)
    )
    fetch_file(file, target, ignore, environ={"HF_ENDPOINT": web.url, "HF_TOKEN": "secret"})
    seen = [request.headers.get("authorization") for request in web.requests]
    assert seen == ["Bearer secret", None]


def test_a_proxy_is_asked_and_the_token_follows_its_own_host_only(
    web: FileServer, target: Path, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a proxy, urllib's notion of a request's host is the proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", web.url)
    first = "http://hub.invalid/org/name/resolve/main/w.safetensors"
    web.always[first] = Fault(redirect_to="http://hub.invalid/renamed")
    web.always["http://hub.invalid/renamed"] = Fault(redirect_to="http://storage.invalid/w")
    web.files |= {first: body, "http://hub.invalid/renamed": body}
    web.files["http://storage.invalid/w"] = body
    file = ModelFile(
        "w.safetensors", None, sha256(body).hexdigest(), ("hf://org/name/w.safetensors",)
    )
    environ = {"HF_ENDPOINT": "http://hub.invalid", "HF_TOKEN": "secret"}
    fetch_file(file, target, ignore, environ=environ)
    assert target.read_bytes() == body
    assert [(found.path, found.headers.get("authorization")) for found in web.requests] == [
        (first, "Bearer secret"),
        ("http://hub.invalid/renamed", "Bearer secret"),
        ("http://storage.invalid/w", None),
    ]
