"""A link's size and hash, without keeping what it gives."""

from hashlib import sha256
from pathlib import Path

import pytest

from sdq.testing.file_server import Fault, FileServer
from sdq.worker.fetch import measure as measuring
from sdq.worker.fetch.faults import Unreachable
from sdq.worker.fetch.measure import measure


def test_a_web_address_with_a_cut_line(web: FileServer, body: bytes) -> None:
    web.faults["/one"] = [Fault(cut_after_bytes=300_000)]
    told: list[int] = []
    found = measure(web.url + "/one", told.append)
    assert (found.size_bytes, found.sha256) == (len(body), sha256(body).hexdigest())
    assert web.sent_bytes == len(body)  # gone on with, not begun anew
    assert told == sorted(told)


def test_a_file_of_this_computer(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"{}")
    assert measure(path.as_uri()) == (2, sha256(b"{}").hexdigest(), b"{}")


def test_only_the_first_bytes_are_kept(
    web: FileServer, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "HEAD_BYTES", 1000)
    assert measure(web.url + "/one").head == body[:1000]


def test_what_is_not_there(web: FileServer, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="404"):
        measure(web.url + "/nothing")
    with pytest.raises(Unreachable, match="cannot read"):
        measure((tmp_path / "nothing").as_uri())
