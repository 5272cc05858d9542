"""A line of TCP that can go dead without a word, as when a firewall forgets it."""

import contextlib
import socket
import threading
from typing import Self

_CHUNK_BYTES = 65_536


class Cable:
    """Listens on ``port`` of 127.0.0.1 and leads to another port. A context manager.

    `cut` leaves all connections open, and carries nothing more on them, for ever; new ones are
    taken and carry nothing until `mend`.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._is_dark = False
        self._cuts = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def cut(self) -> None:
        self._is_dark = True
        self._cuts += 1

    def mend(self) -> None:
        self._is_dark = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._ends.append(near)
            if self._is_dark:
                continue
            far = socket.create_connection(("127.0.0.1", self._target_port))
            self._ends.append(far)
            for pair in ((near, far), (far, near)):
                thread = threading.Thread(target=self._carry, args=(*pair, self._cuts))
                self._threads.append(thread)
                thread.start()

    def _carry(self, source: socket.socket, sink: socket.socket, cuts: int) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if self._cuts == cuts:
                    sink.sendall(data)
            if self._cuts == cuts:
                sink.shutdown(socket.SHUT_WR)
