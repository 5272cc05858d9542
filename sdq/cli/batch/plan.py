"""What a batch would do: line by line what is there and what is not, and what that costs."""

import os
import sys
from collections import defaultdict
from contextlib import aclosing

import msgspec

from sdq.cli.batch.columns import BadLine
from sdq.cli.batch.lines import Lines
from sdq.cli.batch.planning import PlannedLine, planned
from sdq.cli.batch.targets import Standing, Target, Targets
from sdq.cli.output import Sink, as_duration, as_pictures, cut, plain, print_data, print_json
from sdq.client.client import Client
from sdq.errors import SdqError
from sdq.protocol.messages import Origin
from sdq.protocol.vocabulary import CachePolicy

_WORDS = {
    "up_to_date": "up to date",
    "hit": "in the library",
    "joined": "in flight",
    "made": "new",
    "failed": "cannot",
}
_USUAL_COLUMNS = 100


class _Cost(msgspec.Struct):
    """What is to be drawn with one model."""

    pictures: int = 0
    device_seconds: float | None = 0.0  # None: nobody knows
    workers: int = 0
    note: str = ""


class Plan:
    """One for a file."""

    def __init__(self, client: Client, targets: Targets, sink: Sink, cache: CachePolicy) -> None:
        self._client = client
        self._targets = targets
        self._sink = sink
        self._draws_again = cache in (CachePolicy.REFRESH, CachePolicy.OFF)
        self._only = cache is CachePolicy.ONLY
        self._counts = dict.fromkeys(_WORDS, 0)
        self._costs: dict[str, _Cost] = defaultdict(_Cost)
        self._seen: set[int] = set()  # hashes of keys that are drawn already, for another line
        self._columns = (
            os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None
        )

    async def follow(self, lines: Lines) -> None:
        """Tells each line as the server answers. Raises what reading and asking raise."""
        async with aclosing(planned(self._client, lines)) as all_planned:
            async for line in all_planned:
                if isinstance(line, BadLine):
                    self._refused(line.number, line.error, line.count)
                else:
                    self._line(line)

    def end(self) -> int:
        """Tells the sums; the exit code."""
        device_seconds, seconds = self._sums()
        if self._sink.as_json:
            sums = {"device_seconds": device_seconds, "seconds": seconds}
            print_json({"event": "plan", **self._counts, **sums})
        else:
            self._tell_sums(device_seconds, seconds)
        return 1 if self._counts["failed"] else 0

    # ------------------------------------------------------------ lines

    def _line(self, line: PlannedLine) -> None:
        try:
            targets = list(self._targets.of(line))
        except SdqError as error:
            self._refused(line.line.number, error, line.line.count)
            return
        states = [self._state(target) for target in targets]
        for target, state in zip(targets, states, strict=True):
            self._counts[state] += 1
            if state == "made":
                self._add_cost(line, target)
        problem = next((target.problem for target in targets if target.problem), None)
        if self._sink.as_json:
            pictures = [_record(*both) for both in zip(targets, states, strict=True)]
            told = {"event": "line", "line": line.line.number, "pictures": pictures}
            if problem is not None:
                told["error"] = _error_record(problem)
            print_json(told)
            return
        words = ", ".join(
            f"{states.count(state)} {word}" if len(states) > 1 else word
            for state, word in _WORDS.items()
            if state in states
        )
        said = line.line.draft.prompt if problem is None else problem.message
        self._tell(line.line.number, words, targets[0].picture.key[:8], said)

    def _refused(self, number: int, error: SdqError, pictures: int) -> None:
        self._counts["failed"] += pictures
        if self._sink.as_json:
            print_json({"event": "line", "line": number, "error": _error_record(error)})
        else:
            self._tell(number, _WORDS["failed"], "", error.message)

    def _tell(self, number: int, words: str, key: str, said: str) -> None:
        row = f"{number:>6}  {words:<16}  {key:<8}  {plain(said)}"
        print_data(cut(row, self._columns or _USUAL_COLUMNS).rstrip())

    def _state(self, target: Target) -> str:
        if target.standing is Standing.TAKEN:
            return "failed"
        if target.standing is Standing.UP_TO_DATE:
            return "up_to_date"
        if self._draws_again:
            return "made"
        name = hash(target.picture.key)
        if target.picture.cache is Origin.MADE:
            if self._only:
                return "failed"
            if name in self._seen:
                return "joined"
            self._seen.add(name)
        return target.picture.cache.value

    # ------------------------------------------------------------ sums

    def _add_cost(self, line: PlannedLine, target: Target) -> None:
        cost, outlook = self._costs[target.picture.spec.model], line.outlook
        cost.pictures += 1
        cost.workers, cost.note = outlook.workers, outlook.note
        if cost.device_seconds is not None:
            known = outlook.picture_seconds
            cost.device_seconds = None if known is None else cost.device_seconds + known

    def _sums(self) -> tuple[float | None, float | None]:
        """Device-seconds, and seconds with the workers of now, one model after the other."""
        device_seconds = seconds = 0.0
        for cost in self._costs.values():
            if cost.device_seconds is None:
                return None, None
            device_seconds += cost.device_seconds
            seconds += cost.device_seconds / max(1, cost.workers)
        return round(device_seconds, 3), round(seconds, 3)

    def _tell_sums(self, device_seconds: float | None, seconds: float | None) -> None:
        total = sum(self._counts.values())
        kinds = [f"{count} {_WORDS[name]}" for name, count in self._counts.items() if count]
        print_data(f"{as_pictures(total)}: {', '.join(kinds)}")
        for model, cost in self._costs.items():
            if cost.note:
                print_data(f"{cost.pictures} wait: {plain(cost.note)} ({plain(model)})")
        if not self._counts["made"]:
            print_data("nothing to draw")
        elif device_seconds is None or seconds is None:
            print_data(f"{as_pictures(self._counts['made'])} to draw; no worker was measured yet")
        else:
            print_data(
                f"{as_pictures(self._counts['made'])} to draw: {as_duration(device_seconds)} of "
                f"device time, about {as_duration(seconds)} with the workers online"
            )


def _record(target: Target, state: str) -> dict[str, object]:
    picture = target.picture
    return {
        "index": picture.index,
        "status": state,
        "key": picture.key,
        "seed": picture.spec.seed,
        "path": None if target.path is None else str(target.path),
        "job_id": picture.job_id,
        "spec": msgspec.to_builtins(picture.spec),
    }


def _error_record(error: SdqError) -> dict[str, str]:
    return {"code": error.code, "message": error.message, "hint": error.hint}
