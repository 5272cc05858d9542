"""The formats of a batch file, each a stream of rows. What is wrong in one row stays there."""

import csv
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from sdq.cli.batch.columns import check_columns
from sdq.cli.batch.rows import Row, unreadable
from sdq.cli.batch.source import MAX_LINE_BYTES, STDIN, lines_of
from sdq.errors import UsageError

Rows = AsyncGenerator[Row, None]
_ENDINGS = {
    ".txt": "text", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "jsonl", ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip
FORMATS = ("text", "csv", "jsonl", "yaml")
_DELIMITERS = ",;\t"


def format_of(path: str, chosen: str | None) -> str:
    """The format by its name or by the file's ending; without either, lines of text."""
    if chosen is not None:
        return chosen
    return "text" if path == STDIN else _ENDINGS.get(Path(path).suffix.lower(), "text")


class Reader:
    """Reads one format. ``head``: what stands above the rows, known once the first one is read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.head = ""
        self._delimiters = _DELIMITERS  # of CSV: any, until the header is known
        read: dict[str, Callable[[int], Rows]] = {
            "text": _text, "csv": self._csv, "jsonl": _json_lines, "yaml": _yaml,
        }  # fmt: skip
        self._read = read[name]

    def rows(self, fd: int) -> Rows:
        """The rows, as they come. Raises `UsageError` for what spoils the whole file."""
        return self._read(fd)

    async def _csv(self, fd: int) -> Rows:
        """A header, then a row a record; a record may go over several lines in quotes. The
        delimiter is a comma, a semicolon or a tab, whichever the header has most of."""
        names: list[str] = []
        async with aclosing(self._records(fd)) as records:
            async for number, text in records:
                if text is None:
                    yield unreadable(number)
                elif not text.strip():
                    continue
                elif not names:
                    self._delimiters = max(_DELIMITERS, key=text.count)
                    names = _header(number, _cells(text, self._delimiters))
                    self.head = text
                else:
                    yield _csv_row(number, text, names, _cells(text, self._delimiters))

    async def _records(self, fd: int) -> AsyncGenerator[tuple[int, str | None], None]:
        """Lines, joined while a quote is open; ``None`` for one that is no text or too long."""
        first, text, quotes = 0, "", _Quotes()
        async with aclosing(lines_of(fd)) as lines:
            async for number, line in lines:
                first = number if not quotes.are_open else first
                if line is None or len(text) + len(line) > MAX_LINE_BYTES:
                    yield first, None
                    text, quotes = "", _Quotes()
                    continue
                text = f"{text}\n{line}" if quotes.are_open else line
                quotes.read(line, self._delimiters)
                if not quotes.are_open:
                    yield first, text
                    text, quotes = "", _Quotes()
        if text:
            yield first, text


async def _text(fd: int) -> Rows:
    async with aclosing(lines_of(fd)) as lines:
        async for number, line in lines:
            if line is None:
                yield unreadable(number)
            elif prompt := line.strip():
                yield Row(number, {"prompt": prompt}, line)


async def _json_lines(fd: int) -> Rows:
    async with aclosing(lines_of(fd)) as lines:
        async for number, line in lines:
            if line is None:
                yield unreadable(number)
            elif line.strip():
                yield _json_row(number, line)


def _json_row(number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = UsageError(
            f"this is no JSON: {error}", hint='one object a line: {"prompt": "a cat", "steps": 20}'
        )
        return Row(number, raw=line, problem=problem)
    return row_of(number, value, line)


async def _yaml(fd: int) -> Rows:
    from sdq.cli.batch.yaml_rows import yaml_values  # PyYAML, 15 ms

    async with aclosing(yaml_values(fd)) as values:
        async for number, value in values:
            if isinstance(value, UsageError):
                yield Row(number, problem=value)
            else:
                yield row_of(number, value, "- " + json.dumps(value, ensure_ascii=False))


def row_of(number: int, value: object, raw: str) -> Row:
    """A row of a JSON or YAML value: an object, or a text that is a prompt."""
    if isinstance(value, str):
        return Row(number, {"prompt": value}, raw)
    if not isinstance(value, dict):
        problem = UsageError("this is no object with a prompt", hint='{"prompt": "a cat"}')
        return Row(number, raw=raw, problem=problem)
    try:
        check_columns(value)
    except UsageError as error:
        return Row(number, raw=raw, problem=error)
    return Row(number, value, raw)


def _header(number: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    check_columns(names, f"line {number}: ")
    if "prompt" not in names:
        raise UsageError(
            "the file has no column named prompt",
            hint="the first line of a CSV file names its columns: prompt,steps,seed",
        )
    return names


def _csv_row(number: int, text: str, names: list[str], cells: list[str]) -> Row:
    if len(cells) > len(names):
        problem = UsageError(
            f"it has {len(cells)} cells, the header has {len(names)}",
            hint='put a prompt with commas into quotes: "a cat, sleeping"',
        )
        return Row(number, raw=text, problem=problem)
    return Row(number, dict(zip(names, cells, strict=False)), text)


def _cells(text: str, delimiter: str) -> list[str]:
    csv.field_size_limit(MAX_LINE_BYTES)
    return next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter), [])


class _Quotes:
    """Whether a quote is open, cell by cell. It opens a cell only where that begins: ``5" high``
    is a cell like any other."""

    def __init__(self) -> None:
        self.are_open = False
        self._may_open = True

    def read(self, text: str, delimiters: str) -> None:
        """The next line of the record."""
        for sign in text if self.are_open or '"' in text else "":
            if self.are_open:
                self.are_open = sign != '"'
                self._may_open = True  # a second quote: it was one inside
            elif sign == '"' and self._may_open:
                self.are_open = True
            else:
                self._may_open = sign in delimiters
