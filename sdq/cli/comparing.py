"""Two pictures, pixel by pixel."""

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

ROUNDING = 2
"""Of 255. What other devices, other company in a batch and other versions of a library do to a
picture that is the same; see `docs/performance.md`."""

Verdict = Literal["identical", "rounding", "different"]


class Comparison(NamedTuple):
    verdict: Verdict
    max_difference: int  # of 255, the largest of any pixel and colour
    pixels_different: int
    pixels: int


def compare(one: "Image", other: "Image") -> Comparison:
    """Of two pictures in RGB. Other sizes are different in every pixel."""
    from PIL import ImageChops

    pixels = one.width * one.height
    if one.size != other.size:
        return Comparison("different", 255, pixels, pixels)
    difference = ImageChops.difference(one.convert("RGB"), other.convert("RGB"))
    red, green, blue = difference.split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    histogram = largest.histogram()
    worst = max(value for value, count in enumerate(histogram) if count)
    verdict: Verdict = "different" if worst > ROUNDING else "rounding" if worst else "identical"
    return Comparison(verdict, worst, pixels - histogram[0], pixels)
