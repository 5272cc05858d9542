"""What Prometheus reads: the format, the numbers, and who is turned away."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sdq.errors import StackError, UsageError
from sdq.protocol.messages import Generate
from sdq.server.metrics import CONTENT_TYPE, Metrics
from sdq.server.metrics_page import MAX_REQUEST_BYTES, MetricsPage, address_of
from sdq.spec import SpecDraft
from sdq.testing.rig import ListeningPeer, Rig, open_rig

SAMPLE = re.compile(r'([a-z_]+)(\{(?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+\})? (\S+)')


@pytest.fixture
async def rig(tmp_path: Path):
    async with open_rig(tmp_path) as rig:
        rig.bring_worker()
        yield rig


def samples(page: str) -> dict[str, float]:
    """As a reader of the format would: a line is a comment or a sample, a name is declared."""
    found, declared = {}, set()
    for line in page.removesuffix("\n").split("\n"):
        if line.startswith("# TYPE "):
            declared.add(line.split()[2])
        if line.startswith("#"):
            continue
        match = SAMPLE.fullmatch(line)
        assert match is not None, line
        assert match[1] in declared or re.sub(r"_(bucket|sum|count)$", "", match[1]) in declared
        found[match[1] + (match[2] or "")] = float(match[3])
    return found


async def test_all_of_them(rig: Rig) -> None:
    draft = SpecDraft("a cat")
    await rig.generate(ListeningPeer(), Generate(1, draft, count=2))
    await rig.draw_all()
    assert rig.generation.answer_from_memory(Generate(2, draft), ListeningPeer())
    await rig.generate(ListeningPeer(), Generate(3, draft, count=3))
    rig.tallies.job_failed('odd" model\n', "model", "x")
    rig.tallies.picture_drawn('odd" model\n', "w", 1.0)
    found = samples(await Metrics(rig.tallies, rig.table, rig.library, rig.roster).page())
    assert found['sdq_jobs{state="succeeded"}'] == 2
    assert found['sdq_jobs{state="queued"}'] == found["sdq_queue_length"] == 1
    assert found['sdq_library_requests_total{result="hit"}'] == 3
    assert found['sdq_library_requests_total{result="miss"}'] == 3
    assert found['sdq_pictures_drawn_total{model="shapes"}'] == 2
    assert found['sdq_pictures_drawn_total{model="odd\\" model\\n"}'] == 1
    assert found['sdq_jobs_failed_total{code="model"}'] == 1
    assert found['sdq_workers{state="ready"}'] == 1
    assert found["sdq_library_pictures"] == 2
    assert found["sdq_library_bytes"] == (await rig.library.stats()).bytes > 0
    assert found["sdq_hit_seconds_count"] == found['sdq_hit_seconds_bucket{le="+Inf"}'] == 1


Ask = Callable[[bytes], Awaitable[bytes]]


async def asked(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def two_lines() -> str:
    return "a 1\nb 2\n"


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1", b"200 OK", b"a 1\nb 2\n"),
        (b"GET /metrics?x=1 HTTP/1.0", b"200 OK", b"a 1\nb 2\n"),
        (b"HEAD /metrics HTTP/1.1", b"200 OK", b""),
        (b"GET / HTTP/1.1", b"404 Not Found", b"there is /metrics here, and no more\n"),
        (b"POST /metrics HTTP/1.1", b"405 Method Not Allowed", b"only GET is answered here\n"),
    ],
)
async def test_over_http(request_line: bytes, status: bytes, body: bytes) -> None:
    page = MetricsPage(two_lines)
    await page.start("0")
    try:
        answer = await asked(page.port, request_line + b"\r\nHost: x\r\n\r\n")
    finally:
        await page.close()
    head, _, got = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert got == body
    if status == b"200 OK":
        assert CONTENT_TYPE.encode() in head


async def test_who_wants_too_much_is_cut_off_and_others_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    page = MetricsPage(two_lines)
    await page.start("127.0.0.1:0")
    try:
        assert await asked(page.port, b"GET /" + b"x" * MAX_REQUEST_BYTES * 2) == b""
        assert b"200 OK" in await asked(page.port, b"GET /metrics HTTP/1.1\r\n\r\n")
    finally:
        await page.close()
        await page.close()
    assert not caplog.records  # no traceback in the server's log


async def test_a_database_that_does_not_say() -> None:
    async def broken() -> str:
        raise StackError("the disk is gone")

    page = MetricsPage(broken)
    await page.start("0")
    try:
        answer = await asked(page.port, b"GET /metrics HTTP/1.1\r\n\r\n")
    finally:
        await page.close()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.endswith(b"the disk is gone\n")


async def test_a_port_that_is_taken(free_port: int) -> None:
    first, second = MetricsPage(two_lines), MetricsPage(two_lines)
    await first.start(str(free_port))
    try:
        with pytest.raises(StackError, match="for metrics"):
            await second.start(str(free_port))
    finally:
        await first.close()
        await second.close()


def test_addresses() -> None:
    assert address_of("9434") == ("127.0.0.1", 9434)
    assert address_of("0.0.0.0:9434") == ("0.0.0.0", 9434)
    assert address_of("[::1]:9434") == ("::1", 9434)
    with pytest.raises(UsageError):
        address_of("a b")
