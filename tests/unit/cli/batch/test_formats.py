"""The formats of batch files: rows, and what is wrong in one of them."""

import os
from pathlib import Path
from typing import Any

import pytest

from sdq.cli.batch.formats import Reader, format_of
from sdq.cli.batch.rows import Row
from sdq.cli.batch.source import MAX_LINE_BYTES, opened
from sdq.errors import UsageError


async def read(tmp_path: Path, name: str, content: str | bytes) -> tuple[list[Row], Reader]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reader = Reader(format_of(str(path), None))
    with opened(str(path)) as fd:
        return [row async for row in reader.rows(fd)], reader


def told(rows: list[Row]) -> list[Any]:
    """Number and fields, or number and why not."""
    return [
        (row.number, dict(row.fields) if row.problem is None else row.problem.message)
        for row in rows
    ]


async def test_text(tmp_path: Path) -> None:
    rows, _ = await read(tmp_path, "a.txt", "\ufeffa cat\r\n\n # no comment \n{x\nlast")
    assert told(rows) == [
        (1, {"prompt": "a cat"}),
        (3, {"prompt": "# no comment"}),
        (4, {"prompt": "{x"}),
        (5, {"prompt": "last"}),
    ]


async def test_what_is_no_text_or_too_long_costs_one_line(tmp_path: Path) -> None:
    content = b"\xff\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\na cat\n" + b"y" * (MAX_LINE_BYTES + 1)
    rows, _ = await read(tmp_path, "a.txt", content)
    problem = "the line is no UTF-8, or too long"
    assert told(rows) == [(1, problem), (2, problem), (3, {"prompt": "a cat"}), (4, problem)]


async def test_csv(tmp_path: Path) -> None:
    content = (
        'prompt, steps ,guidance\n"a ""big"" cat,\nasleep",5,\n\n'
        'a 5" dog,7,2\nx,1,2,3\nshort\n"",4,1\n'
    )
    rows, reader = await read(tmp_path, "a.csv", content)
    assert told(rows) == [
        (2, {"prompt": 'a "big" cat,\nasleep', "steps": "5", "guidance": ""}),
        (5, {"prompt": 'a 5" dog', "steps": "7", "guidance": "2"}),
        (6, "it has 4 cells, the header has 3"),
        (7, {"prompt": "short"}),
        (8, {"prompt": "", "steps": "4", "guidance": "1"}),
    ]
    assert reader.head == "prompt, steps ,guidance"
    assert rows[0].raw == '"a ""big"" cat,\nasleep",5,'


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_csv_of_spreadsheets(tmp_path: Path, delimiter: str) -> None:
    lines = [["prompt", "seed"], ["a cat", "3"], ['"a, b; c"', "4"]]
    rows, _ = await read(tmp_path, "a.csv", "\r\n".join(delimiter.join(line) for line in lines))
    assert [row.fields["seed"] for row in rows] == ["3", "4"]
    assert rows[1].fields["prompt"] == "a, b; c"


async def test_a_quote_that_never_ends_takes_a_bounded_part(tmp_path: Path) -> None:
    rows, _ = await read(tmp_path, "a.csv", 'prompt\n"open\n' + "x\n" * MAX_LINE_BYTES + "y\n")
    assert rows[0].problem is not None
    assert rows[-1].fields == {"prompt": "y"}


@pytest.mark.parametrize(
    ("content", "words", "hint"),
    [
        ("prmpt,steps\nx,1\n", "line 1: there is no column 'prmpt'", "did you mean 'prompt'?"),
        ("steps\n3\n", "no column named prompt", "names its columns"),
        ("prompt,steps,num_inference_steps\n", "'num_inference_steps' is there twice", ""),
    ],
)
async def test_a_header_that_means_nothing_ends_it(
    tmp_path: Path, content: str, words: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        await read(tmp_path, "a.csv", content)
    assert hint in refused.value.hint


async def test_json_lines(tmp_path: Path) -> None:
    content = '{"prompt": "x", "steps": 3}\n"plain"\n\n{"prompt"\n{"prmpt": 1}\n[1]\n' + "[" * 9_999
    rows, _ = await read(tmp_path, "a.jsonl", content)
    assert told(rows)[:2] == [(1, {"prompt": "x", "steps": 3}), (2, {"prompt": "plain"})]
    problems = [row.problem for row in rows[2:]]
    assert [row.number for row in rows[2:]] == [4, 5, 6, 7]
    assert [str(problem)[:20] for problem in problems] == [
        "this is no JSON: Exp",
        "there is no column '",
        "this is no object wi",
        "this is no JSON: max",
    ]


async def test_yaml(tmp_path: Path) -> None:
    content = """
- a cat
- prompt: no
  steps: 10
  guidance: ~
  loras: [neon:0.5, ink]
- [[[[[[[[1]]]]]]]]
- prompt: &x y
- *x
- {prompt: "last", nosuch: 1}
---
prompt: of a second document
"""
    rows, _ = await read(tmp_path, "a.yaml", content)
    assert told(rows) == [
        (2, {"prompt": "a cat"}),
        (3, {"prompt": "no", "steps": "10", "guidance": None, "loras": ["neon:0.5", "ink"]}),
        (7, "lists stand in lists too deep"),
        (8, "anchors and aliases are not taken"),
        (9, "anchors and aliases are not taken"),
        (10, "there is no column 'nosuch'"),
        (12, {"prompt": "of a second document"}),
    ]
    again, _ = await read(tmp_path, "b.yaml", "\n".join(row.raw for row in rows[:2]))
    assert [row.fields for row in again] == [row.fields for row in rows[:2]]


async def test_yaml_is_read_as_far_as_it_is_yaml(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 3 is no YAML"):
        await read(tmp_path, "a.yaml", "- a cat\n- b\n- : : [\n")


@pytest.mark.parametrize("name", ["text", "csv", "jsonl", "yaml"])
async def test_every_format_comes_from_a_pipe_too(name: str) -> None:
    content = {
        "text": "a\nb\n", "csv": "prompt\na\nb\n", "jsonl": '"a"\n"b"\n', "yaml": "- a\n- b\n",
    }[name]  # fmt: skip
    reading, writing = os.pipe()
    os.write(writing, content.encode())
    os.close(writing)
    rows = [row async for row in Reader(name).rows(reading)]
    os.close(reading)
    assert [row.fields["prompt"] for row in rows] == ["a", "b"]


def test_formats_by_their_endings() -> None:
    names = {"a.csv": "csv", "a.TSV": "csv", "a.ndjson": "jsonl", "a.yml": "yaml", "a": "text"}
    assert {name: format_of(name, None) for name in names} == names
    assert format_of("-", None) == "text"
    assert format_of("a.txt", "csv") == "csv"


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "nosuch", "cannot be read"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=words), opened(str(path)):
            pass
