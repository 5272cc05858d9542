"""Answers from the library: latency for a connected client, and requests per second.

The rate is measured beside a bare asyncio server on uvloop that sends the same bytes by the
same framing and knows nothing else: 8 connections, one request in flight each, the two
servers in turn, in one run.

    python bench/hits.py [--rounds 5] [--requests 4000]
"""

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import struct
import time
from pathlib import Path

import msgspec
import uvloop
from measure import machine, running, spread

from sdq.client import connect
from sdq.protocol.connection import ClientConnection
from sdq.protocol.messages import Generate, Picture
from sdq.server.catalog import Catalog
from sdq.server.database import Database
from sdq.server.library.library import Library
from sdq.spec import ImageSpec, SpecDraft, derived_seed, key_of

CONNECTIONS = 8
SIZES = (30_000, 500_000)


def spec_for(size: int) -> ImageSpec:
    base = Catalog.load().resolve(draft_for(size))
    return msgspec.structs.replace(base, seed=derived_seed(base, 0))


def draft_for(size: int) -> SpecDraft:
    return SpecDraft(f"a picture of {size} bytes")


async def fill(data_dir: Path) -> None:
    """Puts one picture of each size into the library, before the server starts."""
    catalog = Catalog.load()
    database = await Database.open(data_dir / "sdq.sqlite3")
    library = await Library.open(
        database, data_dir / "library", retention_days=30, max_bytes=2**30, memory_bytes=0
    )
    for size in SIZES:
        spec = spec_for(size)
        key = key_of(spec, catalog.manifest(spec.model).fingerprint)
        await library.put(key, spec, bytes(size), 0.5)
    await library.close()
    await database.close()


def bare_server(replies: dict[int, bytes], pipe: object) -> None:
    """Reads frames; the length of a request picks the reply. Nothing else."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">I", await reader.readexactly(4))
                await reader.readexactly(length)
                writer.write(replies[length])
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]
        await server.serve_forever()

    uvloop.run(serve())


async def load(port: int, hello: bytes, request: bytes, requests: int) -> float:
    """Requests per second over all connections."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        if hello:
            writer.write(hello)
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            await reader.readexactly(length)
        for _ in range(requests // CONNECTIONS):
            writer.write(request)
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            await reader.readexactly(length)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return requests / (time.perf_counter() - begin)


def frames(size: int) -> tuple[bytes, bytes]:
    """The hello and the request for one size."""
    connection = ClientConnection()
    hello = connection.hello("bench")
    request = connection.send(Generate(size, draft_for(size)))
    return hello, request


def reply_of(port: int, size: int) -> bytes:
    """The very bytes that sdq answers with."""
    hello, request = frames(size)
    with socket.create_connection(("127.0.0.1", port)) as line:
        stream = line.makefile("rwb")
        stream.write(hello)
        stream.flush()
        stream.read(struct.unpack(">I", stream.read(4))[0])
        stream.write(request)
        stream.flush()
        head = stream.read(4)
        return head + stream.read(struct.unpack(">I", head)[0])


async def latency(address: str, size: int, requests: int) -> list[float]:
    seconds = []
    async with connect(address) as client:
        for _ in range(requests):
            begin = time.perf_counter()
            async for message in client.watch(draft_for(size)):
                assert isinstance(message, Picture)
                assert len(message.image) == size
            seconds.append(time.perf_counter() - begin)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=4_000)
    options = parser.parse_args()
    print(f"machine: {machine()}; {CONNECTIONS} connections, one request in flight each")
    with running("server", prepare=lambda home: asyncio.run(fill(home / "server"))) as stack:
        address, port = stack.address, int(stack.address.rpartition(":")[2])
        replies = {len(frames(size)[1]) - 4: reply_of(port, size) for size in SIZES}
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        bare = multiprocessing.get_context("spawn").Process(
            target=bare_server, args=(replies, theirs), daemon=True
        )
        bare.start()
        bare_port = ours.recv()
        try:
            for size in SIZES:
                seconds = asyncio.run(latency(address, size, 500))
                print(f"{size // 1000} KB, one connected client: {spread(seconds)}")
            for size in SIZES:
                compare(port, bare_port, size, options)
        finally:
            bare.terminate()
            bare.join()


def compare(port: int, bare_port: int, size: int, options: argparse.Namespace) -> None:
    hello, request = frames(size)
    requests = options.requests if size < 100_000 else options.requests // 4
    ratios, rates = [], []
    for _ in range(options.rounds):
        bare = uvloop.run(load(bare_port, b"", request, requests))
        ours = uvloop.run(load(port, hello, request, requests))
        ratios.append(ours / bare)
        rates.append((ours, bare))
    ours, bare = (statistics.median(column) for column in zip(*rates, strict=True))
    print(
        f"{size // 1000} KB: sdq {ours:,.0f}/s, bare {bare:,.0f}/s, "
        f"ratio {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
