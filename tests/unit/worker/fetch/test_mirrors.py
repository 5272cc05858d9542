"""One file, whatever its links do: the right bytes under its name, or an error that says why."""

import errno
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from sdq.errors import DownloadError
from sdq.protocol.model import ModelFile
from sdq.testing.file_server import Fault, FileServer
from sdq.worker.fetch import web as web_module
from sdq.worker.fetch.mirrors import fetch_file
from sdq.worker.fetch.part import Part

FileOf = Callable[..., ModelFile]


def ignore(_done_bytes: int) -> None:
    """Nobody wants to know the progress."""


def notes_of(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "unet" / "model.safetensors"


MENDED = {
    "the line is cut again and again": [Fault(cut_after_bytes=200_000)] * 5,
    "busy, then well": [Fault(status=503), Fault(status=429), Fault(status=500)],
    "busy for a stated time": [Fault(status=503, retry_after="0")],
    "it ignores ranges": [Fault(cut_after_bytes=600_000), Fault(ignores_range=True)],
    "it sends another range": [Fault(cut_after_bytes=600_000), Fault(other_range=True)],
    "the file was another one before": [Fault(body=b"x" * (1 << 20), cut_after_bytes=300_000)],
    "what we have is refused": [Fault(cut_after_bytes=600_000), Fault(status=416)],
}


@pytest.mark.parametrize("faults", MENDED.values(), ids=MENDED)
def test_faults_that_pass(
    web: FileServer, file_of: FileOf, target: Path, body: bytes, faults: list[Fault]
) -> None:
    web.faults["/one"] = list(faults)
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body
    assert notes_of(target) == [target.name]
    assert not web.faults["/one"]


REFUSED = {
    "gone": (Fault(status=404), "404 Not Found", 1),
    "forbidden": (Fault(status=403), "403 Forbidden.*licence", 1),
    "without a token": (Fault(status=401), "401 Unauthorized.*HF_TOKEN", 1),
    "busy for ever": (Fault(status=503), "503 Service Unavailable", 4),
    "redirects for ever": (Fault(redirect_to="/one"), "redirects in circles", None),
    "leads to ftp": (Fault(redirect_to="ftp://127.0.0.1/x"), "leads to ftp:", 1),
    "leads to another scheme": (Fault(redirect_to="file:///etc/passwd"), "leads to file:", 1),
    "a page": (Fault(page="<title>Sign in</title>"), r"a page \(Sign in\)", 1),
    "a shorter file": (Fault(body=b"short"), "has 5 bytes, 1048576 were expected", 1),
    "a longer file": (Fault(body=b"x" * 2_000_000), "has 2000000 bytes, 1048576 were expected", 1),
    "another file": (Fault(body=b"x" * (1 << 20)), "wrong hash: expected sha256", 1),
}


@pytest.mark.parametrize(("fault", "reason", "requests"), REFUSED.values(), ids=REFUSED)
def test_faults_that_stay(
    web: FileServer, file_of: FileOf, target: Path, fault: Fault, reason: str, requests: int | None
) -> None:
    web.always["/one"] = fault
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch_file(file_of("/one"), target, ignore)
    assert caught.value.hint
    assert not target.exists()
    assert requests is None or len(web.requests) == requests


@pytest.mark.parametrize(("fault", "reason", "_requests"), REFUSED.values(), ids=REFUSED)
def test_the_next_mirror_is_taken(
    web: FileServer,
    file_of: FileOf,
    target: Path,
    body: bytes,
    fault: Fault,
    reason: str,
    _requests: int | None,
) -> None:
    web.always["/one"] = fault
    fetch_file(file_of("/one", "/two"), target, ignore)
    assert target.read_bytes() == body


def test_a_stalled_line_is_given_up_and_gone_on_with(
    web: FileServer,
    file_of: FileOf,
    target: Path,
    body: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_module, "TIMEOUT_SECONDS", 0.2)
    web.faults["/one"] = [Fault(stall_seconds=60.0)]
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body
    assert web.requests[1].headers["range"] == f"bytes={len(body) // 2}-"


def test_what_a_mirror_sent_is_not_fetched_again(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    web.faults["/one"] = [Fault(cut_after_bytes=700_000), Fault(status=404)]
    fetch_file(file_of("/one", "/two"), target, ignore)
    assert target.read_bytes() == body
    assert web.sent_bytes == len(body)


def test_a_mirror_with_another_file_costs_nothing_of_what_is_there(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    web.faults["/one"] = [Fault(cut_after_bytes=700_000), Fault(status=404)]
    web.faults["/other"] = [Fault(body=b"x" * 900_000, ignores_range=True)]
    fetch_file(file_of("/one", "/other", "/two"), target, ignore)
    assert target.read_bytes() == body
    assert web.requests[-1].headers["range"] == "bytes=700000-"


def test_a_line_that_never_comes_further_is_given_up(
    web: FileServer, file_of: FileOf, target: Path
) -> None:
    """Each other try brings more than the one before it, and none more than the second."""
    cuts = [100_000, 300_000] * 20
    web.faults["/one"] = [Fault(cut_after_bytes=cut, ignores_range=True) for cut in cuts]
    with pytest.raises(DownloadError, match="was cut after"):
        fetch_file(file_of("/one"), target, ignore)
    assert len(web.requests) < 10


def test_what_is_no_file_is_not_read(file_of: FileOf, target: Path) -> None:
    with pytest.raises(DownloadError, match="/dev/zero is no file"):
        fetch_file(file_of("file:///dev/zero", size_bytes=None), target, ignore)


def test_a_killed_fetch_is_gone_on_with(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    web.faults["/one"] = [Fault(cut_after_bytes=700_000), Fault(status=404)]
    with pytest.raises(DownloadError):
        fetch_file(file_of("/one"), target, ignore)
    assert notes_of(target) == ["model.safetensors.part", "model.safetensors.part.json"]
    told: list[int] = []
    fetch_file(file_of("/one"), target, told.append)
    assert target.read_bytes() == body
    assert web.sent_bytes == len(body)
    assert told == sorted(told)
    assert told[0] == 700_000  # what is there already is told first


def test_a_file_that_changed_in_between_comes_whole(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    web.faults["/one"] = [Fault(body=body[::-1], cut_after_bytes=500_000), Fault(status=404)]
    with pytest.raises(DownloadError):
        fetch_file(file_of("/one"), target, ignore)
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body
    assert web.requests[-1].headers["if-range"]


def test_a_rotten_part_is_fetched_anew(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    target.parent.mkdir()
    Path(f"{target}.part").write_bytes(b"rotten" * 1000)
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body


def test_a_part_that_is_too_long_is_fetched_anew(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    target.parent.mkdir()
    Path(f"{target}.part").write_bytes(body + b"more")
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body


def test_without_size_and_validator_nothing_is_resumed(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    web.validators = False
    web.faults["/one"] = [Fault(cut_after_bytes=500_000)]
    fetch_file(file_of("/one", size_bytes=None), target, ignore)
    assert target.read_bytes() == body
    assert all("range" not in request.headers for request in web.requests)


def test_a_page_before_the_file_is_answered(
    web: FileServer, file_of: FileOf, target: Path, body: bytes
) -> None:
    """As Google Drive does for files that are too large for its virus scan."""
    page = (
        '<html><form action="/two" id="download-form"><input type="hidden" name="id" value="x y">'
        '<input name="confirm" value="t"></form></html>'
    )
    form = page.replace('action="/two"', f'action="{web.url}/two?download"')
    web.always["/one"] = Fault(page=form)
    web.faults["/two"] = [Fault(cut_after_bytes=400_000)]
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body
    assert web.requests[1].path == "/two?id=x+y&confirm=t"


def test_all_links_are_told_with_their_reasons(
    web: FileServer, file_of: FileOf, target: Path, tmp_path: Path
) -> None:
    web.always["/one"] = Fault(status=404)
    file = file_of("/one", f"file://{tmp_path}/nowhere", "ftp://127.0.0.1/x")
    with pytest.raises(DownloadError) as caught:
        fetch_file(file, target, ignore)
    message = str(caught.value)
    assert "404 Not Found" in message
    assert "nowhere: No such file" in message
    assert "'ftp' are not known" in message


def test_a_file_without_links(file_of: FileOf, target: Path) -> None:
    with pytest.raises(DownloadError, match="it has no link"):
        fetch_file(file_of(), target, ignore)


def test_a_full_disk_keeps_the_part_and_says_how_much_is_missing(
    web: FileServer, file_of: FileOf, target: Path, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Part.write

    def write(part: Part, chunk: bytes) -> None:
        if part.size_bytes + len(chunk) > 600_000:
            real(part, chunk[: 600_000 - part.size_bytes])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(part, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(Part, "write", write)
        with pytest.raises(DownloadError, match=r"the disk is full.*; 0 MB more are needed"):
            fetch_file(file_of("/one"), target, ignore)
    assert Path(f"{target}.part").stat().st_size == 600_000
    fetch_file(file_of("/one"), target, ignore)
    assert target.read_bytes() == body


def test_an_unwritable_place_is_told(file_of: FileOf, tmp_path: Path) -> None:
    (tmp_path / "unet").write_text("a file where a folder should be")
    with pytest.raises(DownloadError, match="cannot write"):
        fetch_file(file_of("/one"), tmp_path / "unet" / "x.safetensors", ignore)


def test_the_token_stays_with_its_host(web: FileServer, target: Path, body: bytes) -> None:
    web.files["/org/name/resolve/main/w.safetensors"] = body
    elsewhere = web.url.replace("127.0.0.1", "localhost") + "/two"
    web.always["/org/name/resolve/main/w.safetensors"] = Fault(redirect_to="/renamed")
    web.always["/renamed"] = Fault(redirect_to=elsewhere)
    file = ModelFile(
        "w.safetensors", None, sha256(body).hexdigest(), ("hf://org/name/w.safetensors",)
    )
    fetch_file(file, target, ignore, environ={"HF_ENDPOINT": web.url, "HF_TOKEN": "secret"})
    assert target.read_bytes() == body
    seen = [request.headers.get("authorization") for request in web.requests]
    assert seen == ["Bearer secret", "Bearer secret", None]


def test_the_token_is_in_no_error(web: FileServer, target: Path) -> None:
    file = ModelFile("w.safetensors", None, "0" * 64, ("hf://org/name/w.safetensors",))
    with pytest.raises(DownloadError) as caught:
        fetch_file(file, target, ignore, environ={"HF_ENDPOINT": web.url, "HF_TOKEN": "secret"})
    assert "secret" not in str(caught.value) + caught.value.hint
