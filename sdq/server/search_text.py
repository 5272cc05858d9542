"""What the search sees of a picture, and what it makes of a person's words.

All splitting into words is done here, not by SQLite: the text that its full-text index gets is
made of words with one space between them, so nothing that anybody types has a meaning in SQLite's
query language. Letters of scripts that leave no space between words are words of their own, and
so are symbols and emoji; punctuation separates words and means nothing else.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice

import msgspec

from sdq.spec import ImageSpec

MAX_PARTS = 64
"""Words and phrases of one question; more of them are passed over."""

_ACCENTS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters only
_ALONE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese letters."""

_PRIVATE = 0xE000
"""ASCII symbols move here: SQLite takes all letters beyond ASCII for parts of words."""

_PART = re.compile(r'"([^"]*)(?:"|$)(\*?)|(\S+)')

PINNED_FACT = "p"
"""As the database itself adds it."""

_decode_spec = lru_cache(maxsize=4)(msgspec.json.Decoder(ImageSpec).decode)
"""A row's is asked for three times by the migration."""


def fold(text: str) -> str:
    """Case, accents and ways to write the same letter make no difference."""
    apart = unicodedata.normalize("NFKD", text.casefold()).casefold()
    return unicodedata.normalize("NFC", _ACCENTS.sub("", apart))


def words_of(text: str) -> str:
    """A text as words with one space between them, all in one case."""
    if text.isascii():  # most are, and that is thirty times as quick
        return " ".join(text.lower().translate(_ASCII_WORDS).split())
    return " ".join(_words(fold(text)))


def _word_in_ascii(letter: str) -> str:
    if unicodedata.category(letter)[0] in "LN":
        return letter
    return f" {_symbol(letter)} " if unicodedata.category(letter)[0] == "S" else " "


def _symbol(letter: str) -> str:
    return chr(_PRIVATE + ord(letter)) if letter.isascii() else letter


_ASCII_WORDS = {number: _word_in_ascii(chr(number)) for number in range(128)}


def _words(text: str) -> Iterator[str]:
    word = ""
    for letter in text:
        kind = unicodedata.category(letter)[0]
        if kind == "M" and word:  # marks belong to the letter before them
            word += "" if "\ufe00" <= letter <= "\ufe0f" else letter
        elif kind in "LN" and not _ALONE.match(letter) and not _ALONE.match(word):
            word += letter
        else:
            if word:
                yield word
            word = letter if kind in "LN" else ""
            if kind == "S":
                yield _symbol(letter)
    if word:
        yield word


def query_of(words: str, negative: str, facts: Iterable[str]) -> str | None:
    """A query for SQLite's full-text index; empty: everything; ``None``: nothing can be found.

    ``words`` and ``negative`` are a person's: words in any order, ``"phrases"``, ``begin*``.
    Whatever they are, the query is a valid one.
    """
    parts = [f'facts : "{fact}"' for fact in facts]
    for column, text in (("words", words), ("negative_words", negative)):
        phrases = list(_phrases(text))
        if text.strip() and not phrases:
            return None  # nothing but punctuation
        parts += [f"{column} : {phrase}" for phrase in phrases]
    return " AND ".join(parts)


def _phrases(text: str) -> Iterator[str]:
    """Each part of a question in SQLite's words."""
    straight = text.replace("\u201c", '"').replace("\u201d", '"')
    for found in islice(_PART.finditer(straight), MAX_PARTS):
        quoted, star, bare = found[1], found[2], found[3]
        said = words_of(quoted if bare is None else bare)
        if said:
            begins = bool(star) if bare is None else bare.endswith("*")
            yield f'"{said}" *' if begins else f'"{said}"'


def facts_of(spec: ImageSpec) -> str:
    """What may be filtered by, as words that no prompt's are compared with."""
    facts = [
        model_fact(spec.model),
        size_fact(spec.width, spec.height),
        seed_fact(spec.seed),
        *(lora_fact(lora.name) for lora in spec.loras),
    ]
    return " ".join(facts)


def model_fact(model: str) -> str:
    return "m" + model.encode("utf-8", "replace").hex()


def size_fact(width: int, height: int) -> str:
    return f"z{width}x{height}"


def seed_fact(seed: int) -> str:
    return f"s{seed}"


def lora_fact(name: str) -> str:
    return "l" + fold(name).encode("utf-8", "replace").hex()


def _of_row(spec: bytes, part: int) -> str:
    """For migrations; a damaged row must not keep a database from being opened."""
    try:
        found = _decode_spec(spec)
    except (msgspec.MsgspecError, UnicodeError):
        return ""
    texts = (words_of(found.prompt), words_of(found.negative_prompt), facts_of(found))
    return texts[part]


FUNCTION = ("search_text", 2, _of_row)
"""What the migrations use: ``search_text(spec as a blob, 0 | 1 | 2)`` gives the words of the
prompt, of the negative prompt, and the facts. As for `sqlite3.Connection.create_function`."""
