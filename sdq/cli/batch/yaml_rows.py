"""Entries of a YAML file, one at a time: a list of prompts and mappings, or many documents.

Every value is read as the text that stands there, as in a CSV file: ``no`` is a prompt and not a
truth value. Anchors are refused, for ten lines of them can stand for gigabytes.
"""

from collections.abc import AsyncGenerator
from typing import Any

from sdq.cli.batch.source import MAX_LINE_BYTES, stream_of
from sdq.errors import UsageError

MAX_DEPTH = 4
MAX_VALUES = 1_000
_NOTHING = ("", "~", "null", "Null", "NULL")


async def yaml_values(fd: int) -> AsyncGenerator[tuple[int, Any], None]:
    """The number of its first line and each entry: text, mapping, or the `UsageError` that stands
    for one. Raises `UsageError` where the file is no YAML from there on."""
    import yaml

    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with await stream_of(fd) as stream:
        try:
            loader = loader_class(stream)
            try:
                for number, value in _Entries(loader, yaml).all():
                    yield number, value
            finally:
                loader.dispose()
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}" if mark is not None else "it"
            problem = getattr(error, "problem", None) or error
            raise UsageError(f"{where} is no YAML: {problem}", hint='- prompt: "a cat"') from error


class _Entries:
    """Walks over the events of a loader; one entry is in memory at a time."""

    def __init__(self, loader: Any, yaml: Any) -> None:
        self._loader = loader
        self._yaml = yaml
        self._problem: UsageError | None = None
        self._values = 0

    def all(self) -> Any:
        yaml = self._yaml
        while not self._at(yaml.StreamEndEvent):
            event = self._loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                if self._at(yaml.SequenceStartEvent):
                    self._loader.get_event()
                    while not self._at(yaml.SequenceEndEvent):
                        yield self._entry()
                    self._loader.get_event()
                else:
                    yield self._entry()

    def _at(self, kind: Any) -> bool:
        return bool(self._loader.check_event(kind))

    def _entry(self) -> tuple[int, Any]:
        number = self._loader.peek_event().start_mark.line + 1
        self._problem, self._values = None, 0
        value = self._value(0)
        return number, self._problem or value

    def _value(self, depth: int) -> Any:
        """One value; what is beyond the limits is read and thrown away."""
        yaml = self._yaml
        event = self._loader.get_event()
        self._values += 1
        if self._values > MAX_VALUES:
            self._problem = UsageError("the entry holds far too much")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self._problem = UsageError("anchors and aliases are not taken", hint="write it out")
        if isinstance(event, yaml.ScalarEvent):
            if len(event.value) > MAX_LINE_BYTES:
                self._problem = UsageError("a text of the entry is too long")
            is_nothing = event.implicit[0] and event.value in _NOTHING
            return None if is_nothing else event.value
        if depth >= MAX_DEPTH and not isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            return self._skip()
        if isinstance(event, yaml.SequenceStartEvent):
            return self._inside(yaml.SequenceEndEvent, depth)
        if isinstance(event, yaml.MappingStartEvent):
            flat = self._inside(yaml.MappingEndEvent, depth)
            return dict(zip(map(str, flat[::2]), flat[1::2], strict=True))
        return None

    def _skip(self) -> None:
        """To the end of what has just begun. Without recursion: it may be as deep as it likes."""
        self._problem = UsageError("lists stand in lists too deep")
        depth = 1
        while depth:
            event = self._loader.get_event()
            depth += isinstance(event, self._yaml.CollectionStartEvent)
            depth -= isinstance(event, self._yaml.CollectionEndEvent)

    def _inside(self, end: Any, depth: int) -> list[Any]:
        found = []
        while not self._at(end):
            value = self._value(depth + 1)
            if self._problem is None:
                found.append(value)
        self._loader.get_event()
        return found if self._problem is None else []
