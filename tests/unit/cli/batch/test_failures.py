"""The file of the lines that failed."""

import resource
import signal
from pathlib import Path

import pytest

from sdq.cli.batch.failures import MAX_LISTED, Failures
from sdq.cli.batch.formats import Reader
from sdq.cli.output import Sink
from sdq.errors import OutputError, UsageError

WHY = UsageError("it broke", hint="mend it")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "failed.csv"
    path.write_text("former")
    return path


def test_lines_below_their_head_each_once(file: Path) -> None:
    reader = Reader("csv")
    reader.head = "prompt,steps"
    failures = Failures(str(file), reader)
    for number, raw in ((3, "a,1"), (2, '"b\nc",2'), (3, "a,1"), (9, "")):
        failures.add(number, raw, WHY)
    assert file.read_text() == "former", "it is put in its place at the end"
    failures.close()
    failures.close()
    assert file.read_text() == 'prompt,steps\na,1\n"b\nc",2\n'
    assert failures.lines == 3
    assert list(file.parent.iterdir()) == [file]


def test_the_input_itself_outlives_an_interruption(file: Path) -> None:
    failures = Failures(str(file), Reader("text"), str(file))
    failures.add(1, "x", WHY)
    failures.close(was_interrupted=True)
    assert file.read_text() == "former"
    other = Failures(str(file), Reader("text"), str(file.parent / "input.txt"))
    other.add(1, "x", WHY)
    other.close(was_interrupted=True)
    assert file.read_text() == "x\n"
    assert list(file.parent.iterdir()) == [file]


def test_many_failures_are_not_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures(None, None)
    for number in range(1, MAX_LISTED + 6):
        failures.add(number, "x", WHY)
    failures.tell(Sink())
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["error: line 1: it broke", "  hint: mend it"]
    assert said[-1] == "and 5 more"
    assert len(said) == 2 * MAX_LISTED + 1


def test_a_folder_that_is_a_file_is_said_at_the_beginning(file: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        Failures(str(file / "below.csv"), None)


def test_a_disk_that_is_full_leaves_the_former_file(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    failures = Failures(str(file), Reader("text"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="cannot write") as caught:
            failures.add(1, "x" * 60_000, WHY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "make room" in caught.value.hint
    failures.close(was_interrupted=True)
    failures.tell(Sink())
    assert file.read_text() == "former"
    assert list(file.parent.iterdir()) == [file]
    assert str(file) not in capsys.readouterr().err, "it holds no lines of this batch"
