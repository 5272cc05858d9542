"""The double behaves as the real one does where the engine looks."""

from pathlib import Path

import msgspec
import pytest

from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, colours_of, drawn_line, picture_of
from sdq.worker.engine import NoPicture


def test_the_same_spec_gives_the_same_picture(spec: ImageSpec) -> None:
    first, second = (FakePipeline().draw(spec, lambda *_: None) for _ in range(2))
    assert first.tobytes() == second.tobytes() == picture_of(spec).tobytes()
    assert first.size == (64, 48)


def test_another_seed_gives_another_picture(spec: ImageSpec) -> None:
    other = msgspec.structs.replace(spec, seed=8)
    assert picture_of(other).tobytes() != picture_of(spec).tobytes()


def test_the_square_can_be_told_from_the_ground(spec: ImageSpec) -> None:
    for seed in range(200):
        ground, square = colours_of(msgspec.structs.replace(spec, seed=seed))
        assert ground != square
        assert any(ground)


def test_failures_can_run_out(spec: ImageSpec) -> None:
    pipeline = FakePipeline(fail_on="cat", fail_times=1)
    results = []
    for _ in range(2):
        try:
            pipeline.draw(spec, lambda *_: None)
            results.append("drawn")
        except RuntimeError:
            results.append("failed")
    assert results == ["failed", "drawn"]


def test_it_breaks_after_some_pictures(spec: ImageSpec) -> None:
    pipeline = FakePipeline(break_after=3)
    for _ in range(2):
        assert pipeline.draw(spec, lambda *_: None)
    for _ in range(2):
        with pytest.raises(NoPicture, match="NaN"):
            pipeline.draw(spec, lambda *_: None)


def test_the_log_has_a_line_for_each_finished_picture(spec: ImageSpec, tmp_path: Path) -> None:
    log = tmp_path / "drawn.log"
    other = msgspec.structs.replace(spec, prompt="two\nlines", seed=8)
    pipelines = [FakePipeline(drawn_log=log) for _ in range(2)]
    for pipeline in pipelines:
        pipeline.draw(spec, lambda *_: None)
    pipelines[0].draw(other, lambda *_: None)
    with pytest.raises(NoPicture):
        FakePipeline(drawn_log=log, break_after=1).draw(spec, lambda *_: None)
    assert log.read_text() == drawn_line(spec) * 2 + drawn_line(other)
    digest, seed, prompt = drawn_line(other).split(maxsplit=2)
    assert (len(digest), seed, prompt) == (16, "8", '"two\\nlines"\n')
