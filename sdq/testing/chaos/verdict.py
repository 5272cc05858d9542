"""What came of a run: read from the clients' files, the library, the tables and the logs."""

import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageChops

from sdq import metadata
from sdq.errors import SdqError
from sdq.spec import ImageSpec, key_of
from sdq.testing.chaos.killer import Deed
from sdq.testing.chaos.people import Outcome
from sdq.testing.chaos.plan import Target
from sdq.testing.chaos.recovery import (
    Recovery,
    Wait,
    recoveries_of,
    worst_by_sort,
    worst_hand_over_seconds,
    worst_seconds,
)

Painter = Callable[[ImageSpec], Image.Image | None]
"""What a picture must look like; ``None``: this one is not compared."""

MOST_PIXEL_DIFFERENCE = 3
"""Of 255: a real model rounds otherwise when other pictures are drawn beside it."""

MOST_SHOWN = 20
_DRAWN = re.compile(r"job (\w+) is drawn")


@dataclass
class Verdict:
    """Lists hold a line in words for each case."""

    seed: int
    jobs: int = 0  # that had to be drawn
    deeds: list[Deed] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stored_twice: list[str] = field(default_factory=list)
    drawn_twice: int | None = None  # None: nobody counted
    recoveries: list[Recovery] = field(default_factory=list)
    too_little: list[str] = field(default_factory=list)  # the run itself did not do its part
    remarks: list[str] = field(default_factory=list)  # odd, but no reason to fail

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.wrong or self.stored_twice or self.too_little)

    def first_line(self) -> str:
        kills = Counter(deed.target for deed in self.deeds)
        drawn_twice = "unknown" if self.drawn_twice is None else str(self.drawn_twice)
        return (
            f"jobs {self.jobs}, kills {len(self.deeds)} (worker {kills[Target.WORKER]}, "
            f"server {kills[Target.SERVER]}, redis {kills[Target.REDIS]}), "
            f"lost {len(self.lost)}, drawn twice {drawn_twice}, wrong {len(self.wrong)}, "
            f"worst recovery {worst_seconds(self.recoveries):.1f} s"
        )

    def lines(self) -> list[str]:
        """The first line, then what else is worth knowing."""
        by_sort = worst_by_sort(self.recoveries)
        sorts = [f"{sort[0]} {sort[1]} {seconds:.1f} s" for sort, seconds in by_sort.items()]
        hand_over = worst_hand_over_seconds(self.recoveries)
        lines = [
            self.first_line(),
            f"seed {self.seed}; worst recovery by kill: {', '.join(sorts) or 'none'}; "
            f"until all that a killed worker had in hand was stored: {hand_over:.1f} s",
        ]
        for title, cases in (
            ("lost", self.lost),
            ("wrong", self.wrong),
            ("stored twice", self.stored_twice),
            ("too little", self.too_little),
            ("remark", self.remarks),
        ):
            lines += [f"{title}: {case}" for case in cases[:MOST_SHOWN]]
            if len(cases) > MOST_SHOWN:
                lines.append(f"{title}: and {len(cases) - MOST_SHOWN} more")
        return lines


@dataclass(frozen=True)
class Evidence:
    """What a run leaves behind, once all of it has ended."""

    data_dir: Path  # of the server
    drawn_log: Path  # a line for each picture of a `FakePipeline`, its key first
    worker_logs: Sequence[Path]  # consulted where there is no drawn log
    fingerprint: str  # of the model
    outcomes: Sequence[Outcome]
    wishes: Mapping[int, Mapping[str, str]]  # order number → key → the prompt, for people
    deeds: Sequence[Deed]
    painter: Painter

    @property
    def database(self) -> Path:
        return self.data_dir / "sdq.sqlite3"

    def library_file(self, key: str) -> Path:
        return self.data_dir / "library" / key[:2] / f"{key}.png"


def judge(evidence: Evidence, seed: int) -> Verdict:
    """The verdict over what is there. Raises `OSError` and `sqlite3.Error`."""
    verdict = Verdict(seed, deeds=list(evidence.deeds))
    with closing(sqlite3.connect(evidence.database)) as database:
        database.row_factory = sqlite3.Row
        jobs = list(database.execute("SELECT * FROM jobs ORDER BY sequence"))
        stored = {row["key"] for row in database.execute("SELECT key FROM pictures")}
    verdict.jobs = sum(job["attempt"] > 0 for job in jobs)
    good = _judge_library(evidence, stored, verdict)
    _judge_jobs(evidence, jobs, good, verdict)
    _judge_outcomes(evidence, verdict)
    waits = [
        Wait(job["job_id"], job["created_at"], job["changed_at"])
        for job in jobs
        if job["state"] == "succeeded" and job["attempt"] > 0
    ]
    verdict.recoveries = recoveries_of(evidence.deeds, waits)
    if drawn := _drawn_keys(evidence, jobs):
        verdict.drawn_twice = len(drawn) - len(set(drawn))
    return verdict


