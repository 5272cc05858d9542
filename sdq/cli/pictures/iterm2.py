"""The inline images of iTerm2: https://iterm2.com/documentation-images.html"""

from base64 import standard_b64encode


def at_cursor(png: bytes, columns: int, lines: int) -> str:
    """Shows a picture at the cursor, which is below it afterwards."""
    said = f"inline=1;size={len(png)};width={columns};height={lines};preserveAspectRatio=1"
    return f"\x1b]1337;File={said}:{standard_b64encode(png).decode()}\x07\n"
