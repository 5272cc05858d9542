"""Whole PNGs, told from cut and changed ones."""

import random

from sdq.server.library.png import flaw_in
from sdq.testing.rig import png


def test_a_whole_picture_has_no_flaw():
    assert flaw_in(png()) == ""


def test_each_cut_is_found():
    whole = png(64, 64)
    assert all(flaw_in(whole[:end]) for end in range(len(whole)))
    assert flaw_in(whole + b"x") == "something follows its end"


def test_each_changed_byte_is_found():
    whole = png(64, 64)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= random.Random(place).randrange(1, 256)
        assert flaw_in(bytes(changed)), place


def test_something_else_is_no_picture():
    assert flaw_in(b"") == flaw_in(b"GIF89a" * 20) == "it is no PNG"
    assert flaw_in(b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0IEND\xaeB`\x82") == "it is no PNG"
