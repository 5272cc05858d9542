"""Templates of prompts: ``{red|green} {circle|square}``, and ``__colors__`` from a file.

A group is a pair of braces with a ``|`` between them; groups may stand in groups. Everything else
stays as it was written: lone braces, braces without a ``|``, ``#``, and what stands between marks
of Jinja (``{{ }}``, ``{% %}``, ``{# #}``). ``dynamicprompts`` has the same two signs, but takes
``#`` for the beginning of a comment and fails on braces that it does not know.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod

from sdq.errors import UsageError

MAX_PROMPTS = 1_000
"""Prompts of one template, unless ``--max`` says otherwise."""

MAX_DEPTH = 16
"""Groups in groups, and wildcards that name wildcards."""

_TRIES_EACH = 20
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_WILDCARD = re.compile(r"__([A-Za-z0-9](?:_?[A-Za-z0-9./-])*)__")
_PICK_SEVERAL = re.compile(r"\s*\d+(-\d+)?\$\$")

Wildcards = Callable[[str], "tuple[str, ...] | None"]
"""The lines of a wildcard by its name; ``None``: it stays text. Raises `UsageError`."""


def no_wildcards(name: str) -> None:
    """For whom has no folder of them: ``__name__`` stays text."""


@dataclass(frozen=True)
class _Row:
    """Texts and choices, one after the other."""

    parts: tuple["str | _Choice", ...]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        counts = (part.count for part in self.parts if isinstance(part, _Choice))
        object.__setattr__(self, "count", prod(counts))

    def at(self, number: int) -> str:
        """The text of that number, from 0: the last choice changes first."""
        texts: list[str] = []
        for part in reversed(self.parts):
            if isinstance(part, str):
                texts.append(part)
            else:
                number, place = divmod(number, part.count)
                texts.append(part.at(place))
        return "".join(reversed(texts))

    def any(self, pick: Callable[[int], int]) -> str:
        return "".join(part if isinstance(part, str) else part.any(pick) for part in self.parts)


@dataclass(frozen=True)
class _Choice:
    """One of several rows."""

    rows: tuple[_Row, ...]
    count: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", sum(row.count for row in self.rows))

    def at(self, number: int) -> str:
        for row in self.rows:
            if number < row.count:
                return row.at(number)
            number -= row.count
        raise IndexError(number)

    def any(self, pick: Callable[[int], int]) -> str:
        return self.rows[pick(len(self.rows))].any(pick)


Parsed = dict[str, _Choice]
"""Wildcards by their names, parsed."""


class Template:
    """A prompt with its groups found. Raises `UsageError` for what cannot be expanded."""

    def __init__(
        self, text: str, wildcards: Wildcards = no_wildcards, parsed: Parsed | None = None
    ) -> None:
        """``parsed``: what templates with the same ``wildcards`` share, so that each is parsed
        once."""
        self._text = text
        self._row = _Parser(wildcards, {} if parsed is None else parsed).row(text)

    @property
    def count(self) -> int:
        """How many prompts it stands for; equal ones are counted each."""
        return self._row.count

    def all(self, most: int = MAX_PROMPTS) -> Iterator[str]:
        """Every prompt, always in the same order: the last group changes first.

        Raises `UsageError` at once when there are more than ``most``.
        """
        if self.count > most:
            raise UsageError(
                f"the template gives {self.count} prompts, the limit is {most}",
                hint="allow more with --max, or take some of them with --random",
            )
        return (self._row.at(number) for number in range(self.count))

    def some(self, count: int, seed: int) -> Iterator[str]:
        """So many different ones, fewer when there are no more: the same ones for the same seed,
        whatever Python it is. In each group every alternative is as likely."""
        seen: set[bytes] = set()
        for number in range(count * _TRIES_EACH):
            prompt = self._row.any(_Dice(f"{seed}\n{number}\n{self._text}"))
            name = sha256(prompt.encode("utf-8", "surrogatepass")).digest()
            if name not in seen:
                seen.add(name)
                yield prompt
            if len(seen) >= min(count, self.count):
                return


class _Dice:
    """Numbers below a limit that depend on a text only."""

    def __init__(self, text: str) -> None:
        self._state = sha256(text.encode("utf-8", "surrogatepass"))

    def __call__(self, limit: int) -> int:
        self._state.update(b"next")
        return int.from_bytes(self._state.digest()[:8], "big") % limit


def looks_like_a_template(text: str) -> bool:
    """Whether a prompt has a group. What has none is one prompt with ``--expand`` too."""
    return "|" in text and bool(_groups(text))


class _Parser:
    """One for a template. ``choices``: of all wildcards by their names, as far as any was named."""

    def __init__(self, wildcards: Wildcards, choices: Parsed) -> None:
        self._wildcards = wildcards
        self._above: list[str] = []  # the wildcards that the text in hand comes from
        self._choices = choices

    def row(self, text: str) -> _Row:
        return self._row(text, 0, len(text), _groups(text), 0)

    def _row(
        self, text: str, begin: int, end: int, groups: dict[int, tuple[int, list[int]]], depth: int
    ) -> _Row:
        parts: list[str | _Choice] = []
        since = place = begin
        while place < end:
            if place not in groups:
                place += 1
                continue
            if depth >= MAX_DEPTH:
                raise UsageError(f"groups stand in groups more than {MAX_DEPTH} deep")
            parts += self._with_wildcards(text[since:place])
            close, bars = groups[place]
            _refuse_several(text[place + 1 : bars[0]])
            bounds = [place, *bars, close]
            rows = [
                self._row(text, *_stripped(text, before + 1, after), groups, depth + 1)
                for before, after in itertools.pairwise(bounds)
            ]
            parts.append(_Choice(tuple(rows)))
            since = place = close + 1
        parts += self._with_wildcards(text[since:end])
        return _Row(tuple(parts))

    def _with_wildcards(self, text: str) -> list[str | _Choice]:
        parts: list[str | _Choice] = []
        since = 0
        for found in _WILDCARD.finditer(text):
            if (choice := self._wildcard(found[1])) is not None:
                parts += [text[since : found.start()], choice]
                since = found.end()
        return [part for part in [*parts, text[since:]] if part]

    def _wildcard(self, name: str) -> _Choice | None:
        lines = self._wildcards(name)
        if lines is None:
            return None
        if name in self._above or len(self._above) >= MAX_DEPTH:
            path = " → ".join([*self._above, name])
            raise UsageError(f"wildcards name each other in a circle, or too deep: {path}")
        if name not in self._choices:
            self._above.append(name)
            self._choices[name] = _Choice(tuple(self.row(line) for line in lines))
            self._above.pop()
        return self._choices[name]


def _refuse_several(first: str) -> None:
    if _PICK_SEVERAL.match(first):
        raise UsageError(
            f"{{{first}|…}} would pick several alternatives, which sdq's templates cannot",
            hint="write one group for each of them",
        )


def _stripped(text: str, begin: int, end: int) -> tuple[int, int]:
    """An alternative without the white space around it."""
    while begin < end and text[begin].isspace():
        begin += 1
    while end > begin and text[end - 1].isspace():
        end -= 1
    return begin, end


def _groups(text: str) -> dict[int, tuple[int, list[int]]]:
    """By the place of its first brace: the place of its last, and those of its bars."""
    protected = {place for found in _JINJA.finditer(text) for place in range(*found.span())}
    groups: dict[int, tuple[int, list[int]]] = {}
    open_ones: list[tuple[int, list[int]]] = []
    for place, sign in enumerate(text):
        if sign not in "{|}" or place in protected:
            continue
        if sign == "{":
            open_ones.append((place, []))
        elif open_ones and sign == "|":
            open_ones[-1][1].append(place)
        elif open_ones:
            begin, bars = open_ones.pop()
            if bars:
                groups[begin] = (place, bars)
    return groups
