"""A web server to misuse, and files that are to be fetched from it."""

from collections.abc import Callable, Iterator
from hashlib import sha256

import pytest

from sdq.protocol.model import ModelFile
from sdq.testing.file_server import FileServer
from sdq.worker.fetch import web as web_module

BODY = bytes(range(256)) * 4096  # 1 MiB
NAME = "unet/model.safetensors"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "RETRY_WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture
def body() -> bytes:
    return BODY


@pytest.fixture
def web() -> Iterator[FileServer]:
    with FileServer(files={"/one": BODY, "/two": BODY}) as server:
        yield server


@pytest.fixture
def file_of(web: FileServer) -> Callable[..., ModelFile]:
    """The file as the manifest names it, at the given paths of the server."""

    def make(*paths: str, size_bytes: int | None = len(BODY)) -> ModelFile:
        links = tuple(path if ":" in path else web.url + path for path in paths)
        return ModelFile(NAME, size_bytes, sha256(BODY).hexdigest(), links)

    return make
