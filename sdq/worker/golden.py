"""The golden picture of a model: what its proof picture should look like.

The catalog carries it as a PNG of at most `MAX_SIDE` pixels a side. The proof picture is drawn
from noise that is the same everywhere, so every device and precision gives nearly the same one.
Both are made as small as the smaller one; the mean absolute difference of all bands counts.

Measured of the built-in model's (three yellow stars, DDIM, 20 steps, 64x64), of 255:

    right    float16 0.05; bfloat16 0.5, and 0.4 to 0.8 with any of the eight samplers (on a CPU)
    wrong    another seed 8.0 to 10.5; another number, shape or colour 15 to 156;
             guidance 7.5 8.2, none 13; a first, last or large layer zeroed or doubled 9 to 131;
             Euler ancestral 8.6, LCM 10.8, PNDM 2.5; 5 steps 3.1

`MOST_DIFFERENCE` lies between them. What it cannot tell: samplers that end in nearly the same
picture (Euler 0.0, DPM++, Heun and UniPC 1.1), and one damaged tensor of an attention within,
which often changes the picture by less than bfloat16 does (0.0 to 2.6). Damaged files are found
by their hashes; this is for devices, drivers and libraries that compute something else.
"""

import base64
import binascii
import io

from PIL import Image as images
from PIL import ImageChops, ImageStat
from PIL.Image import Image

from sdq.errors import ModelError

MAX_SIDE = 64
"""In pixels: 12 KiB even where nothing can be packed, 16 KiB in base64."""

MOST_DIFFERENCE = 2.0
"""Of 255, on average."""

_MAX_PIXELS = 1024 * 1024


def encoded(picture: Image) -> str:
    """The picture as the catalog has it: RGB, made smaller where it must be, PNG in base64."""
    small = picture.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), images.Resampling.BOX, reducing_gap=None)
    target = io.BytesIO()
    small.save(target, "PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode("ascii")


def decoded(text: str) -> Image:
    """The picture of a catalog's entry. Raises `ModelError` when it is none."""
    try:
        data = base64.b64decode(text, validate=True)
        with images.open(io.BytesIO(data), formats=("PNG",)) as found:
            if found.width * found.height > _MAX_PIXELS:
                raise ValueError(f"{found.width}x{found.height} is too large")
            return found.convert("RGB")
    except (OSError, ValueError, binascii.Error, SyntaxError, images.DecompressionBombError) as e:
        raise ModelError(
            f"the golden picture of the catalog is broken: {e}",
            hint="whoever keeps the server's catalog can leave it out or make it anew: "
            "sdq model add ID LINK… --replace --golden FILE",
        ) from e


def difference(picture: Image, golden: Image) -> float:
    """Mean absolute difference of all bands at the smaller one's size, 0 to 255."""
    size = min(picture.size, golden.size)
    one, other = (
        found.convert("RGB").resize(size, images.Resampling.BOX) for found in (picture, golden)
    )
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


def fault_of(picture: Image, golden: str) -> str:
    """How a proof picture differs from the catalog's, in words; empty when it does not, or when
    there is no golden one. Raises `ModelError` for a golden picture that cannot be read."""
    if not golden:
        return ""
    found = difference(picture, decoded(golden))
    if found <= MOST_DIFFERENCE:
        return ""
    return (
        f"it is another picture than the golden one: they differ by {found:.1f} of 255 on average, "
        f"{MOST_DIFFERENCE:g} are allowed"
    )
