"""What a client can refuse before it sends: cheaper, and with a clearer message."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

import msgspec

from sdq.errors import InvalidSpec, UsageError
from sdq.protocol.constants import MAX_JOBS_AT_ONCE
from sdq.protocol.messages import Limits
from sdq.protocol.model import JobId, WorkerId
from sdq.spec import SIZE_MULTIPLE, SpecDraft

_CALLED = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "negative_prompt": "the negative prompt",
    "prompt": "the prompt",
    "CachePolicy": "way to use the library",
    "Priority": "priority",
}

WordT = TypeVar("WordT", bound=StrEnum)


def check_draft(draft: SpecDraft, limits: Limits) -> None:
    """Raises `InvalidSpec` for what no server with these limits would take."""
    if not draft.prompt.strip():
        raise InvalidSpec("the prompt is empty", hint="say what the picture should show")
    for name in ("prompt", "negative_prompt"):
        _check_text(_CALLED[name], getattr(draft, name), limits.max_prompt_characters)
    try:
        msgspec.convert(msgspec.to_builtins(draft), SpecDraft)
    except msgspec.ValidationError as error:
        raise InvalidSpec(_in_words(str(error)), hint="`sdq generate --help`") from error
    for name in ("width", "height"):
        _check_side(name, getattr(draft, name))


def check_count(count: int, first_index: int, limits: Limits) -> None:
    """Raises `UsageError` for a number of pictures that the server would refuse."""
    if not 1 <= count <= limits.max_count:
        raise UsageError(
            f"{count} pictures in one request: this server takes 1 to {limits.max_count}",
            hint="ask in several requests",
        )
    if not 0 <= first_index < 2**31:
        raise UsageError(f"first_index is {first_index}: it must be 0 or more")


def choice_of(kind: type[WordT], word: str) -> WordT:
    """The `CachePolicy` or `Priority` of that name. Raises `UsageError`."""
    try:
        return kind(word)
    except ValueError as error:
        known = ", ".join(kind)
        raise UsageError(
            f"{word!r} is no {_CALLED[kind.__name__]}", hint=f"choose one of {known}"
        ) from error


def check_job_ids(job_ids: Sequence[str]) -> None:
    """Raises `UsageError` for what cannot be the ids of jobs, or for too many."""
    if not 1 <= len(job_ids) <= MAX_JOBS_AT_ONCE:
        raise UsageError(f"{len(job_ids)} jobs in one request: it must be 1 to {MAX_JOBS_AT_ONCE}")
    for job_id in job_ids:
        try:
            msgspec.convert(job_id, JobId)
        except msgspec.ValidationError as error:
            raise UsageError(f"{job_id!r} is no job id", hint="`sdq jobs` shows them") from error


def check_worker_id(worker_id: str) -> None:
    """Raises `UsageError` for what cannot be the name of a worker."""
    try:
        msgspec.convert(worker_id, WorkerId)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{worker_id!r} is no name of a worker", hint="`sdq workers` shows them"
        ) from error


def _check_text(name: str, text: str, max_characters: int) -> None:
    if len(text) > max_characters:
        raise InvalidSpec(
            f"{name} has {len(text)} characters: this server takes {max_characters}",
            hint="models read only the first few dozen words anyway",
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidSpec(f"{name} is not valid UTF-8") from error


def _check_side(name: str, pixels: int | None) -> None:
    if pixels is not None and pixels % SIZE_MULTIPLE:
        below = max(pixels // SIZE_MULTIPLE, 1) * SIZE_MULTIPLE
        raise InvalidSpec(
            f"{name} {pixels} is not a multiple of {SIZE_MULTIPLE}",
            hint=f"try {below} or {below + SIZE_MULTIPLE}",
        )


def _in_words(validation: str) -> str:
    """msgspec's ``Expected `int` >= 8 - at `$.width``` as ``width: expected `int` >= 8``."""
    problem, _, place = validation.partition(" - at `$.")
    name = place.rstrip("`")
    return f"{_CALLED.get(name, name)}: {problem[:1].lower()}{problem[1:]}" if name else problem
