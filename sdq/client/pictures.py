"""`Picture`: a finished picture as a script wants it."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sdq.client.saving import format_of, in_format, write_whole
from sdq.protocol import messages
from sdq.protocol.vocabulary import Origin
from sdq.spec import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Picture:
    """One picture, whole. Nothing of it changes, so it may be handed to any thread."""

    png: bytes = field(repr=False)
    """The file as the server keeps it: PNG, with the texts of `sdq.metadata` in it."""
    spec: ImageSpec
    """All that it depends on, the seed too."""
    key: str
    """Its name in the library: 64 hexadecimal digits."""
    index: int
    """Its place among the pictures of its request, from 0."""
    origin: Origin
    """``hit``: it was in the library; ``made``: drawn for this request; ``joined``: drawn for an
    equal one that was under way."""
    draw_seconds: float
    """What the worker needed when it was drawn."""

    @classmethod
    def of(cls, message: messages.Picture) -> "Picture":
        """The picture that a `Picture` among the events of `Client.watch` brought."""
        return cls(
            png=message.image,
            spec=message.spec,
            key=message.key,
            index=message.index,
            origin=message.cache,
            draw_seconds=message.draw_seconds,
        )

    @cached_property
    def image(self) -> "Image":
        """The pixels as a Pillow image, decoded when first asked for. Raises `UsageError`."""
        from sdq.metadata import decoded  # 20 ms with Pillow

        return decoded(self.png)

    def save(self, path: str | os.PathLike[str], *, quality: int = 92) -> Path:
        """Writes a ``.png``, ``.jpg``, ``.jpeg`` or ``.webp`` file, and gives its path.

        The file says how it was drawn, as those of ``sdq generate`` do. It is written whole or
        not at all; folders are made, and a file that is there is replaced. ``quality``: 1 to 100,
        for JPEG and WebP. Raises `UsageError` for another ending, `OutputError` where it cannot
        be written.
        """
        path = Path(path)
        write_whole(path, in_format(self.png, format_of(path), quality))
        return path

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.png
