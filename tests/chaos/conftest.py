"""A finished run, made up: two pictures, one job each, one client who got both."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sdq import metadata
from sdq.spec import ImageSpec, key_of
from sdq.testing.chaos.people import Outcome
from sdq.testing.chaos.plan import Order, Way
from sdq.testing.chaos.verdict import Evidence, Verdict, judge
from sdq.testing.pipeline import picture_of

FINGERPRINT = "f" * 64
ORDER = Order(0, 0.0, Way.SDK, ("a cat",), 2, None, False)
TABLES = """
CREATE TABLE jobs (sequence INTEGER PRIMARY KEY, job_id TEXT, key TEXT, state TEXT,
    attempt INTEGER, created_at REAL, changed_at REAL, error_code TEXT, error_message TEXT);
CREATE TABLE pictures (key TEXT PRIMARY KEY);
"""


def png_of(spec: ImageSpec, drawn_for: ImageSpec | None = None, key: str = "") -> bytes:
    """A picture file that says ``spec`` of itself, with the pixels of ``drawn_for``."""
    key = key or key_of(spec, FINGERPRINT)
    said = metadata.Provenance(spec, key, FINGERPRINT, "0" * 10, "fake", {})
    return metadata.png_bytes(picture_of(drawn_for or spec), said)


@dataclass
class MadeUpRun:
    root: Path
    specs: list[ImageSpec]
    outcome: Outcome

    @property
    def keys(self) -> list[str]:
        return [key_of(spec, FINGERPRINT) for spec in self.specs]

    @property
    def library_file(self) -> Path:
        """Of the first picture."""
        return self.root / "server" / "library" / self.keys[0][:2] / f"{self.keys[0]}.png"

    @property
    def client_file(self) -> Path:
        return self.outcome.folder / f"{self.keys[0]}.png"

    def sql(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.root / "server" / "sdq.sqlite3")) as database:
            database.execute(statement, values)
            database.commit()

    def add_job(self, number: int, job_id: str, **changes: Any) -> None:
        row = {"state": "succeeded", "attempt": 1, "created_at": 10.0, "changed_at": 12.0}
        row |= {"error_code": "", "error_message": ""} | changes
        row |= {"job_id": job_id, "key": self.keys[number]}
        names = ", ".join(row)
        places = ", ".join("?" for _ in row)
        self.sql(f"INSERT INTO jobs ({names}) VALUES ({places})", *row.values())

    def judge(self, **changes: Any) -> Verdict:
        evidence = Evidence(
            data_dir=self.root / "server",
            drawn_log=self.root / "drawn.log",
            worker_logs=[self.root / "worker.log"],
            fingerprint=FINGERPRINT,
            outcomes=[self.outcome],
            wishes={0: dict.fromkeys(self.keys, "a cat")},
            deeds=[],
            painter=picture_of,
        )
        return judge(replace(evidence, **changes), 1)


@pytest.fixture
def png() -> Callable[..., bytes]:
    return png_of


@pytest.fixture
def made_up(tmp_path: Path) -> MadeUpRun:
    """A run in which all went well."""
    specs = [ImageSpec("a cat", "", "shapes", 64, 64, 4, 4.0, "ddim", seed) for seed in (1, 2)]
    outcome = Outcome(0, ORDER, tmp_path / "pictures", tmp_path / "000.log", exit_code=0)
    run = MadeUpRun(tmp_path, specs, outcome)
    outcome.folder.mkdir()
    (tmp_path / "server").mkdir()
    with closing(sqlite3.connect(tmp_path / "server" / "sdq.sqlite3")) as database:
        database.executescript(TABLES)
    told = []
    for number, (spec, key) in enumerate(zip(specs, run.keys, strict=True)):
        run.add_job(number, f"job{number}")
        run.sql("INSERT INTO pictures VALUES (?)", key)
        stored = tmp_path / "server" / "library" / key[:2] / f"{key}.png"
        stored.parent.mkdir(parents=True, exist_ok=True)
        for file in (stored, outcome.folder / f"{key}.png"):
            file.write_bytes(png_of(spec))
        told.append(f"told job{number} {key}\n")
    outcome.told_file.write_text("".join(told))
    (tmp_path / "drawn.log").write_text("".join(f"{key} job\n" for key in run.keys))
    return run
