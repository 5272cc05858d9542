"""Whether a file is a whole PNG, without decoding its pixels."""

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEAD = struct.Struct(">I4s")
_CRC = struct.Struct(">I")
_AROUND_BYTES = _HEAD.size + _CRC.size


def flaw_in(data: bytes) -> str:
    """What is wrong with it, in words; empty when every chunk is whole.

    Each chunk has a checksum (PNG specification, 5.3): a picture that was cut, or of which bytes
    changed, is found out.
    """
    if not data.startswith(_SIGNATURE):
        return "it is no PNG"
    view, place, kind = memoryview(data), len(_SIGNATURE), b""
    while kind != b"IEND":
        if place + _AROUND_BYTES > len(data):
            return "it is cut"
        length, found = _HEAD.unpack_from(data, place)
        end = place + _AROUND_BYTES + length
        if not kind and found != b"IHDR":
            return "it is no PNG"
        if end > len(data):
            return "it is cut"
        kind = found
        (checksum,) = _CRC.unpack_from(data, end - _CRC.size)
        if zlib.crc32(view[place + 4 : end - _CRC.size]) != checksum:
            return "bytes of it have changed"
        place = end
    return "" if place == len(data) else "something follows its end"
