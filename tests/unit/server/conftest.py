"""Fixtures of the server's storage: real SQLite files and real pictures' files."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sdq.server.database import Database
from sdq.spec import ImageSpec
from sdq.testing.shelf import Shelf


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(tmp_path / "data" / "sdq.sqlite3")
    yield database
    await database.close()


@pytest.fixture
def spec() -> ImageSpec:
    return ImageSpec("a red circle", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)
