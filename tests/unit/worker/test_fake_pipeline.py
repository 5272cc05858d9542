"""The double behaves as the real one does where the engine looks."""

import msgspec

from sdq.spec import ImageSpec
from sdq.testing.pipeline import FakePipeline, colours_of, picture_of


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
