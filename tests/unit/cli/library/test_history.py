"""``sdq history``: what one asked for."""

import json
from typing import Any

from sdq.protocol.job_messages import JobInfo, Jobs, ListJobs
from sdq.protocol.states import JobState
from sdq.protocol.vocabulary import Priority


def job(shop: Any, number: int, state: JobState, **more: Any) -> JobInfo:
    ages = {"created_seconds_ago": 90.0 * number, "changed_seconds_ago": 1.0}
    return JobInfo(
        *(f"job{number}", shop.keys[number], shop.specs[number], state, True, Priority.NORMAL),
        **ages, attempt=1, **more,
    )  # fmt: skip


def test_what_came_of_it(shop: Any, ask: Any) -> None:
    done = job(shop, 0, JobState.SUCCEEDED, draw_seconds=1.0)
    failed = job(shop, 3, JobState.FAILED, error_message="out of \x1b[2J memory")
    shop.jobs = Jobs(0, (done, failed), more=5)
    code, out, err = ask("history", "--limit", "2")
    assert code == 0
    _, first, second = out.splitlines()
    assert shop.keys[0][:12] in first
    assert "succeeded" in first
    assert shop.keys[3][:12] not in second
    assert "out of \\x1b[2J memory" in second
    assert "and 5 more" in err
    asked = shop.heard[-1]
    assert asked == ListJobs(asked.request_id, mine=True, ended=True, limit=2)
    records = [json.loads(line) for line in ask("history", "--json")[1].splitlines()]
    assert [record["state"] for record in records] == ["succeeded", "failed"]


def test_nothing_yet(shop: Any, ask: Any) -> None:
    assert ask("history") == (0, "", "")
