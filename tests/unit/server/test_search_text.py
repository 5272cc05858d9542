"""What the search sees of texts, and the queries that it makes of words."""

import msgspec
import pytest

from sdq.server import search_text
from sdq.server.search_text import facts_of, query_of, words_of
from sdq.spec import ImageSpec, Lora, SpecDraft
from sdq.testing.transport import resolved

SPEC = resolved(SpecDraft(prompt="a cat", negative_prompt="Dogs!", seed=7))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A Red, circle! (it's 1.2)", "a red circle it s 1 2"),
        ("Été GRÜSSE Straße Ωμέγα", "ete grusse strasse ωμεγα"),
        ("東京タワー at", "東 京 タ ワ ー at"),
        ("ครับ", "ค รั บ"),
        ("हिन्दी", "हिन्दी"),
        ("한국어 ﬁne ①", "한국어 fine 1"),
        ("🐱❤️x", "🐱 ❤ x"),
        ("\x00\x1b\ud800 -_/ ", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert words_of(text) == words


def test_symbols_of_ascii_are_words_of_their_own() -> None:
    plus, less = words_of("+ <").split()
    assert plus != less
    assert not any(letter.isascii() for letter in plus + less)
    assert words_of(plus) == ""  # nobody can type them


def test_ascii_has_the_same_words_either_way() -> None:
    text = "".join(chr(number) for number in range(128)) + " A red+blue <lora:x:1> a_b"
    assert words_of(f"é {text}").split()[1:] == words_of(text).split()


def test_queries() -> None:
    assert query_of("", "  ", []) == ""
    assert query_of("Red \u201cblue sky\u201d", "", []) == 'words : "red" AND words : "blue sky"'
    assert query_of("ci* 'q", "bad", ["s7"]) == (
        'facts : "s7" AND words : "ci" * AND words : "q" AND negative_words : "bad"'
    )
    assert query_of('"a b"* "open end', "", []) == 'words : "a b" * AND words : "open end"'
    assert query_of("red ?!", "", []) == 'words : "red"'
    assert query_of("?!", "", ["s7"]) is None
    assert query_of("red", "...", []) is None


def test_facts_are_never_words_of_one_another() -> None:
    lora = Lora("Neon 2", "a" * 64, 1.0)
    facts = facts_of(msgspec.structs.replace(SPEC, loras=(lora,))).split()
    assert facts == [
        search_text.model_fact("shapes"),
        search_text.size_fact(64, 64),
        search_text.seed_fact(7),
        search_text.lora_fact("NEON 2"),
    ]
    assert len({fact[0] for fact in [*facts, search_text.PINNED_FACT]}) == 5
    assert all(fact.isascii() and fact.isalnum() for fact in facts)


def test_the_function_of_migrations_survives_damaged_rows() -> None:
    name, arguments, function = search_text.FUNCTION
    assert (name, arguments) == ("search_text", 2)
    spec = msgspec.json.encode(SPEC)
    assert [function(spec, part) for part in range(3)] == ["a cat", "dogs", facts_of(SPEC)]
    for damaged in (b"", b"{}", b"\xff\xfe", spec[:-1]):
        assert function(damaged, 0) == ""


def test_a_spec_of_any_texts_has_facts() -> None:
    odd = ImageSpec("", "", "\ud800 'x'", 8, 8, 1, 0.0, "ddim", 0)
    assert facts_of(odd).isascii()
