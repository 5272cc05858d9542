"""The client for code without asyncio, against a scripted server in a thread of its own."""

import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sdq import Client
from sdq.client import BlockingClient, Picture, Progress, connect_blocking
from sdq.client.loop_thread import LoopThread
from sdq.errors import ConnectionFailed, GenerationFailed, InvalidSpec, UsageError
from sdq.protocol.messages import Cancel, Generate
from sdq.testing.transport import Handler, ScriptedServer, draws, hits, refuses, stays_silent

Serving = Callable[[Handler], ScriptedServer]


@pytest.fixture
def elsewhere() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def serving(elsewhere: LoopThread) -> Iterator[Serving]:
    """Starts a scripted server in another thread."""
    servers: list[ScriptedServer] = []

    def start(handler: Handler) -> ScriptedServer:
        server = ScriptedServer(handler)
        elsewhere.call(server.start)
        servers.append(server)
        return server

    yield start
    for server in servers:
        elsewhere.call(server.stop)


@pytest.fixture
def heard(elsewhere: LoopThread) -> Callable[[ScriptedServer, type, int], None]:
    """Waits until a server has heard so many messages of a type."""

    def wait(server: ScriptedServer, kind: type, count: int) -> None:
        def enough() -> bool:
            return len(server.heard_of(kind)) >= count

        elsewhere.call(lambda: server.heard_enough(enough))

    return wait


def test_it_says_all_that_the_other_client_says() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(kind, callable) if name[0] != "_"}

    assert methods(Client) - methods(BlockingClient) == {"connect"}, "add a line to blocking.py"
    assert (BlockingClient.generate.__doc__ or "").startswith("One picture of a prompt")


def test_the_same_answers_without_asyncio(serving: Serving) -> None:
    server = serving(draws(steps=2, step_seconds=0.001))
    with connect_blocking(server.address) as client:
        picture = client.generate("a red circle", seed=3, size=(64, 32))
        assert (picture.spec.seed, picture.image.size) == (3, (64, 32))
        assert [one.index for one in client.pictures("a star", count=3)] == [0, 1, 2]
        events = list(client.watch("a square"))
        assert any(isinstance(event, Progress) for event in events)
        ends = sorted(client.batch((str(n) for n in range(20)), jobs=4), key=lambda d: d.index)
        assert [done.item for done in ends] == [str(n) for n in range(20)]
        assert all(isinstance(done.picture, Picture) for done in ends)
        with pytest.raises(InvalidSpec, match="'sede'"):
            client.generate({"prompt": "x", "sede": 1})
        with pytest.raises(TypeError, match="prompt"):
            client.generate()
    assert server.connections == 1


async def test_it_works_inside_a_running_event_loop(serving: Serving) -> None:
    with connect_blocking(serving(hits()).address) as client:
        assert client.generate("a cell of a notebook").origin == "hit"


def test_errors_keep_their_class(serving: Serving, free_port: int) -> None:
    server = serving(refuses("generation_failed", "no such luck", "try again"))
    before = threading.active_count()
    with (
        connect_blocking(server.address) as client,
        pytest.raises(GenerationFailed, match="luck"),
    ):
        client.generate("x")
    with pytest.raises(ConnectionFailed, match="nothing listens there"):
        connect_blocking(f"127.0.0.1:{free_port}")
    assert threading.active_count() == before


def test_several_threads_share_one(serving: Serving) -> None:
    server = serving(draws(steps=2, step_seconds=0.001))
    with connect_blocking(server.address) as client, ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(client.generate, [f"picture {n}" for n in range(40)]))
    assert [picture.spec.prompt for picture in pictures] == [f"picture {n}" for n in range(40)]
    assert server.connections == 1


@pytest.mark.parametrize("way", ["break", "close", "with", "client"])
def test_leaving_early_cancels(
    way: str, serving: Serving, heard: Callable[[ScriptedServer, type, int], None]
) -> None:
    server = serving(draws(steps=10_000, step_seconds=0.001))
    with connect_blocking(server.address) as client:
        if way == "break":
            for _ in client.watch("x"):
                break
        elif way == "with":
            with client.watch("x") as events:
                next(events)
        else:
            events = client.watch("x")
            next(events)
            (events if way == "close" else client).close()
        heard(server, Cancel, 1)


def test_closing_ends_who_waits_and_joins_the_thread(
    serving: Serving, heard: Callable[[ScriptedServer, type, int], None]
) -> None:
    server = serving(stays_silent())
    before = set(threading.enumerate())
    client = connect_blocking(server.address)
    (thread,) = set(threading.enumerate()) - before
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.generate, "x")
        heard(server, Generate, 1)
        client.close()
        with pytest.raises(ConnectionFailed, match="was closed"):
            waiting.result(10)
    assert not thread.is_alive()
    heard(server, Cancel, 1)
    client.close()
    for ask in (client.status, lambda: client.watch("x"), lambda: client.generate("x")):
        with pytest.raises(ConnectionFailed, match="was closed"):
            ask()


def test_another_thread_may_close_a_stream_that_is_read(
    serving: Serving, heard: Callable[[ScriptedServer, type, int], None]
) -> None:
    server = serving(stays_silent())
    refused: list[UsageError] = []
    with connect_blocking(server.address) as client, ThreadPoolExecutor(1) as pool:

        def told(_: object) -> None:  # in the client's own thread
            try:
                client.status()
            except UsageError as error:
                refused.append(error)

        events = client.watch("x", when_left=told)
        reading = pool.submit(list, events)
        heard(server, Generate, 1)
        events.close()
        assert len(reading.result(10)) <= 1  # it was accepted, and ends without an error
    assert len(server.heard_of(Cancel)) == 1
    assert "its own thread" in str(refused[0])


def test_the_items_of_a_batch_are_taken_by_whoever_reads_it(serving: Serving) -> None:
    takers = []

    def prompts() -> Iterator[str]:
        for number in range(3):
            takers.append(threading.get_ident())
            yield f"like {client.generate(f'picture {number}').key}"  # asks the same client
        raise ValueError("line 4 is torn")

    with connect_blocking(serving(hits()).address) as client:
        with pytest.raises(ValueError, match="torn"):
            list(client.batch(prompts()))
        assert set(takers) == {threading.get_ident()}
        assert list(client.batch([])) == []


SCRIPT = """
import signal, sys
from sdq.client import connect_blocking
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have it ignored
client = connect_blocking(sys.argv[1])
print("ready", flush=True)
{then}
"""
THEN = {
    "generate": "client.generate('x')",
    "watch": "for event in client.watch('x'): pass",
    "batch": "for done in client.batch(['x', 'y']): pass",
    "between": "for event in client.watch('x'): input()",
    "end": "events = client.watch('x'); next(events)",
}


@pytest.mark.parametrize("what", list(THEN))
def test_interrupts_and_the_end_of_the_process_cancel_on_the_server(
    what: str, serving: Serving, heard: Callable[[ScriptedServer, type, int], None]
) -> None:
    server = serving(draws(steps=10_000, step_seconds=0.005))
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", SCRIPT.format(then=THEN[what]), server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        heard(server, Generate, 2 if what == "batch" else 1)
        if what != "end":
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    heard(server, Cancel, 2 if what == "batch" else 1)
    if what == "end":
        assert (process.returncode, said) == (0, "")
    else:
        assert said.rstrip().endswith("KeyboardInterrupt")
        assert "Warning" not in said
        assert "never" not in said
