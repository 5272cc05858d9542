"""Where a file may lie, and which kinds may come."""

from pathlib import Path

import pytest

from sdq.errors import DownloadError, ModelError
from sdq.worker.fetch.paths import check_kind, place


@pytest.mark.parametrize("path", ["../x.json", "/etc/passwd", "a/../../x", ".", ""])
def test_paths_do_not_leave_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(DownloadError, match="leads out of"):
        place(tmp_path, path)


def test_symbolic_links_do_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(DownloadError, match="leads out of"):
        place(tmp_path / "in", "link/x.json")


@pytest.mark.parametrize("name", ["unet/w.safetensors", "config.json", "merges.TXT"])
def test_what_cannot_run_code_is_accepted(name: str) -> None:
    check_kind(name)


@pytest.mark.parametrize("name", ["w.ckpt", "a/pytorch_model.bin", "w.PT", "w.pkl"])
def test_pickles_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ModelError, match="pickle") as caught:
        check_kind(name)
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize("name", ["pipeline.py", "setup.sh", "weights", "x.json.exe"])
def test_other_kinds_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="safetensors, JSON and plain text"):
        check_kind(name)
