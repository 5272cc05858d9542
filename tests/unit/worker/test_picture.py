"""One picture, from the order to the answer."""

from concurrent.futures import Future

import pytest
from PIL import Image

from sdq.errors import Cancelled, GenerationFailed, InvalidSpec, OutOfMemory
from sdq.spec import ImageSpec
from sdq.worker.flight import Flight, NoPicture
from sdq.worker.picture import DrawnImage, Order, Picture, is_suspicious


class Listener:
    """Who asked for the picture."""

    def __init__(self, spec: ImageSpec) -> None:
        self.told: list[int] = []
        self.is_gone = False
        self.future: Future[DrawnImage] = Future()
        order = Order(spec, lambda step, _: self.told.append(step), self.has_gone, self.future)
        self.picture = Picture(order, is_closing=lambda: False)

    def has_gone(self) -> bool:
        return self.is_gone


def test_each_step_is_told_once(spec: ImageSpec) -> None:
    listener = Listener(spec)
    for step in (0, 0, 1, 1, 2):
        listener.picture.tell(step, 4)
    assert listener.told == [0, 1, 2]
    listener.is_gone = True
    with pytest.raises(Cancelled):
        listener.picture.tell(3, 4)
    assert listener.told == [0, 1, 2]


def test_a_picture_is_handed_over(spec: ImageSpec) -> None:
    listener = Listener(spec)
    image = Image.new("RGB", (8, 8), (1, 2, 3))
    seconds = listener.picture.finish(image)
    assert listener.future.result(0) == DrawnImage(image=image, draw_seconds=seconds)


def test_a_black_one_is_none(spec: ImageSpec) -> None:
    listener = Listener(spec)
    with pytest.raises(NoPicture, match="all black"):
        listener.picture.finish(Image.new("RGB", (8, 8)))
    assert not listener.future.done()


def test_too_little_memory_in_words(spec: ImageSpec) -> None:
    listener = Listener(spec)
    listener.picture.fail(MemoryError("the device is full"))
    with pytest.raises(OutOfMemory, match="not enough memory to draw 64x48: the device is full"):
        listener.future.result(0)


def test_its_group_is_that_of_its_flight(spec: ImageSpec) -> None:
    picture = Listener(spec).picture
    assert picture.group is None
    picture.show(lambda flight: pytest.fail("there is nothing to be seen yet"))
    picture.flight = Flight(spec, group="a")
    assert picture.group == "a"
    assert picture.area_pixels == 64 * 48


@pytest.mark.parametrize(
    ("error", "doubt"),
    [
        (NoPicture("NaN"), True),
        (RuntimeError("device-side assert"), True),
        (GenerationFailed("refused"), False),
        (InvalidSpec("no such scheduler"), False),
        (MemoryError("full"), False),
    ],
)
def test_whose_fault_it_may_be(error: Exception, doubt: bool) -> None:
    assert is_suspicious(error) is doubt
