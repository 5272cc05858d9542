"""What the engine's thread and a job's thread tell each other about one picture."""

import threading
from concurrent.futures import Future

from PIL.Image import Image

from sdq.worker.picture import DrawnImage


class Watch:
    """One picture under way. Nothing here waits, but for `wait` in the job's own thread."""

    def __init__(self) -> None:
        self.begun = False
        self.step = 0
        self._cancelled = False
        self._dropped = False
        self.is_given_back = False
        """Somebody else is to draw it, unless it was begun meanwhile."""
        self._done = False
        self._news = False
        self._is_preview_asked = False
        self._preview: Image | None = None
        self._changed = threading.Condition()

    @property
    def is_cancelled(self) -> bool:
        """Nobody wants the picture any more."""
        return self._cancelled

    @property
    def is_dropped(self) -> bool:
        """The worker ends: somebody else is to draw it."""
        return self._dropped

    def is_over(self) -> bool:
        """Whether the engine should stop at its next step."""
        return self._cancelled or self._dropped

    def cancel(self) -> None:
        self._cancelled = True

    def drop(self) -> None:
        self._dropped = True
        self.poke()

    def give_back(self) -> None:
        self.is_given_back = True
        self.poke()

    def on_step(self, step: int, steps: int) -> None:
        """From the engine's thread; number 0 says that drawing begins."""
        with self._changed:
            self.begun = True
            self.step = step
            self._news = True
            self._changed.notify()

    def ask_preview(self, is_wanted: bool) -> None:
        """Whether the engine is to show how far it is after its next turn, once."""
        self._is_preview_asked = is_wanted and self._preview is None

    def wants_preview(self) -> bool:
        """From the engine's thread."""
        return self._is_preview_asked

    def on_preview(self, image: Image) -> None:
        """From the engine's thread."""
        with self._changed:
            self._is_preview_asked = False
            self._preview = image
            self._news = True
            self._changed.notify()

    def take_preview(self) -> Image | None:
        """The one that has come and was not taken yet."""
        with self._changed:
            image, self._preview = self._preview, None
        return image

    def on_done(self, _future: "Future[DrawnImage]") -> None:
        with self._changed:
            self._done = True
            self._changed.notify()

    def poke(self) -> None:
        """Makes `wait` return: something outside has changed."""
        with self._changed:
            self._news = True
            self._changed.notify()

    def wait(self, timeout_seconds: float) -> bool:
        """Until there is news or the time is over; True when the picture is done with."""
        with self._changed:
            if not self._done and not self._news:
                self._changed.wait(timeout_seconds)
            self._news = False
            return self._done
