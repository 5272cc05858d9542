"""What models are in memory, and how they come and go beside the engine's thread.

`sdq.worker.residents` decides, `sdq.worker.loader` does it, `sdq.worker.refusals` remembers what
could not be done.
"""

import logging
from collections.abc import Callable, Sequence

from sdq.worker.flight import Pipeline
from sdq.worker.holding import Holding
from sdq.worker.inbox import Inbox
from sdq.worker.loader import Loaded, Loader
from sdq.worker.picture import GivenBack
from sdq.worker.refusals import Refusals, is_full
from sdq.worker.residents import Change, Residents, Wish
from sdq.worker.turns import Turns

LOOK_AGAIN_SECONDS = 0.25
"""While a picture waits for another model's memory, and there is nothing else to do."""

_log = logging.getLogger(__name__)


class Residency:
    """For the engine's thread. The first of ``holdings`` is loaded first; ``make_turns`` is
    called for each model that was loaded, ``on_done`` when there is something to receive,
    ``on_change`` when other models are in memory or are served than before."""

    def __init__(
        self,
        holdings: Sequence[Holding],
        residents: Residents,
        *,
        make_turns: Callable[[Pipeline], Turns],
        on_done: Callable[[], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._holdings = {holding.model_id: holding for holding in holdings}
        self._untried = [holding.model_id for holding in holdings]
        self._make_turns = make_turns
        self._on_change = on_change
        self._told: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._loader = Loader(on_done)
        self._crowded: set[str] = set()  # models that there was no memory for beside others
        self.residents = residents
        self.refusals = Refusals()
        self.serving: tuple[str, ...] = ()
        """Models in memory that need not leave, and those that come; may be read by any thread."""

    def is_shared(self) -> bool:
        """Whether a model may have to leave for what another one has no memory for."""
        return len(self.residents) > 1 or self._loader.is_busy

    def load_next(self) -> bool:
        """At the start: begins to load the first model, or the next one when that did not go
        well. False when all were tried."""
        if not self._untried:
            return False
        model_id = self._untried.pop(0)
        self._tell(coming=model_id)
        self._loader.begin([], self._holdings[model_id])
        return True

    def close(self, timeout_seconds: float) -> bool:
        """True when nothing is being loaded any more. May be called by any thread."""
        return self._loader.close(timeout_seconds)

    def receive(self) -> Loaded | None:
        """What came of the last change, once: its model is among the residents then, or refused
        for some time."""
        loaded = self._loader.take()
        if loaded is None:
            return None
        for resident in self.residents:
            resident.turns.make_roomier()
        if loaded.holding is not None:
            self._welcome(loaded.holding, loaded)
        self._tell()
        return loaded

    def _welcome(self, holding: Holding, loaded: Loaded) -> None:
        model_id = holding.model_id
        if loaded.pipeline is not None:
            self.refusals.remove(model_id)
            turns = self._make_turns(loaded.pipeline)
            self.residents.add(holding, loaded.pipeline, turns, loaded.seconds)
            _log.info("%s is in memory, loaded in %.1f s", model_id, loaded.seconds)
        elif loaded.error is not None:
            self._refuse(model_id, loaded.error)

    def change(self, inbox: Inbox) -> bool:
        """Begins what is to change now. Whether a model is waited for that cannot come yet."""
        if self._loader.is_busy:
            return False
        wishes = self._wishes(inbox)
        wanted = [model_id for model_id in self.residents.loaded if inbox.waiting(model_id)]
        change = self.residents.change(wishes, wanted)
        if change is None and self._unblock():
            return self.change(inbox)
        if change is None:
            self._tell(coming=self.residents.expected)
            return bool(wishes)
        self._begin(change)
        return False

    def sleep_seconds(self, is_waited_for: bool) -> float | None:
        """How long the thread may sleep that has nothing to do, when nothing arrives."""
        if self._loader.is_busy:
            return None  # its end arrives
        return LOOK_AGAIN_SECONDS if is_waited_for else self.residents.expiry_seconds()

    def _unblock(self) -> bool:
        """Gives back what has waited for memory in models that must leave: it might wait for the
        very one that waits for them."""
        reason = GivenBack("there was no memory for the picture beside another model's")
        leaving = [resident for resident in self.residents if resident.must_leave]
        return any(resident.turns.abandon_crowded(reason) for resident in leaving)

    def _wishes(self, inbox: Inbox) -> list[Wish]:
        wishes = []
        for model_id in self._holdings:
            if model_id in self.residents:
                continue
            waiting = inbox.waiting(model_id)
            if waiting and (reason := self.refusals.reason(model_id)):
                _give_back(inbox, model_id, reason)
            elif waiting:
                alone = model_id in self._crowded
                wishes.append(Wish(model_id, waiting[0].came_at_seconds, alone))
        for resident in self.residents if len(self.residents) > 1 else ():
            since = resident.turns.crowded_since_seconds
            if since is not None:
                wishes.append(Wish(resident.model_id, since, alone=True))
        return wishes

    def _begin(self, change: Change) -> None:
        for model_id in change.leaving:
            _log.info("%s leaves memory", model_id)
        gone = self.residents.remove(change.leaving)
        self._tell(coming=change.coming)
        self._loader.begin(gone, self._holdings.get(change.coming))

    def _tell(self, coming: str = "") -> None:
        """What is served now, if it has changed."""
        staying = [one.model_id for one in self.residents if not one.must_leave]
        serving = tuple(dict.fromkeys([*staying, *([coming] if coming else [])]))
        told = (self.residents.loaded, serving)
        if told != self._told:
            self._told, self.serving = told, serving
            self._on_change()

    def _refuse(self, model_id: str, error: Exception) -> None:
        if is_full(error) and len(self.residents) and model_id not in self._crowded:
            _log.info("there is no memory for %s beside other models: they must leave", model_id)
            self._crowded.add(model_id)
            return
        reason = self.refusals.add(model_id, error)
        _log.error("%s cannot be loaded, its jobs are given back for now: %s", model_id, reason)


def not_loaded(model_id: str, reason: str) -> GivenBack:
    """Why a job is given back that another worker may draw."""
    return GivenBack(f"{model_id} cannot be loaded here: {reason}")


def _give_back(inbox: Inbox, model_id: str, reason: str) -> None:
    for order in inbox.waiting(model_id):
        if inbox.take(order) and order.future.set_running_or_notify_cancel():
            order.future.set_exception(not_loaded(model_id, reason))
