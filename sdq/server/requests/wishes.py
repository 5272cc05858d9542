"""What a request asks for: one wish a picture, with its spec and its key."""

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from sdq.errors import InvalidSpec
from sdq.protocol.job_messages import Intent, Submit
from sdq.protocol.messages import Generate
from sdq.server.catalog import Catalog
from sdq.spec import ImageSpec, SpecDraft, key_of, seed_at

MAX_REMEMBERED_PICTURES = 4_096
"""In the plans that are kept in memory; each takes half a KiB and its part of a prompt."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One picture of a request, before anybody looked whether it exists."""

    index: int
    spec: ImageSpec
    key: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All pictures of a request; ``fingerprint`` of the model that draws them."""

    fingerprint: str
    wishes: tuple[Wish, ...]


class Planner:
    """Turns drafts into plans and remembers the last ones, for a quick hit."""

    def __init__(self, catalog: Catalog, *, max_count: int) -> None:
        self._catalog = catalog
        self._max_count = max_count
        self._plans: OrderedDict[tuple[SpecDraft, int, int], Plan] = OrderedDict()
        self._remembered_pictures = 0
        self._version = catalog.version

    def plan(self, message: Generate | Submit | Intent) -> Plan:
        """The specs and keys of a request. Raises `UsageError` for what cannot be drawn."""
        if self._version != self._catalog.version:
            self._forget()
        name = (message.draft, message.count, message.first_index)
        known = self._plans.get(name)
        if known is not None:
            self._plans.move_to_end(name)
            return known
        plan = self._make_plan(message)
        self._plans[name] = plan
        self._remembered_pictures += message.count
        while self._remembered_pictures > MAX_REMEMBERED_PICTURES:
            _, oldest = self._plans.popitem(last=False)
            self._remembered_pictures -= len(oldest.wishes)
        return plan

    def _forget(self) -> None:
        """The catalog has changed: the same draft may mean another picture."""
        self._version = self._catalog.version
        self._plans.clear()
        self._remembered_pictures = 0

    def _make_plan(self, message: Generate | Submit | Intent) -> Plan:
        if message.count > self._max_count:
            raise InvalidSpec(
                f"{message.count} pictures in one request, the limit is {self._max_count}",
                hint="ask in several requests",
            )
        base = self._catalog.resolve(message.draft)
        fingerprint = self._catalog.manifest(base.model).fingerprint
        wishes = []
        for index in range(message.first_index, message.first_index + message.count):
            seed = seed_at(base, message.draft.seed, index)
            spec = msgspec.structs.replace(base, seed=seed)
            wishes.append(Wish(index, spec, key_of(spec, fingerprint)))
        return Plan(fingerprint, tuple(wishes))