def _drawn_keys(evidence: Evidence, jobs: Sequence[sqlite3.Row]) -> list[str]:
    """The key of each drawing that was finished, whatever became of it."""
    if evidence.drawn_log.exists():
        lines = evidence.drawn_log.read_text().splitlines()
        return [line.split()[0] for line in lines if line.strip()]
    keys = {job["job_id"]: job["key"] for job in jobs}
    said = "".join(log.read_text("utf-8", "replace") for log in evidence.worker_logs)
    return [keys[job_id] for job_id in _DRAWN.findall(said) if job_id in keys]


def _judge_library(evidence: Evidence, stored: set[str], verdict: Verdict) -> set[str]:
    """The keys whose picture is in the library, whole and right."""
    good = set()
    for key in sorted(stored):
        file = evidence.library_file(key)
        if (fault := picture_fault(file, key, evidence)) is None:
            good.add(key)
        else:
            verdict.wrong.append(f"in the library, {key[:8]}: {fault}")
    return good


def _judge_jobs(
    evidence: Evidence, jobs: Sequence[sqlite3.Row], good: set[str], verdict: Verdict
) -> None:
    """Every job in the table, and every one that a client was told, whether it is there or not."""
    known = {job["job_id"]: job for job in jobs}
    told = {job_id: key for outcome in evidence.outcomes for job_id, key in outcome.told.items()}
    for job in jobs:
        if job["state"] != "succeeded":
            why = f" ({job['error_code']}: {job['error_message']})" if job["error_code"] else ""
            verdict.lost.append(f"job {job['job_id']} is {job['state']}{why}")
        elif job["key"] not in good:
            verdict.lost.append(f"job {job['job_id']} succeeded without {job['key'][:8]}")
    for job_id, key in told.items():
        if job_id not in known:
            verdict.lost.append(f"job {job_id} ({key[:8]}) was told and is in no table")
        elif known[job_id]["key"] != key:
            verdict.wrong.append(f"job {job_id} was told as {key[:8]}, and is another one")
    stored = Counter(
        job["key"] for job in jobs if job["state"] == "succeeded" and job["attempt"] > 0
    )
    verdict.stored_twice = [
        f"{key[:8]}, {times} times" for key, times in stored.items() if times > 1
    ]


def _judge_outcomes(evidence: Evidence, verdict: Verdict) -> None:
    """Every request's files: all of them for who waited to the end, none wrong for anybody."""
    for outcome in evidence.outcomes:
        wished = evidence.wishes[outcome.number]
        for file in sorted(outcome.folder.glob("*.png")):
            if file.stem not in wished:
                verdict.wrong.append(f"{file.name} was not asked for in {outcome.folder.name}")
            elif (fault := picture_fault(file, file.stem, evidence)) is not None:
                verdict.wrong.append(f"{outcome.folder.name}/{file.name}: {fault}")
        if outcome.was_given_up:
            continue
        missing = [key for key in wished if not (outcome.folder / f"{key}.png").exists()]
        how = "never ended" if outcome.exit_code is None else f"ended with {outcome.exit_code}"
        for key in missing:
            verdict.lost.append(f"request {outcome.log.stem} {how} without {wished[key]!r}")
        if not missing and outcome.exit_code != 0:
            verdict.lost.append(f"request {outcome.log.stem} {how}, with all its pictures")


def picture_fault(file: Path, key: str, evidence: Evidence) -> str | None:
    """What is wrong with a picture file; ``None``: it is the picture of this key."""
    try:
        data = file.read_bytes()
        said = metadata.read(data)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except SdqError as error:
        return error.message
    if said is None:
        return "says nothing of itself"
    if said.fingerprint != evidence.fingerprint:
        return "was drawn by another model"
    if not said.key == key == key_of(said.spec, said.fingerprint):
        return f"says that it is {said.key[:8]}"
    try:
        return pixels_fault(file, evidence.painter(said.spec))
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for broken files
        return f"is damaged: {error}"


def pixels_fault(file: Path, expected: Image.Image | None) -> str | None:
    """What distinguishes the pixels from the expected ones; ``None`` when nothing does."""
    with Image.open(file) as image:
        image.load()
        if expected is None:
            return None
        if image.size != expected.size or image.mode != expected.mode:
            return f"is {image.mode} {image.size}, not {expected.mode} {expected.size}"
        counts = ImageChops.difference(image, expected).histogram()  # 256 for each band
        difference = max(place % 256 for place, count in enumerate(counts) if count)
        if difference > MOST_PIXEL_DIFFERENCE:
            return f"differs by {difference} of 255 from what the model draws"
    return None
