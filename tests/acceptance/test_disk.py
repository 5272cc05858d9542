"""`sdq server` on a disk that fails: damaged, full, restored. Real files, a real server."""

import asyncio
import hashlib
import json
import signal
import tarfile
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from sdq.metadata import Provenance, png_bytes
from sdq.server.catalog import Catalog
from sdq.server.database import DATABASE_NAME, Database
from sdq.server.library.files import LIBRARY_NAME
from sdq.server.library.library import Library
from sdq.server.queue.job import NewJob
from sdq.server.queue.jobs import JobTable
from sdq.spec import ImageSpec, SpecDraft, derived_seed, key_of

PICTURES = 60
JOBS = 200


def spec_of(prompt: str) -> ImageSpec:
    """What the server makes of a prompt alone."""
    spec = Catalog.load().resolve(SpecDraft(prompt=prompt))
    return msgspec.structs.replace(spec, seed=derived_seed(spec, 0))


def drawn(spec: ImageSpec, fingerprint: str) -> bytes:
    key = key_of(spec, fingerprint)
    provenance = Provenance(spec, key, fingerprint, "f" * 10, "cpu", {"sdq": "test"})
    return png_bytes(Image.new("RGB", (spec.width, spec.height)), provenance)


async def _stock(root: Path) -> None:
    catalog = Catalog.load()
    fingerprint = catalog.manifest(None).fingerprint
    database = await Database.open(root / DATABASE_NAME)
    library = await Library.open(
        database, root / LIBRARY_NAME, retention_days=30, max_bytes=10**9, memory_bytes=0
    )
    for number in range(PICTURES):
        spec = spec_of(f"picture {number}")
        await library.put(key_of(spec, fingerprint), spec, drawn(spec, fingerprint), 0.5)
    specs = [spec_of(f"job {number}") for number in range(JOBS)]
    jobs = [
        NewJob(key_of(spec, fingerprint), spec, fingerprint, True, "10.0.0.9") for spec in specs
    ]
    await JobTable(database).add(jobs)
    await library.close()
    await database.close()


@pytest.fixture
def data(sdq) -> Path:
    """The data directory of ``sdq``, with pictures and queued jobs in it."""
    root: Path = sdq.home / "server"
    root.mkdir(parents=True)
    asyncio.run(_stock(root))
    return root


def hit(sdq, number: int) -> bool:
    """Whether the server answers picture ``number`` from its library, with the right bytes."""
    name = f"{hashlib.sha256(str(number).encode()).hexdigest()[:8]}.png"
    done = sdq("generate", f"picture {number}", "--cache", "only", "-o", name, "--force")
    if done.returncode == 5:
        return False
    assert done.returncode == 0, done.stderr
    key = key_of(spec_of(f"picture {number}"), Catalog.load().manifest(None).fingerprint)
    assert key.encode() in (sdq.folder / name).read_bytes()
    return True


def path_of(data: Path, number: int) -> Path:
    key = key_of(spec_of(f"picture {number}"), Catalog.load().manifest(None).fingerprint)
    return data / LIBRARY_NAME / key[:2] / f"{key}.png"


def damage(database: Path, share: float) -> None:
    """Overwrites the pages from this share of the file on."""
    pages = database.stat().st_size // 4_096
    with database.open("r+b") as file:
        file.seek(max(1, int(pages * share)) * 4_096)
        file.write(b"\x5a" * (pages - int(pages * share)) * 4_096)


def test_damaged_pictures_are_drawn_again_and_the_others_answered(sdq, data: Path):
    running = sdq.serve()
    path_of(data, 0).write_bytes(b"damaged")
    path_of(data, 1).unlink()
    path_of(data, 2).unlink()
    path_of(data, 2).mkdir()
    assert [hit(sdq, number) for number in range(4)] == [False, False, False, True]
    checked = sdq("server", "check")
    assert checked.returncode == 1
    assert "row: " in checked.stdout
    assert "check --repair" in checked.stderr
    refused = sdq("server", "check", "--repair")
    assert refused.returncode == 2
    assert "uses the data directory" in refused.stderr
    assert running.end() == 0, running.said
    assert sdq("server", "check", "--repair").returncode == 0
    again = sdq("server", "check", "--json")
    assert (again.returncode, again.stdout) == (0, "")
    assert "all is well" in again.stderr


