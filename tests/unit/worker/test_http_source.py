"""Streaming a URL: resumed, retried, bounded."""

from pathlib import Path
from typing import Any

import pytest

from sdq.worker import http_source
from sdq.worker.http_source import Unreachable, download, hub_address

BODY = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_source, "RETRY_WAITS_SECONDS", (0.0, 0.0))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "file.part"


def ignore(_done_bytes: int) -> None:
    """Nobody wants to know the progress."""


def test_a_cut_line_is_resumed_where_it_stopped(web: Any, part: Path) -> None:
    web.body, web.answers = BODY, ["cut", "cut"]
    seen: list[int] = []
    download(f"{web.url}/f", part, len(BODY), seen.append)
    assert part.read_bytes() == BODY
    ranges = [request.get("range") for request in web.requests]
    assert ranges == [None, f"bytes={len(BODY) // 2}-", f"bytes={len(BODY) * 3 // 4}-"]
    assert seen == sorted(seen)
    assert not part.with_name("file.part.etag").exists()


def test_a_part_of_an_earlier_run_is_resumed(web: Any, part: Path) -> None:
    web.body, web.answers = BODY, ["cut", 500, 500]
    with pytest.raises(Unreachable, match="500"):
        download(f"{web.url}/f", part, len(BODY), ignore)
    assert part.stat().st_size == len(BODY) // 2
    download(f"{web.url}/f", part, len(BODY), ignore)
    assert part.read_bytes() == BODY
    assert web.requests[-1]["range"] == f"bytes={len(BODY) // 2}-"


def test_a_file_that_was_replaced_comes_whole(web: Any, part: Path) -> None:
    web.body, web.answers = BODY, ["cut", 503, 503]
    with pytest.raises(Unreachable):
        download(f"{web.url}/f", part, len(BODY), ignore)
    web.body, web.etag = BODY[::-1], '"two"'
    download(f"{web.url}/f", part, len(BODY), ignore)
    assert part.read_bytes() == BODY[::-1]


def test_without_a_validator_nothing_is_resumed(web: Any, part: Path) -> None:
    web.body = BODY
    part.write_bytes(BODY[:100])
    download(f"{web.url}/f", part, len(BODY), ignore)
    assert part.read_bytes() == BODY
    assert "range" not in web.requests[0]


def test_a_busy_server_is_asked_again_but_not_for_ever(web: Any, part: Path) -> None:
    web.answers = [503] * 9
    with pytest.raises(Unreachable, match="503 Service Unavailable"):
        download(f"{web.url}/f", part, None, ignore)
    assert len(web.requests) == 3


def test_a_missing_file_is_not_asked_for_again(web: Any, part: Path) -> None:
    web.answers = [404]
    with pytest.raises(Unreachable, match="404"):
        download(f"{web.url}/f", part, None, ignore)
    assert len(web.requests) == 1


def test_nobody_listens(free_port: int, part: Path) -> None:
    with pytest.raises(Unreachable, match=r"[Rr]efused"):
        download(f"http://127.0.0.1:{free_port}/f", part, None, ignore)


def test_more_than_announced_is_refused_before_it_is_written(web: Any, part: Path) -> None:
    web.body = BODY
    with pytest.raises(Unreachable, match=f"{len(BODY)} bytes, more than the expected 10"):
        download(f"{web.url}/f", part, 10, ignore)
    assert not part.exists()


def test_a_redirect_to_another_scheme_is_refused(web: Any, part: Path) -> None:
    web.answers, web.redirect_to = ["elsewhere"], "ftp://127.0.0.1/f"
    with pytest.raises(Unreachable, match="ftp"):
        download(f"{web.url}/f", part, None, ignore)


def test_the_token_stays_with_its_host(web: Any, part: Path) -> None:
    web.body, web.answers = BODY, ["elsewhere"]
    web.redirect_to = web.url.replace("127.0.0.1", "localhost") + "/storage"
    download(f"{web.url}/f", part, len(BODY), ignore, token="secret")
    assert web.requests[0]["authorization"] == "Bearer secret"
    assert "authorization" not in web.requests[1]


def test_the_token_follows_a_redirect_on_its_host(web: Any, part: Path) -> None:
    web.body, web.answers, web.redirect_to = BODY, ["elsewhere"], f"{web.url}/renamed"
    download(f"{web.url}/f", part, len(BODY), ignore, token="secret")
    assert web.requests[1]["authorization"] == "Bearer secret"


def test_hub_links() -> None:
    url, token = hub_address("//org/name@abc123/unet/w.safetensors", {})
    assert url == "https://huggingface.co/org/name/resolve/abc123/unet/w.safetensors"
    assert token == ""
    mirror = {"HF_ENDPOINT": "http://mirror:8080/", "HF_TOKEN": "secret"}
    url, token = hub_address("//org/name/w.safetensors", mirror)
    assert url == "http://mirror:8080/org/name/resolve/main/w.safetensors"
    assert token == "secret"


@pytest.mark.parametrize("rest", ["//org", "//org/name@rev", "//org/name@rev/", "///name/f"])
def test_broken_hub_links(rest: str) -> None:
    with pytest.raises(Unreachable):
        hub_address(rest, {})
