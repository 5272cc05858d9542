"""What a proof picture must look like, and the mark that a broken worker leaves."""

import pytest
from PIL import Image

from sdq.config import Home
from sdq.errors import Cancelled, ModelError
from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, picture_of
from sdq.testing.stepping import SteppingFake
from sdq.worker import canary
from sdq.worker.flight import NoPicture
from sdq.worker.whole import as_pipeline


def test_a_good_one(spec: ImageSpec) -> None:
    assert canary.fault_of(picture_of(spec), spec) == ""


@pytest.mark.parametrize(
    ("size", "fault"),
    [((64, 48), "a single flat colour"), ((48, 64), "48x64 instead of 64x48")],
)
def test_bad_ones(spec: ImageSpec, size: tuple[int, int], fault: str) -> None:
    assert fault in canary.fault_of(Image.new("RGB", size, (9, 99, 200)), spec)


def nothing() -> None:
    """Whoever draws may go on."""


@pytest.mark.parametrize("pipeline", [SteppingFake(), FakePipeline()])
def test_drawing_alone(spec: ImageSpec, pipeline: FakePipeline) -> None:
    image = canary.draw_alone(as_pipeline(pipeline), spec, nothing)
    assert image.tobytes() == picture_of(spec).tobytes()


@pytest.mark.parametrize("kind", [SteppingFake, FakePipeline])
def test_drawing_alone_ends_as_its_picture_does(spec: ImageSpec, kind: type[FakePipeline]) -> None:
    with pytest.raises(NoPicture):
        canary.draw_alone(as_pipeline(kind(nan_on="cat")), spec, nothing)
    checks = 0

    def check() -> None:
        nonlocal checks
        checks += 1
        if checks == 3:
            raise Cancelled("enough")

    pipeline = as_pipeline(kind())
    with pytest.raises(Cancelled):
        canary.draw_alone(pipeline, spec, check)
    assert canary.prove(as_pipeline(kind()), spec, nothing) == ""


def test_a_proof(spec: ImageSpec) -> None:
    def stop() -> None:
        raise Cancelled("closing")

    assert canary.prove(SteppingFake(), spec, nothing) == ""
    assert "NaN" in canary.prove(SteppingFake(nan_on="cat"), spec, nothing)
    assert "flat colour" in canary.prove(SteppingFake(black_on="cat"), spec, nothing)
    full = canary.prove(SteppingFake(out_of_memory_on="cat"), spec, nothing)
    assert full == ""  # a full device says nothing of the model
    assert canary.prove(SteppingFake(nan_on="cat"), spec, stop) == ""


def test_the_mark(sdq_home: object) -> None:
    home = Home(sdq_home)  # type: ignore[arg-type]
    assert not canary.is_marked(home)
    canary.unmark(home)
    canary.mark(home, "NaN " * 1_000 + "\ud800")
    assert canary.is_marked(home)
    assert len(canary.marker_file(home).read_text("utf-8")) <= canary.MAX_REASON_CHARACTERS + 1
    canary.unmark(home)
    assert not canary.is_marked(home)


def test_a_home_that_cannot_be_written(sdq_home: object, caplog: pytest.LogCaptureFixture) -> None:
    home = Home(sdq_home)  # type: ignore[arg-type]
    home.root.parent.mkdir(exist_ok=True)
    home.root.write_text("in the way")
    canary.mark(home, "NaN")
    canary.unmark(home)
    assert "cannot write" in caplog.text
    assert not canary.is_marked(home)


def test_the_error_says_what_to_do() -> None:
    error = canary.broken("shapes", "cuda", "NaN")
    assert isinstance(error, ModelError)
    assert error.exit_code == 1
    assert "shapes fails its proof picture on cuda: NaN" in error.message
    assert "sdq worker install" in error.hint
    assert "--device" in error.hint
