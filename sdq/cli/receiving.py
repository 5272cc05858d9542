"""What becomes of pictures that are waited for: shown, written, reported, counted."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from sdq.cli.files import Named, Outputs
from sdq.cli.output import Sink, as_duration
from sdq.cli.progress import display_for
from sdq.cli.retrying import passes, tell_again
from sdq.cli.showing import Attention, Showing
from sdq.client.news import News, Reconnected, Reconnecting
from sdq.errors import SdqError, from_code
from sdq.protocol.messages import Accepted, CancelReply, Failure, Origin, Picture, Progress

MAX_ERRORS_KEPT = 8


class Tally(msgspec.Struct):
    """How it went, over all requests."""

    asked: int = 0
    written: int = 0
    errors: list[SdqError] = []
    failed: int = 0
    kept: int = 0  # jobs of requests left early that go on for somebody else
    is_unsure: bool = False  # the server did not say what became of a request left early

    def fail(self, error: SdqError, pictures: int = 1) -> None:
        self.failed += pictures
        if len(self.errors) < MAX_ERRORS_KEPT:
            self.errors.append(error)

    def left(self, outcome: CancelReply | None) -> None:
        """A request was left early; what the server says to that."""
        if outcome is None:
            self.is_unsure = True
        else:
            self.kept += outcome.kept

    @property
    def what_was_left(self) -> str:
        """What goes on after leaving early, for people; empty when nothing does."""
        parts = []
        if self.kept:
            parts.append(f"{self.kept} {'goes' if self.kept == 1 else 'go'} on for somebody else")
        if self.is_unsure:
            parts.append("what the server could not be told goes on: `sdq jobs --mine` shows it")
        return ", ".join(parts)

    @property
    def exit_code(self) -> int:
        """0, the code that all failures share, or 1 when some pictures were made."""
        codes = {error.exit_code for error in self.errors}
        if not codes:
            return 0
        return codes.pop() if len(codes) == 1 and not self.written else 1


class Request(msgspec.Struct):
    """A request under way. ``first_n``: the ``{n}`` of its index 0."""

    first_n: int
    count: int
    prompt: str = ""  # empty: each picture has its own
    about: str = ""  # its place among others, for errors; empty for the only one
    job_ids: tuple[str, ...] = ()  # of an attach, by index
    begun: float = msgspec.field(default_factory=time.monotonic)
    left: set[int] = set()
    retries: int = 0  # how often what failed may be asked for again
    attempt: int = 1
    again: set[int] = set()  # what failed for a reason that may pass
    keys: dict[int, str] = {}  # by index, of those that are waited for

    def __post_init__(self) -> None:
        self.left = set(range(self.count))

    def about_picture(self, index: int) -> str:
        if self.job_ids:
            return f"job {self.job_ids[index]}"
        number = f"picture {self.first_n + index}" if self.count > 1 else ""
        return ", ".join(part for part in (self.about, number) if part)


class Receiving:
    """Takes the news of requests, any number at once. ``showing``: shows pictures that grow, where
    that can be: on a terminal, or as JSON."""

    def __init__(self, outputs: Outputs, sink: Sink, showing: Showing | None = None) -> None:
        showing = Showing() if showing is None else showing
        self.tally = Tally()
        self.display = display_for(sink, preview=showing.preview, pictures=showing.pictures)
        self.attention = Attention(showing)
        self.wants_preview = showing.preview and (sink.as_json or self.display.shows_previews)
        """Whether to ask the server for previews."""
        self._outputs = outputs
        self._sink = sink

    async def follow(self, request: Request, news: AsyncGenerator[News, None]) -> None:
        """Until the last picture. Raises what ends the request; takes it off the display."""
        try:
            async with aclosing(news):
                async for item in news:
                    self._take(request, item)
        finally:
            for index in request.left:
                self.display.gone(request.first_n + index)

    def end(self) -> int:
        """Says how it went; the exit code."""
        self.close()
        if self.tally.failed and self.tally.written:
            self._sink.say(f"{self.tally.written} written, {self.tally.failed} failed")
        return self.tally.exit_code

    def close(self) -> None:
        """Takes the progress off the terminal, rings. Again does nothing."""
        self.display.close()
        self.attention.close()

    def _take(self, request: Request, item: News) -> None:
        if isinstance(item, Accepted):
            self._accepted(request, item)
        elif isinstance(item, Progress):
            self.display.show(request.first_n + item.index, request.prompt or item.job_id, item)
            self._tell_title(item)
            if item.preview and self._sink.as_json:
                self._record_preview(request, item)
        elif isinstance(item, Reconnecting):
            self.display.lost()
        elif isinstance(item, Reconnected):
            self.display.found()
        else:
            request.left.discard(item.index)
            self.display.gone(request.first_n + item.index)
            self._finished(request, item)

    def _accepted(self, request: Request, accepted: Accepted) -> None:
        awaited = [item for item in accepted.pictures if item.cache is not Origin.HIT]
        self._outputs.refuse_planned(
            Named(request.first_n, item.index, item.spec, item.key) for item in awaited
        )
        for item in awaited:
            request.keys[item.index] = item.key
            self.display.show(request.first_n + item.index, item.spec.prompt, None)

    def _record_preview(self, request: Request, news: Progress) -> None:
        from base64 import b64encode

        self._sink.record(
            {
                "event": "preview",
                "key": request.keys.get(news.index),
                "job_id": news.job_id,
                "step": news.step,
                "steps": news.steps,
                "jpeg": b64encode(news.preview).decode(),
            }
        )

    def _tell_title(self, news: Progress) -> None:
        done = f"{self.tally.written} of {self.tally.asked}, " if self.tally.asked > 1 else ""
        how = f"step {news.step} of {news.steps}" if news.step else news.state.value
        self.attention.title(done + how)

    def _finished(self, request: Request, item: Picture | Failure) -> None:
        if isinstance(item, Failure):
            self._failed(request, item)
            return
        named = Named(request.first_n, item.index, item.spec, item.key)
        path = self._outputs.write(named, item.image)
        self.tally.written += 1
        self._report(request, item, None if path is None else str(path))
        if self.attention.shows:
            with self._sink.hidden():
                self.attention.show(item.image)

    def _failed(self, request: Request, item: Failure) -> None:
        error = from_code(item.code, item.message, item.hint)
        if request.attempt <= request.retries and passes(error):
            if not request.again:
                tell_again(self._sink, error.message, request.attempt)
            request.again.add(item.index)
            return
        self.tally.fail(error)
        self._sink.error(error, about=request.about_picture(item.index))

    def _report(self, request: Request, picture: Picture, path: str | None) -> None:
        seconds = time.monotonic() - request.begun
        if self._sink.as_json:
            job = {"job_id": request.job_ids[picture.index]} if request.job_ids else {}
            self._sink.record(
                job
                | {
                    "path": path,
                    "key": picture.key,
                    "seed": picture.spec.seed,
                    "cache": picture.cache.value,
                    "seconds": round(seconds, 3),
                    "spec": msgspec.to_builtins(picture.spec),
                }
            )
            return
        origin = {
            Origin.HIT: "from the library",
            Origin.MADE: f"made in {as_duration(seconds)}",
            Origin.JOINED: f"made for somebody else too, in {as_duration(seconds)}",
        }[picture.cache]
        if request.job_ids and picture.cache is not Origin.HIT:
            origin = f"drawn meanwhile, waited {as_duration(seconds)}"  # for whom, we cannot say
        details = f"{origin}  seed {picture.spec.seed}  key {picture.key[:8]}"
        if path is None:
            self._sink.say(details)
        else:
            self._sink.path(path, details)
