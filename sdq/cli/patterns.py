"""The names of output files: patterns such as ``{n:03}-{seed}-{slug}.png``."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdq.errors import UsageError

FIELDS = {
    "n": "number of the picture, from 1",
    "index": "number of the picture in its request, from 0",
    "seed": "its seed",
    "slug": "the prompt, made safe for a file name",
    "key": "its key in the library",
    "model": "the model",
}
_SLUG_CHARACTERS = 60
_DISTINCT_KEY_CHARACTERS = 8
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}:]*)(?::([^{}]*))?\}|[{}]")


@dataclass(frozen=True)
class _Field:
    name: str
    form: str

    def text(self, values: Mapping[str, str | int]) -> str:
        value = values[self.name]
        if isinstance(value, int):
            return format(value, self.form)
        return value[: int(self.form)] if self.form else value

    @property
    def is_distinct_key(self) -> bool:
        return self.name == "key" and int(self.form or "64") >= _DISTINCT_KEY_CHARACTERS


class Pattern:
    """A path with fields. ``{{`` and ``}}`` stand for braces.

    Numbers take a width (``{n:03}``), texts a number of characters (``{key:8}``).
    ``more``: fields beside `FIELDS`. Raises `UsageError` for fields that do not exist.
    """

    def __init__(self, text: str, *, more: Sequence[str] = ()) -> None:
        self.text = text
        self._parts = _parse(text, [*FIELDS, *more])

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(part.name for part in self._parts if isinstance(part, _Field))

    @property
    def is_addressed_by_content(self) -> bool:
        """Whether equal names mean equal pictures."""
        return any(isinstance(part, _Field) and part.is_distinct_key for part in self._parts)

    def fill(self, values: Mapping[str, str | int]) -> str:
        """The path with the values in. Every field needs one."""
        return "".join(part if isinstance(part, str) else part.text(values) for part in self._parts)


def escaped(path: str) -> str:
    """A path as a pattern that means exactly it."""
    return path.replace("{", "{{").replace("}", "}}")


def _parse(text: str, fields: Sequence[str]) -> list[str | _Field]:
    parts: list[str | _Field] = []
    end = 0
    for token in _TOKEN.finditer(text):
        parts.append(text[end : token.start()])
        parts.append(_part(token, text, fields))
        end = token.end()
    parts.append(text[end:])
    return parts


def _part(token: re.Match[str], text: str, fields: Sequence[str]) -> str | _Field:
    if token[0] in ("{{", "}}"):
        return token[0][0]
    name, form = token[1], token[2] or ""
    if name not in fields:
        raise UsageError(
            f"{token[0]} in {text!r} is no field of a file name",
            hint="there are " + ", ".join(f"{{{field}}}" for field in fields) + "; {{ is a brace",
        )
    if form and not re.fullmatch(r"\d{1,2}", form, re.ASCII):
        raise UsageError(f"{form!r} in {text!r} is no width", hint="write {n:03} or {key:8}")
    return _Field(name, form)


def slug_of(prompt: str) -> str:
    """A prompt as part of a file name: ASCII letters, digits and dashes, at most 60."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return slug[:_SLUG_CHARACTERS].strip("-") or "picture"


def model_part(model: str) -> str:
    """A model's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip(".-") or "model"
