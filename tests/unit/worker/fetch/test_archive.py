"""Archives: what is taken out of them, and what is refused."""

import gzip
import io
import random
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from sdq.errors import ModelError
from sdq.worker.fetch import archive as archives
from sdq.worker.fetch.archive import unpack

MODEL = {
    "model/model_index.json": b"{}",
    "model/unet/w.safetensors": b"weights" * 100,
    "model/tokenizer/merges.txt": b"a b",
    "model/README.md": b"left out",
    "model/.gitattributes.txt": b"left out",
}


def make(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip, tar or tar.gz by its name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, data in files.items():
                zipped.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tarred:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tarred.addfile(info, io.BytesIO(data))
    return path


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz"])
def test_the_files_of_a_model_come_out(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    found = unpack(make(tmp_path / name, MODEL), folder)
    wanted = ("model_index.json", "tokenizer/merges.txt", "unet/w.safetensors")
    assert found == wanted
    assert below(folder) == list(wanted)
    assert (folder / "unet/w.safetensors").read_bytes() == MODEL["model/unet/w.safetensors"]


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../../evil.json", "no path below"),
        ("/etc/evil.json", "no path below"),
        ("a/../../evil.json", "no path below"),
        ("unet/w.ckpt", "pickle"),
        ("unet/pytorch_model.bin", "pickle"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, name: str, path: str, reason: str) -> None:
    folder = tmp_path / "a" / "b" / "out"
    with pytest.raises(ModelError, match=reason):
        unpack(make(tmp_path / name, {"good.json": b"{}", path: b"x"}), folder)
    assert below(tmp_path) == [name]


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.tar"
    with tarfile.open(path, "w") as tarred:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"x{kind.decode()}.json")
            info.type, info.linkname = kind, "/etc/passwd"
            tarred.addfile(info)
        info = tarfile.TarInfo("good.json")
        tarred.addfile(info, io.BytesIO())
    assert unpack(path, tmp_path / "out") == ("good.json",)


def test_a_symbolic_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        link = zipfile.ZipInfo("link.json")
        link.external_attr = 0o120777 << 16
        zipped.writestr(link, "/etc/passwd")
        zipped.writestr("good.json", "{}")
    assert unpack(path, tmp_path / "out") == ("good.json",)


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SPARE_BYTES", 1000)
    path = make(tmp_path / name, {"w.safetensors": bytes(5_000_000)})
    with pytest.raises(ModelError, match="it would unpack to more"):
        unpack(path, tmp_path / "out")
    assert below(tmp_path) == [name]


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 5)
    path = make(tmp_path / "m.zip", {f"{n}.json": b"{}" for n in range(6)})
    with pytest.raises(ModelError, match="more than 5 files"):
        unpack(path, tmp_path / "out")


@pytest.mark.parametrize("name", ["m.zip", "m.tar.gz"])
def test_a_broken_archive_leaves_nothing(tmp_path: Path, name: str) -> None:
    noise = {f"{n}.json": bytes(range(256)) * 50 for n in range(3)}
    path = make(tmp_path / name, noise | {"last.json": b"x" * 50_000})
    data = bytearray(path.read_bytes())
    for place in range(60, len(data) // 2, 7):
        data[place] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} is (a broken|neither)"):
        unpack(path, tmp_path / "out")
    assert below(tmp_path) == [name]


def test_what_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    path.write_bytes(b"not an archive" * 100)
    with pytest.raises(ModelError, match="neither a zip nor a tar"):
        unpack(path, tmp_path / "out")


def test_an_archive_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file of a model"):
        unpack(make(tmp_path / "m.zip", {"README.md": b"hello"}), tmp_path / "out")


def test_a_locked_zip_is_told(tmp_path: Path) -> None:
    path = make(tmp_path / "m.zip", {"a.json": b"{}"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag of encryption, in the file's header and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"broken archive.*password"):
        unpack(path, tmp_path / "out")


def header(size_bytes: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo("x.json")
    info.size, info.type = size_bytes, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "kind",
    [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE],
)
@pytest.mark.parametrize("first", [b"", header(0, tarfile.REGTYPE)])
def test_a_header_that_would_fill_the_memory_is_refused(
    tmp_path: Path, kind: bytes, first: bytes
) -> None:
    """Python's tarfile reads it as a whole: 2 MB of gzip are 600 MB of memory."""
    path = tmp_path / "m.tar.gz"
    with gzip.open(path, "wb") as packed:
        packed.write(first + header(archives.MAX_HEADER_BYTES + 1, kind) + bytes(200_000))
    with pytest.raises(ModelError, match="a header of a kind or size"):
        unpack(path, tmp_path / "out")


def test_a_list_of_holes_is_refused(tmp_path: Path) -> None:
    """It would be read as far as the archive goes."""
    path = tmp_path / "m.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tarred:
        info = tarfile.TarInfo("model_index.json")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        info.size = 1024
        tarred.addfile(info, io.BytesIO(b"1\n0\n0\n".ljust(1024, b"\0")))
    with pytest.raises(ModelError, match="a header of a kind or size"):
        unpack(path, tmp_path / "out")


def test_headers_without_end_are_a_broken_archive(tmp_path: Path) -> None:
    path = tmp_path / "m.tar"
    name = header(5, tarfile.GNUTYPE_LONGNAME) + b"abcd".ljust(512, b"\0")
    path.write_bytes(name * 3000 + header(0, tarfile.REGTYPE) + bytes(1024))
    with pytest.raises(ModelError, match="is a broken archive"):
        unpack(path, tmp_path / "out")


def test_a_name_that_is_no_text_is_a_broken_archive(tmp_path: Path) -> None:
    path = make(tmp_path / "m.zip", {"ä.json": b"{}"})
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    with pytest.raises(ModelError, match="is a broken archive"):
        unpack(path, tmp_path / "out")


def test_broken_bz2_is_the_archives_fault(tmp_path: Path) -> None:
    path = tmp_path / "m.tar.bz2"
    info = tarfile.TarInfo("w.safetensors")
    info.size = 3_000_000
    with tarfile.open(path, "w:bz2") as tarred:
        tarred.addfile(info, io.BytesIO(random.Random(0).randbytes(info.size)))
    data = bytearray(path.read_bytes())
    data[2_000_000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is a broken archive"):
        unpack(path, tmp_path / "out")
