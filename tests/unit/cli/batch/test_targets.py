"""Where pictures go, what is there already, and what must not be overwritten."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sdq.cli.batch.columns import BatchLine
from sdq.cli.batch.existing import existing
from sdq.cli.batch.planning import PlannedLine
from sdq.cli.batch.targets import Standing, Target, Targets
from sdq.client.saving import part_name
from sdq.errors import UsageError
from sdq.protocol.job_messages import Outlook, PlannedPicture
from sdq.protocol.messages import Origin
from sdq.spec import SpecDraft, key_of
from sdq.testing.transport import FINGERPRINT, drawn, resolved


def planned(
    prompt: str = "a cat",
    *,
    number: int = 3,
    count: int = 1,
    first_n: int = 5,
    output: str | None = None,
    variant: int = 0,
    variants: int = 1,
) -> PlannedLine:
    draft = SpecDraft(prompt, seed=9)
    pictures = []
    for index in range(count):
        spec = resolved(draft, index)
        key = key_of(spec, FINGERPRINT)
        pictures.append(PlannedPicture(index, key, spec, Origin.MADE, None))
    line = BatchLine(number, draft, count, output, "", variant, variants)
    return PlannedLine(line, first_n, Outlook(tuple(pictures)))


def names(targets: Targets, line: PlannedLine) -> list[str]:
    return [str(target.path) for target in targets.of(line)]


def only(targets: Targets, line: PlannedLine) -> Target:
    (target,) = targets.of(line)
    return target


def written(targets: Targets, line: PlannedLine) -> Path:
    target = only(targets, line)
    assert target.path is not None
    targets.write(target, drawn(target.picture.spec))
    return target.path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names() -> None:
    key = planned().outlook.pictures[0].key
    assert names(Targets(None), planned()) == [f"a-cat-{key[:8]}.png"]
    assert names(Targets("out/"), planned()) == [f"out/a-cat-{key[:8]}.png"]
    assert names(Targets("{line:03}-{index}-{seed}.jpg"), planned(count=2)) == [
        "003-0-9.jpg",
        "003-1-10.jpg",
    ]
    assert names(Targets("o.png"), planned(count=2)) == ["o-5.png", "o-6.png"]


def test_the_output_of_a_line() -> None:
    targets = Targets("{line}.png")
    assert names(targets, planned(output="x.png")) == ["x.png"]
    assert names(targets, planned(output="y.png", count=2)) == ["y-1.png", "y-2.png"]
    second = planned(output="y.png", count=2, variant=1, variants=2, first_n=7)
    assert names(targets, second) == ["y-3.png", "y-4.png"]
    with pytest.raises(UsageError, match=r"'z\.gif' ends in no format"):
        names(targets, planned(output="z.gif"))
    with pytest.raises(UsageError, match="nosuch"):
        names(targets, planned(output="{nosuch}.png"))


@pytest.mark.parametrize("output", ["-", "{nosuch}.png", "a.gif", ""])
def test_patterns_that_cannot_work(output: str) -> None:
    with pytest.raises(UsageError):
        Targets(output)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_what_is_there_is_up_to_date(ending: str) -> None:
    output = f"{{line}}.{ending}"
    path = written(Targets(output), planned())
    assert only(Targets(output), planned()).standing is Standing.UP_TO_DATE
    assert only(Targets(output, keeps=False), planned()).standing is Standing.MISSING
    path.write_bytes(path.read_bytes()[:-20])
    half = Standing.TAKEN if ending == "webp" else Standing.MISSING  # its texts stand at its end
    assert only(Targets(output), planned()).standing is half
    path.write_bytes(b"")
    assert only(Targets(output), planned()).standing is Standing.MISSING


def test_another_picture_is_not_replaced_unless_that_is_said() -> None:
    written(Targets("{line}.png"), planned("a dog"))
    target = only(Targets("{line}.png"), planned())
    assert target.standing is Standing.TAKEN
    assert str(target.problem) == "3.png exists and holds another picture"
    assert only(Targets("{line}.png", force=True), planned()).standing is Standing.MISSING


@pytest.mark.parametrize("content", [b"notes", b"\x89PNG\r\n\x1a\n", "plain picture"])
def test_what_is_none_of_ours_is_never_up_to_date(content: bytes | str) -> None:
    if isinstance(content, str):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "PNG")
        content = buffer.getvalue()
    Path("3.png").write_bytes(content)
    target = only(Targets("{line}.png"), planned())
    assert str(target.problem) == "3.png exists and holds something else"


def test_links_and_folders_are_left_alone() -> None:
    Path("link.png").symlink_to("nowhere.png")
    Path("folder.png").mkdir()
    for name in ("link.png", "folder.png"):
        found = existing(Path(name))
        assert found is not None
        assert found.key is None
    assert existing(Path("nothing.png")) is None


def test_two_lines_do_not_share_a_file_unless_they_share_the_picture() -> None:
    targets = Targets("same-{index}.png")
    assert only(targets, planned()).standing is Standing.MISSING
    assert only(targets, planned(number=4)).standing is Standing.MISSING
    other = only(targets, planned("a dog"))
    assert other.standing is Standing.TAKEN
    assert "another line" in str(other.problem)


def test_what_a_killed_process_left_is_swept(folder: Path) -> None:
    code = "from sdq.client.saving import part_name; print(part_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left, mine, foreign = done.stdout.strip(), part_name(), ".sdq-other-host-1-0.part"
    for name in (left, mine, foreign):
        (folder / name).touch()
    written(Targets("{line}.png"), planned())
    assert {path.name for path in folder.iterdir()} == {mine, foreign, "3.png"}


def test_without_files_all_is_missing() -> None:
    target = only(Targets(None, writes=False), planned())
    assert (target.path, target.standing) == (None, Standing.MISSING)
