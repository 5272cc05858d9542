"""The page as HTML: texts escaped, nothing fetched from anywhere, no script but our own.

A policy in the page's head names the one script by its hash, so that a browser would run no other,
and lets nothing be loaded.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any, NamedTuple

from sdq.cli.describing import pairs_of

_MAX_TEXT_CHARACTERS = 10_000


class Card(NamedTuple):
    """One picture of the page."""

    thumbnail: bytes  # WebP
    size: tuple[int, int]  # of the thumbnail, in pixels
    said: Mapping[str, Any]  # as `sdq.cli.describing` tells it


def beginning(title: str) -> str:
    """All before the first card."""
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '{_hash()}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_text(title)}</title>
<style>
{_resource("page.css")}</style>
</head>
<body>
<header>
<h1>{_text(title)}</h1>
<input id="search" type="search" placeholder="Search: /" aria-label="Search" autocomplete="off">
<p id="shown" role="status"></p>
<button id="theme" type="button">Light / dark</button>
</header>
<main>
"""


def card_html(card: Card) -> str:
    """One picture with its parameters."""
    pairs = [(name, value) for name, value in pairs_of(card.said) if value not in ("", None)]
    values = {name: str(value) for name, value in pairs}
    prompt = values.get("prompt", "")
    names = ("model", "size", "seed")
    short = " · ".join(values[name] for name in names if name in values)
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(str(value))}</dd>" for name, value in pairs)
    data = base64.b64encode(card.thumbnail).decode()
    width, height = card.size
    return (
        f'<article tabindex="0"><img src="data:image/webp;base64,{data}" width="{width}"'
        f' height="{height}" loading="lazy" alt="{_text(prompt[:200])}">'
        f"<h2>{_text(prompt)}</h2><p>{_text(short)}</p><dl>{rows}</dl></article>\n"
    )


def end() -> str:
    """All behind the last card."""
    return f"""</main>
<p id="empty" hidden>Nothing is found.</p>
<dialog aria-label="A picture and its parameters"><div id="inside"></div></dialog>
<script>{_resource("page.js")}</script>
</body>
</html>
"""


def page_of(title: str, cards: Iterator[Card]) -> Iterator[str]:
    """The whole page, a piece at a time."""
    yield beginning(title)
    for card in cards:
        yield card_html(card)
    yield end()


def _text(text: str) -> str:
    """Text as HTML shows it; half characters, which no file could hold, are replaced."""
    whole = text[:_MAX_TEXT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return escape(whole.replace("\0", "\ufffd"))


def _resource(name: str) -> str:
    return resources.files("sdq.cli.gallery").joinpath(name).read_text("utf-8")


def _hash() -> str:
    digest = hashlib.sha256(_resource("page.js").encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
