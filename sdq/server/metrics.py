"""The server's numbers for Prometheus, in its text format (exposition format 0.0.4).

Labels are bounded: states and results are a few words, models and error codes at most
`MAX_LABELS`; nothing has a label of people, prompts or jobs.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from sdq import __version__
from sdq.protocol.states import JobState
from sdq.server.library.library import Library
from sdq.server.queue.jobs import JobTable
from sdq.server.queue.roster import Roster
from sdq.server.tallies import HIT_SECONDS, MAX_LABELS, OTHER, Tallies

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_WORKER_STATES = ("loading", "ready", "drawing", "stopping", "broken")


class Metrics:
    """One for the server."""

    def __init__(self, tallies: Tallies, table: JobTable, library: Library, roster: Roster) -> None:
        self._tallies = tallies
        self._table = table
        self._library = library
        self._roster = roster

    async def page(self) -> str:
        """All of them at this moment. Raises `StackError` when the database does not say."""
        tallies = self._tallies
        jobs = await self._table.counts()
        stats = await self._library.stats()
        waiting = jobs.get(JobState.QUEUED, 0) + jobs.get(JobState.DISPATCHED, 0)
        workers = Counter(_known(beat.state) for beat in self._roster.beats())
        lines = [
            *_metric("sdq_info", "gauge", "The server.", [({"version": __version__}, 1)]),
            *_metric(
                "sdq_uptime_seconds", "gauge", "Since the server started.",
                [({}, tallies.clock() - tallies.started_at)],
            ),
            *_metric(
                "sdq_jobs", "gauge", "Jobs in the table, by state.",
                [({"state": state.value}, jobs.get(state, 0)) for state in JobState],
            ),
            *_metric("sdq_queue_length", "gauge", "Jobs that wait.", [({}, waiting)]),
            *_metric(
                "sdq_library_requests_total", "counter",
                "Pictures asked for that the library had, or not.",
                [({"result": "hit"}, tallies.hits), ({"result": "miss"}, tallies.misses)],
            ),
            *_metric(
                "sdq_pictures_drawn_total", "counter", "Pictures that workers drew.",
                [({"model": model}, count) for model, count in sorted(tallies.drawn.items())],
            ),
            *_metric(
                "sdq_jobs_failed_total", "counter", "Jobs that came to nothing.",
                [({"code": code}, count) for code, count in sorted(tallies.failed.items())],
            ),
            *_metric(
                "sdq_workers", "gauge", "Workers online, by what they do.",
                [({"state": state}, workers[state]) for state in (*_WORKER_STATES, OTHER)],
            ),
            *_metric("sdq_library_pictures", "gauge", "In the library.", [({}, stats.pictures)]),
            *_metric("sdq_library_bytes", "gauge", "Size of its files.", [({}, stats.bytes)]),
            *_metric(
                "sdq_library_max_bytes", "gauge", "The most it may be.",
                [({}, self._library.max_bytes)],
            ),
            *_histogram(tallies),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def _known(state: str) -> str:
    return state if state in _WORKER_STATES else OTHER


def _metric(
    name: str, kind: str, words: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> Iterable[str]:
    yield f"# HELP {name} {words}"
    yield f"# TYPE {name} {kind}"
    for labels, value in list(samples)[: MAX_LABELS + 1]:
        yield f"{name}{_in_braces(labels)} {_number(value)}"


def _histogram(tallies: Tallies) -> Iterable[str]:
    name = "sdq_hit_seconds"
    yield f"# HELP {name} How long the server took for requests that the library answered."
    yield f"# TYPE {name} histogram"
    total = 0
    for edge, count in zip((*HIT_SECONDS, float("inf")), tallies.hit_counts, strict=True):
        total += count
        label = "+Inf" if edge == float("inf") else f"{edge:g}"
        yield f'{name}_bucket{{le="{label}"}} {total}'
    yield f"{name}_sum {_number(tallies.hit_seconds_sum)}"
    yield f"{name}_count {total}"


def _in_braces(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(round(value, 9)) if isinstance(value, float) else str(value)
