"""What a test watches of a server: what people still wait for, and each picture that is written."""

from collections import Counter
from dataclasses import dataclass

from sdq.protocol.messages import Accepted, Failure, Picture
from sdq.server.database import Database
from sdq.server.queue.subscriptions import Request
from sdq.testing.rig import ListeningPeer

_LOG = (
    "CREATE TEMP TABLE stored (key TEXT)",
    "CREATE TEMP TRIGGER first AFTER INSERT ON main.pictures"
    " BEGIN INSERT INTO stored VALUES (new.key); END",
    "CREATE TEMP TRIGGER again AFTER UPDATE OF created_at ON main.pictures"
    " BEGIN INSERT INTO stored VALUES (new.key); END",
)


@dataclass
class Ask:
    """A request of somebody who is still there. ``keep``: not with ``--cache off``."""

    request: Request
    peer: ListeningPeer
    keep: bool = True

    @property
    def identity(self) -> str:
        return self.peer.identity

    def job_ids(self) -> dict[int, str]:
        """By index: the jobs that it was promised; a hit has none."""
        planned = [one for told in self.peer.all(Accepted) for one in told.pictures]
        return {one.index: one.job_id for one in planned if one.job_id}

    def pending(self) -> list[str]:
        """The jobs that it still waits for, once for each picture."""
        ended = {told.index for told in self.peer.all(Picture)}
        ended |= {told.index for told in self.peer.all(Failure)}
        return [job_id for index, job_id in self.job_ids().items() if index not in ended]


class StoredPictures:
    """Counts how often a picture's row was committed, over restarts of the server."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()  # by key

    async def watch(self, database: Database) -> None:
        """After each opening of the database."""
        for statement in _LOG:
            await database.fetch_all(statement)

    async def count(self, database: Database) -> Counter[str]:
        """Before each closing, too. By key."""
        rows = await database.fetch_all("DELETE FROM stored RETURNING key")
        self.times.update(str(row["key"]) for row in rows)
        return self.times
