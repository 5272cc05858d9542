"""The page that asks "download anyway?" before a file that is too large for a virus scan."""

import contextlib
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from sdq.worker.fetch.faults import Unreachable

MAX_PAGE_BYTES = 1024 * 1024


class _Forms(HTMLParser):
    """Reads the first form whose purpose is a download: its address and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.title = ""
        self._inside = False
        self._in_title = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form" and not self.action and "download" in given.get("action", ""):
            self.action, self._inside = given["action"], True
        elif tag == "input" and self._inside and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data


def confirmed(page: bytes, url: str) -> str:
    """The address that the page's button leads to.

    Raises `Unreachable` when there is none: the file is gone, private, or was fetched too often
    today, and the page says so in words.
    """
    forms = _Forms()
    with contextlib.suppress(AssertionError):  # Python's parser at some kinds of broken HTML
        forms.feed(page[:MAX_PAGE_BYTES].decode("utf-8", "replace"))
    if not forms.action:
        title = " ".join(forms.title.split())[:100] or "no title"
        raise Unreachable(f"it answers with a page ({title}) instead of a file")
    try:
        action = urljoin(url, forms.action)
    except ValueError as error:
        raise Unreachable(f"its page leads nowhere: {error}") from error
    if urlsplit(action).scheme not in ("https", urlsplit(url).scheme):
        raise Unreachable(f"its page leads to {urlsplit(action).scheme}:, which is not followed")
    return f"{action.partition('?')[0]}?{urlencode(forms.fields)}"