def test_a_database_damaged_while_it_serves_ends_nothing(sdq, data: Path):
    running = sdq.serve()
    assert hit(sdq, 0)
    damage(data / DATABASE_NAME, 0.7)
    answers = [
        sdq(*command)
        for command in (
            ("generate", "picture 0", "--cache", "only", "-o", "a.png", "--force"),
            ("library", "list"),
            ("status",),
            ("submit", "something new", "-n", "20"),
        )
    ]
    assert answers[0].returncode == 0  # it is in memory
    assert any(answer.returncode != 0 for answer in answers)
    for answer in answers:
        assert "Traceback" not in answer.stderr
        assert answer.returncode == 0 or "check --repair" in answer.stderr, answer.stderr
    assert running.process.poll() is None, running.said
    assert "Traceback" not in running.said
    running.end()

    mended = sdq("server", "check", "--repair")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert "made anew with" in mended.stdout
    assert list(data.glob(f"{DATABASE_NAME}.damaged-*"))
    sdq.serve()
    assert all(hit(sdq, number) for number in range(0, PICTURES, 13))
    listed = sdq("library", "list", "--json", "--limit", "1000")
    assert len(listed.stdout.splitlines()) == PICTURES
    counted = json.loads(sdq("status", "--json").stdout)
    assert 0 < counted["queued"] <= JOBS


def test_a_database_that_cannot_be_opened_is_said_with_what_to_do(sdq, data: Path):
    (data / DATABASE_NAME).write_bytes(b"nonsense" * 1_000)
    refused = sdq("server", "--port", "0")
    assert refused.returncode == 2
    assert "sdq server check --repair" in refused.stderr
    assert sdq("server", "check", "--repair").returncode == 0
    sdq.serve()
    assert hit(sdq, 5)


def test_a_lost_log_or_database_costs_no_picture(sdq, data: Path):
    running = sdq.serve()
    running.process.send_signal(signal.SIGKILL)
    running.process.wait(10)
    for file in data.glob(f"{DATABASE_NAME}*"):
        file.unlink()
    said = sdq.serve()
    assert "check --repair" in said.said
    assert not hit(sdq, 7)
    assert said.end() == 0
    assert sdq("server", "check", "--repair").returncode == 0
    sdq.serve()
    assert hit(sdq, 7)


def test_a_backup_of_a_running_server_restored_answers_a_hit(sdq, data: Path, tmp_path: Path):
    running = sdq.serve()
    made = sdq("server", "backup", "sdq.tar.gz")
    assert (made.returncode, made.stdout) == (0, "sdq.tar.gz\n"), made.stderr
    assert f"{PICTURES} pictures" in made.stderr
    again = sdq("server", "backup", "sdq.tar.gz")
    assert again.returncode == 2
    assert "--force" in again.stderr
    running.end()

    restored = tmp_path / "restored"
    restored.mkdir()
    with tarfile.open(sdq.folder / "sdq.tar.gz") as archive:
        archive.extractall(restored, filter="data")
    assert sdq("server", "check", "--data-dir", str(restored)).returncode == 0
    fresh = sdq.start("server", "--port", "0", "--data-dir", str(restored))
    fresh.until((restored / "address").exists)
    sdq.env["SDQ_SERVER"] = (restored / "address").read_text().strip()
    assert all(hit(sdq, number) for number in (0, 31, 59))
    assert json.loads(sdq("status", "--json").stdout)["queued"] == JOBS


def test_on_a_full_disk_hits_are_answered_and_the_rest_is_refused_in_words(sdq, data: Path):
    """The kernel refuses every write beyond a size, as a full disk does."""
    room = (data / DATABASE_NAME).stat().st_size + 100_000
    address = data / "address"
    running = sdq.start("server", "--port", "0", limit_bytes=room)
    running.until(address.exists)
    sdq.env["SDQ_SERVER"] = address.read_text().strip()
    refused = [sdq("submit", f"new {number}", "-n", "100") for number in range(12)]
    failed = [done for done in refused if done.returncode != 0]
    assert failed
    for done in failed:
        assert done.returncode == 1, done.stderr
        assert "cannot be used" in done.stderr or "is full" in done.stderr
        assert "hint:" in done.stderr
    assert hit(sdq, 3)
    assert hit(sdq, 44)
    assert running.process.poll() is None, running.said
    assert "Traceback" not in running.said
    accepted = 100 * (len(refused) - len(failed))
    running.end()
    assert sdq("server", "check").returncode == 0
    sdq.serve()
    assert json.loads(sdq("status", "--json").stdout)["queued"] == JOBS + accepted
