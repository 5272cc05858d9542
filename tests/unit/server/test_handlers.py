"""The address of Redis that a worker is told."""

import pytest

from sdq.server.handlers import reachable_url


@pytest.mark.parametrize(
    ("url", "reached_at", "told"),
    [
        ("redis://:pw@127.0.0.1:6390/0", "10.0.0.5", "redis://:pw@10.0.0.5:6390/0"),
        ("redis://:pw@0.0.0.0:6390/0", "fd00::1", "redis://:pw@[fd00::1]:6390/0"),
        ("redis://127.0.0.1/0", "127.0.0.1", "redis://127.0.0.1/0"),
        ("redis://redis.example:6379/1", "10.0.0.5", "redis://redis.example:6379/1"),
        ("unix:///run/redis.sock", "10.0.0.5", "unix:///run/redis.sock"),
        ("redis://127.0.0.1:6390/0", "", "redis://127.0.0.1:6390/0"),
    ],
)
def test_this_machine_becomes_the_address_that_led_here(url: str, reached_at: str, told: str):
    assert reachable_url(url, reached_at) == told
