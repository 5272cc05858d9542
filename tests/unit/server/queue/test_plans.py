"""100,000 jobs stay quick: how SQLite finds the rows of each statement, instead of timings."""

import re

import pytest

from sdq.server.database import Database
from sdq.server.queue import jobs, turns, wants

VERBS = ("SELECT", "UPDATE", "DELETE", "INSERT")
STATEMENTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (jobs, turns, wants)
    for name, value in vars(module).items()
    if isinstance(value, str) and name.isupper() and value.lstrip()[:6] in VERBS
    if "WHERE" in value or value.lstrip()[:6] != "UPDATE"
    if name != "_WITH_WANTS"  # only a part of others
}

FROM_ONE_END = {
    "wants._LIST_ALL": "SCAN jobs",
    "jobs._QUEUED_AGAIN": "SCAN jobs USING INDEX jobs_again",
    "jobs._PURGE_OLDEST": "SCAN jobs USING INDEX jobs_final",
}
"""Go through the table or an index from one end, and stop at the limit."""

SORTS_ITS_LIMIT = {"turns._LINE"}
"""Sorts no more rows than it gives."""


async def plan(database: Database, sql: str) -> list[str]:
    sql = sql.replace("{assignments}", "state = 'failed'")
    named = set(re.findall(r":(\w+)", sql))
    values = dict.fromkeys(named, "x") if named else ["[]"] * sql.count("?")
    rows = await database.fetch_all(f"EXPLAIN QUERY PLAN {sql}", values)
    return [row["detail"] for row in rows]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_walks_through_all_jobs_or_wants(database: Database, name: str):
    steps = await plan(database, STATEMENTS[name])
    walks = [step for step in steps if re.match(r"SCAN (jobs|wants|mine)\b", step)]
    if name in FROM_ONE_END:
        assert walks == [FROM_ONE_END[name]]
        assert "LIMIT" in STATEMENTS[name]
    else:
        assert walks == [], steps


@pytest.mark.parametrize("name", STATEMENTS)
async def test_no_statement_sorts_the_queue(database: Database, name: str):
    steps = await plan(database, STATEMENTS[name])
    sorts = [step for step in steps if step == "USE TEMP B-TREE FOR ORDER BY"]
    assert sorts == [] or name in SORTS_ITS_LIMIT, steps


async def test_the_next_turn_is_one_look_into_each_index(database: Database):
    (serve,) = (step for step in await plan(database, turns._SERVE) if "turns_next" in step)
    assert "model_id=?" in serve
    newest = [step for step in await plan(database, turns._SERVE) if "turns_served" in step]
    assert newest == ["SEARCH turns USING COVERING INDEX turns_served (model_id=?)"]
    first = await plan(database, turns._FIRST_IN_LINE)
    assert "SEARCH wants USING INDEX wants_in_line (model_id=? AND identity=?)" in first


def test_there_is_something_to_look_at():
    assert len(STATEMENTS) >= 25
