"""A file that grows, and the hash that grows with it."""

from hashlib import sha256
from pathlib import Path

from sdq.worker.fetch.part import Part

URL = "http://127.0.0.1/x"


def test_the_hash_is_that_of_all_sessions_together(tmp_path: Path) -> None:
    target = tmp_path / "unet" / "x.safetensors"
    with Part(target) as part:
        part.write(b"first ")
    with Part(target) as part:
        assert part.size_bytes == 6
        part.write(b"second")
        assert part.sha256() == sha256(b"first second").hexdigest()
        part.move(target)
    assert target.read_bytes() == b"first second"
    assert list(target.parent.iterdir()) == [target]


def test_a_restart_forgets_what_was_there(tmp_path: Path) -> None:
    with Part(tmp_path / "x") as part:
        part.write(b"wrong")
        part.restart()
        part.write(b"right")
        assert (part.size_bytes, part.sha256()) == (5, sha256(b"right").hexdigest())


def test_more_may_come_after_the_hash_was_asked_for(tmp_path: Path) -> None:
    """A file whose size nobody named is verified, found wrong, and begun anew."""
    with Part(tmp_path / "x") as part:
        part.write(b"a")
        assert part.sha256() == sha256(b"a").hexdigest()
        part.restart()
        part.write(b"b")
        assert part.sha256() == sha256(b"b").hexdigest()


def test_a_file_that_somebody_else_writes_to_is_not_believed(tmp_path: Path) -> None:
    """A thread of a fetch that was given up, say, in the middle of its last chunk."""
    with Part(tmp_path / "x") as part, (tmp_path / "x.part").open("ab") as other:
        part.write(b"right")
        other.write(b"wrong")
        other.flush()
        part.write(b" too")
        assert part.sha256() == ""


def test_many_chunks_of_a_large_part(tmp_path: Path) -> None:
    chunks = [bytes([number]) * 100_000 for number in range(50)]
    with Part(tmp_path / "x") as part:
        for chunk in chunks:
            part.write(chunk)
    with Part(tmp_path / "x") as part:  # read again from the disk
        assert part.sha256() == sha256(b"".join(chunks)).hexdigest()


def test_leaving_does_not_wait_for_the_hash_of_a_large_part(tmp_path: Path) -> None:
    with Part(tmp_path / "x") as part:
        part.write(b"x" * 1000)
    with Part(tmp_path / "x"):
        pass
    assert (tmp_path / "x.part").stat().st_size == 1000


def test_what_a_server_said_of_its_version(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with Part(target) as part:
        assert part.validator_of(URL) == ""
        part.remember(URL, '"one"')
    with Part(target) as part:
        assert part.validator_of(URL) == '"one"'
        assert part.validator_of(URL + "/other") == ""
        part.remember(URL + "/other", '"two"')
        assert part.validator_of(URL) == ""  # its bytes are gone


def test_broken_notes_are_no_notes(tmp_path: Path) -> None:
    (tmp_path / "x.part.json").write_bytes(b"\xff{")
    with Part(tmp_path / "x") as part:
        assert part.validator_of(URL) == ""
