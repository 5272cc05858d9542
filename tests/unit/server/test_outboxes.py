"""Memory for slow readers: bounded in all, taken from whoever reads the least."""

from dataclasses import dataclass

from sdq.server.outboxes import SMALL_BYTES, Outboxes


@dataclass(eq=False)
class Line:
    """A connection that only counts."""

    peer: str
    unread_bytes: int = 0
    was_cut: bool = False

    def abort(self) -> None:
        self.was_cut, self.unread_bytes = True, 0


def test_the_slowest_are_cut_until_the_rest_is_within_the_bound():
    outboxes = Outboxes(max_unread_bytes=10 * SMALL_BYTES)
    lines = [Line(str(n), n * SMALL_BYTES) for n in (1, 2, 3, 4, 5)]
    for line in lines:
        outboxes.add(line)
    outboxes.check(lines[0])
    assert [line.was_cut for line in lines] == [False, False, False, False, True]
    outboxes.check(lines[0])
    assert sum(line.was_cut for line in lines) == 1


def test_within_the_bound_nobody_is_cut_and_who_is_gone_does_not_count():
    outboxes = Outboxes(max_unread_bytes=10 * SMALL_BYTES)
    here, gone = Line("here", 6 * SMALL_BYTES), Line("gone", 9 * SMALL_BYTES)
    outboxes.add(here)
    outboxes.add(gone)
    outboxes.discard(gone)
    outboxes.check(here)
    assert not here.was_cut


def test_a_small_outbox_looks_at_nobody():
    outboxes = Outboxes(max_unread_bytes=1)
    small, large = Line("small", SMALL_BYTES - 1), Line("large", 2 * SMALL_BYTES)
    outboxes.add(small)
    outboxes.add(large)
    outboxes.check(small)
    assert not large.was_cut
    outboxes.check(large)
    assert large.was_cut
