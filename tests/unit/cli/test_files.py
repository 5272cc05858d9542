"""Where pictures go, and what is refused before anything is drawn."""

import errno
from pathlib import Path

import pytest

from sdq import metadata
from sdq.cli.files import Named, Outputs
from sdq.errors import OutputError, UsageError
from sdq.spec import SpecDraft, key_of
from sdq.testing.transport import FINGERPRINT, drawn, resolved

DRAFT = SpecDraft(prompt="a red circle")


def named(index: int = 0, first_n: int = 1) -> Named:
    spec = resolved(DRAFT, index)
    return Named(first_n, index, spec, key_of(spec, FINGERPRINT))


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_plain_name() -> None:
    assert Outputs("out.png").path_of(named()) == Path("out.png")


def test_no_name_at_all() -> None:
    path = Outputs(None).path_of(named())
    assert path == Path(f"a-red-circle-{named().key[:8]}.png")


def test_several_pictures_get_a_number_before_the_ending() -> None:
    outputs = Outputs("pics/out.v2.webp", count=2)
    assert [outputs.path_of(named(index)) for index in (0, 1)] == [
        Path("pics/out.v2-1.webp"),
        Path("pics/out.v2-2.webp"),
    ]


def test_a_folder_takes_the_default_names(tmp_path: Path) -> None:
    (tmp_path / "odd{n}").mkdir()
    assert Outputs("new/").path_of(named()).parent == Path("new")
    assert Outputs("odd{n}").path_of(named()).parent == Path("odd{n}")


@pytest.mark.parametrize("output", ["out", "out.gif", "a.png.txt", "{n}.{seed}"])
def test_an_unknown_ending(output: str) -> None:
    with pytest.raises(UsageError, match="format"):
        Outputs(output)


def test_an_empty_name() -> None:
    with pytest.raises(UsageError, match="empty"):
        Outputs("")


@pytest.mark.parametrize(
    ("output", "many_prompts"),
    [("{slug}.png", False), ("{key:4}.png", False), ("{seed}.png", True), ("{index}.png", True)],
)
def test_a_pattern_that_gives_one_name_to_several(output: str, many_prompts: bool) -> None:
    with pytest.raises(UsageError, match="one name"):
        Outputs(output, count=3, many_prompts=many_prompts)


@pytest.mark.parametrize("output", ["{n}.png", "{seed}.png", "{index}.png", "{key}.png"])
def test_a_pattern_that_does_not(output: str) -> None:
    Outputs(output, count=3)


def test_standard_output_is_for_one_picture() -> None:
    with pytest.raises(UsageError, match="one picture"):
        Outputs("-", count=2)
    with pytest.raises(UsageError, match="one picture"):
        Outputs("-", many_prompts=True)


def test_an_existing_file_is_refused_while_nothing_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "out-2.png").write_text("mine")
    with pytest.raises(OutputError, match=r"out-2\.png exists"):
        Outputs("out.png", count=2).refuse_existing(DRAFT, 2, 1)
    Outputs("out.png", count=2, force=True).refuse_existing(DRAFT, 2, 1)


def test_a_seed_that_was_chosen_makes_the_name_known(tmp_path: Path) -> None:
    (tmp_path / "5.png").write_text("mine")
    outputs = Outputs("{seed}.png", count=2)
    outputs.refuse_existing(DRAFT, 2, 1)  # nobody knows the seeds yet
    with pytest.raises(OutputError, match=r"5\.png exists"):
        outputs.refuse_existing(SpecDraft(prompt="x", seed=4), 2, 1)


def test_names_that_the_server_made_known(tmp_path: Path) -> None:
    (tmp_path / f"{named().spec.seed}.png").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        Outputs("{seed}.png").refuse_planned([named()])


def test_a_picture_is_written_and_nothing_else_stays(tmp_path: Path) -> None:
    png = drawn(named().spec)
    path = Outputs("deep/er/out.png").write(named(), png)
    assert path is not None
    assert path.read_bytes() == png
    assert [item.name for item in (tmp_path / "deep/er").iterdir()] == ["out.png"]


@pytest.mark.parametrize(("ending", "magic"), [("jpg", b"\xff\xd8"), ("webp", b"RIFF")])
def test_other_formats_keep_what_the_picture_says_of_itself(ending: str, magic: bytes) -> None:
    path = Outputs(f"out.{ending}").write(named(), drawn(named().spec))
    assert path is not None
    data = path.read_bytes()
    assert data.startswith(magic)
    provenance = metadata.read(data)
    assert provenance is not None
    assert provenance.spec == named().spec


def test_the_same_picture_under_its_own_key_is_fine(tmp_path: Path) -> None:
    outputs, png = Outputs(None), drawn(named().spec)
    assert outputs.write(named(), png) == outputs.write(named(), png)
    path = outputs.path_of(named())
    path.write_bytes(b"retouched")
    with pytest.raises(OutputError, match="exists"):
        outputs.write(named(), png)
    assert path.read_bytes() == b"retouched"


def test_a_dangling_link_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "out.png").symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists"):
        Outputs("out.png").write(named(), b"")


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write file"):
        Outputs("file/out.png").prepare()


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(OutputError, match="cannot write /proc"):
        Outputs("/proc/out.png").prepare()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"cannot write out\.png: No space left") as caught:
        Outputs("out.png").write(named(), b"data")
    assert "library" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
