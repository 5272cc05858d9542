"""What the client refuses before it sends."""

import pytest

from sdq.client.checks import check_count, check_draft, check_job_ids, check_worker_id
from sdq.errors import InvalidSpec, UsageError
from sdq.spec import SpecDraft
from sdq.testing.transport import LIMITS


def test_a_good_draft_passes() -> None:
    check_draft(SpecDraft(prompt="a red circle", width=64, height=128, seed=2**32 - 1), LIMITS)


@pytest.mark.parametrize("prompt", ["", "   ", "\n\t"])
def test_an_empty_prompt(prompt: str) -> None:
    with pytest.raises(InvalidSpec, match="empty"):
        check_draft(SpecDraft(prompt=prompt), LIMITS)


def test_a_long_prompt_names_the_limit_of_the_server() -> None:
    with pytest.raises(InvalidSpec, match=r"2001 characters.*2000"):
        check_draft(SpecDraft(prompt="x" * 2_001), LIMITS)


def test_a_prompt_that_is_no_text() -> None:
    with pytest.raises(InvalidSpec, match="UTF-8"):
        check_draft(SpecDraft(prompt="caf\udce9"), LIMITS)


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        (SpecDraft(prompt="x", width=500), "width 500 is not a multiple of 8"),
        (SpecDraft(prompt="x", height=0), "height: expected"),
        (SpecDraft(prompt="x", width=8192), "width: expected `int` <= 4096"),
        (SpecDraft(prompt="x", num_inference_steps=0), "steps: expected"),
        (SpecDraft(prompt="x", guidance_scale=-1.0), "guidance: expected"),
        (SpecDraft(prompt="x", seed=2**32), "seed: expected"),
    ],
)
def test_a_parameter_out_of_range_is_named(draft: SpecDraft, expected: str) -> None:
    with pytest.raises(InvalidSpec, match=expected):
        check_draft(draft, LIMITS)


def test_a_wrong_size_comes_with_the_nearest_good_ones() -> None:
    with pytest.raises(InvalidSpec) as caught:
        check_draft(SpecDraft(prompt="x", width=500), LIMITS)
    assert caught.value.hint == "try 496 or 504"


@pytest.mark.parametrize("count", [0, 101])
def test_the_number_of_pictures_has_a_limit(count: int) -> None:
    with pytest.raises(UsageError, match="1 to 100"):
        check_count(count, 0, LIMITS)


@pytest.mark.parametrize(
    ("job_ids", "message"),
    [
        ([], "0 jobs"),
        (["a"] * 1_001, "1001 jobs"),
        (["01m8", "NO"], "'NO' is no job id"),
        (["a/b"], "no job id"),
        ([""], "no job id"),
        (["a" * 41], "no job id"),
    ],
)
def test_what_cannot_be_job_ids(job_ids: list[str], message: str) -> None:
    check_job_ids(["01m84jr13ky1zvx7ypn73pqhvz"] * 1_000)
    with pytest.raises(UsageError, match=message):
        check_job_ids(job_ids)


@pytest.mark.parametrize("worker_id", ["", "a b", "a\x1b", "a" * 101, "é"])
def test_what_cannot_be_the_name_of_a_worker(worker_id: str) -> None:
    check_worker_id("gpu-box_2.local")
    with pytest.raises(UsageError, match="no name of a worker"):
        check_worker_id(worker_id)
