"""Pictures in memory: bounded in bytes, entries and idle time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdq.server.library import memory
from sdq.server.library.memory import ENTRY_OVERHEAD_BYTES, MemoryCache, StoredImage, weight_of
from sdq.spec import ImageSpec


def stored(key: str, size_bytes: int = 100, prompt: str = "") -> StoredImage:
    spec = ImageSpec(prompt, "", "shapes", 128, 128, 20, 4.0, "ddim", 7)
    return StoredImage(key, spec, b"x" * size_bytes, 1.0)


WEIGHT = weight_of(stored("a"))


def test_what_was_used_longest_ago_goes_first():
    cache = MemoryCache(3 * WEIGHT, 100)
    for key in "abc":
        cache.add(stored(key), 0)
    assert cache.get("a", 1) == stored("a")
    cache.add(stored("d"), 2)
    assert cache.get("b", 3) is None
    assert [key for key in "abcd" if cache.get(key, 3)] == ["a", "c", "d"]


def test_a_picture_over_the_limit_is_left_out_and_the_old_one_goes():
    cache = MemoryCache(2 * WEIGHT, 100)
    cache.add(stored("a"), 0)
    cache.add(stored("a", size_bytes=2 * WEIGHT), 0)
    assert cache.get("a", 0) is None
    assert (len(cache), cache.bytes) == (0, 0)


def test_replacing_and_discarding_keep_the_sum_right():
    cache = MemoryCache(10 * WEIGHT, 100)
    cache.add(stored("a", 10), 0)
    cache.add(stored("a", 20), 0)
    assert cache.bytes == weight_of(stored("a", 20))
    cache.discard("a")
    cache.discard("a")
    assert cache.bytes == 0


def test_idle_for_too_long_is_a_miss_and_use_renews():
    cache = MemoryCache(10 * WEIGHT, 100)
    cache.add(stored("a"), 0)
    assert cache.get("a", 90)
    assert cache.get("a", 190)
    assert cache.get("a", 291) is None
    assert cache.bytes == 0


def test_the_number_of_entries_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "MAX_ENTRIES", 5)
    cache = MemoryCache(1000 * WEIGHT, 100)
    for number in range(20):
        cache.add(stored(str(number)), 0)
    assert len(cache) == 5


def test_prompts_and_bookkeeping_count():
    assert weight_of(stored("a", 100, "x" * 50)) == 100 + 4 * 50 + ENTRY_OVERHEAD_BYTES


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "get", "discard"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 9_000),
    ),
    max_size=60,
)


@given(limit_bytes=st.integers(0, 20_000), actions=ACTIONS)
def test_whatever_is_done_the_bound_holds_and_the_least_used_goes(
    limit_bytes: int, actions: list[tuple[str, str, int]]
):
    """Against a model: a list of (key, weight), least recently used first."""
    cache = MemoryCache(limit_bytes, 1e9)
    model: dict[str, StoredImage] = {}
    for now, (action, key, size_bytes) in enumerate(actions):
        if action == "get":
            assert cache.get(key, now) == model.get(key)
            if key in model:
                model[key] = model.pop(key)
            continue
        model.pop(key, None)
        if action == "discard":
            cache.discard(key)
        else:
            cache.add(stored(key, size_bytes), now)
            if weight_of(stored(key, size_bytes)) <= limit_bytes:
                model[key] = stored(key, size_bytes)
            while sum(map(weight_of, model.values())) > limit_bytes:
                model.pop(next(iter(model)))
        assert cache.bytes == sum(map(weight_of, model.values())) <= limit_bytes
        assert len(cache) == len(model)
