"""Templates of prompts: what is expanded, and what must survive untouched."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdq.cli.templates import MAX_DEPTH, Template, looks_like_a_template
from sdq.errors import UsageError

WORDS = {
    "colour": ("red", "green"),
    "shape": ("circle", "{big|small} __colour__ square"),
    "a": ("__b__",),
    "b": ("x", "__a__"),
}


def named(name: str) -> tuple[str, ...] | None:
    return WORDS.get(name)


@pytest.mark.parametrize(
    ("template", "prompts"),
    [
        ("{red|green} {cat|dog}", ["red cat", "red dog", "green cat", "green dog"]),
        ("a {red|{dark|light} green} cat", ["a red cat", "a dark green cat", "a light green cat"]),
        ("{ very | |} big", ["very big", " big", " big"]),
        ("{#ff0000|blue} sky", ["#ff0000 sky", "blue sky"]),
        ("a { b {x|y}", ["a { b x", "a { b y"]),
        ("{x {a|b} y}", ["{x a y}", "{x b y}"]),
        ("{a|b}}", ["a}", "b}"]),
        ("{{ n|upper }} {a|b}", ["{{ n|upper }} a", "{{ n|upper }} b"]),
    ],
)  # fmt: skip
def test_alternatives(template: str, prompts: list[str]) -> None:
    assert list(Template(template).all()) == prompts
    assert Template(template).count == len(prompts)


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat # with a hash",
        "# a cat",
        "a lone { brace",
        "} a lone | bar {",
        "{one} word in {braces}",
        "{{ name|upper }} and {% if a|b %} and {# c|d #}",
        "__colour__ without a folder",
        "(word:1.2) [from|to] <lora:x:1>",
        "",
    ],
)
def test_what_is_no_template_survives(prompt: str) -> None:
    assert list(Template(prompt).all()) == [prompt]
    assert list(Template(prompt).some(5, seed=1)) == [prompt]
    assert not looks_like_a_template(prompt)


@given(st.text(alphabet=st.characters(exclude_characters="{|}_"), max_size=60))
def test_every_text_without_the_signs_survives(prompt: str) -> None:
    assert list(Template(prompt, named).all()) == [prompt]


@given(st.text(alphabet="ab{|}%# ", max_size=40))
@settings(max_examples=300)
def test_no_text_breaks_it_and_nothing_is_made_up(prompt: str) -> None:
    template = Template(prompt)
    if template.count > 200:
        return
    found = list(template.all())
    assert len(found) == template.count
    for one in found:
        assert all(one.count(sign) <= prompt.count(sign) for sign in set(prompt) | set(one))
    assert set(template.some(3, seed=4)) <= set(found)
    if template.count == 1 and not looks_like_a_template(prompt):
        assert found == [prompt]


plain = st.text(alphabet="abc#% ", min_size=1, max_size=6).map(lambda text: f"x{text}x")


@given(st.lists(st.lists(plain, min_size=2, max_size=3), min_size=1, max_size=4))
def test_groups_multiply_in_the_order_of_nested_loops(groups: list[list[str]]) -> None:
    template = Template(" ".join("{" + "|".join(group) + "}" for group in groups))
    assert list(template.all()) == [" ".join(row) for row in itertools.product(*groups)]


def test_random_ones_are_different_and_the_same_for_the_same_seed() -> None:
    template = Template("{a|b|c|d} {a|b|c|d} {a|b|c|d}")
    first = list(template.some(10, seed=7))
    assert len(set(first)) == 10
    assert first == list(template.some(10, seed=7))
    assert first != list(template.some(10, seed=8))
    assert first[:3] == ["b d a", "a b c", "b c b"], "other prompts for the same seed than before"
    assert sorted(Template("{a|b}").some(10, seed=1)) == ["a", "b"]


def test_a_wildcard_is_the_lines_of_its_file() -> None:
    assert list(Template("a __colour__ __shape__", named).all()) == [
        f"a {colour} {shape}"
        for colour in ("red", "green")
        for shape in (
            "circle", "big red square", "big green square", "small red square",
            "small green square",
        )
    ]  # fmt: skip


def test_too_much_is_refused_before_it_is_made() -> None:
    template = Template("{a|b}" * 60)
    assert template.count == 2**60
    with pytest.raises(UsageError, match="1152921504606846976 prompts, the limit is 1000"):
        template.all()
    assert len(list(template.some(3, seed=0))) == 3


def test_circles_depth_and_foreign_templates_are_refused() -> None:
    with pytest.raises(UsageError, match="a → b → a"):
        Template("__a__", named)
    with pytest.raises(UsageError, match="deep"):
        Template("{x|" * (MAX_DEPTH + 1) + "y" + "}" * (MAX_DEPTH + 1))
    with pytest.raises(UsageError, match="several"):
        Template("{2$$a|b|c}")
    assert looks_like_a_template("{2$$a|b|c}")
