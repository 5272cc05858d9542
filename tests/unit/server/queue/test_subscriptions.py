"""Who waits for what: joining, dropping, delivering, and saying nothing twice."""

import msgspec

from sdq.protocol.messages import Failure, Origin, Picture, Progress
from sdq.protocol.states import JobState
from sdq.server.queue.jobs import Job
from sdq.server.queue.subscriptions import Request, Subscriptions
from sdq.spec import ImageSpec
from sdq.testing.rig import ListeningPeer

SPEC = ImageSpec("a cat", "", "shapes", 128, 128, 20, 4.0, "ddim", 7)


def make_job(job_id: str = "job1") -> Job:
    plain = {"job_id": job_id, "key": "a" * 64, "spec": msgspec.to_builtins(SPEC)}
    plain |= {"fingerprint": "f" * 64, "state": "queued", "attempt": 1, "keep": True}
    plain |= {"identity": "me", "created_at": 1.0, "dispatched_at": None, "changed_at": 1.0}
    plain |= {"worker_id": None, "error_code": "", "error_message": "", "draw_seconds": None}
    return msgspec.convert(plain, Job)


def test_all_who_wait_get_the_picture_once_and_learn_how_many_are_left():
    subscriptions, first, second = Subscriptions(), ListeningPeer(), ListeningPeer()
    two = Request(5, first, remaining=2)
    one = Request(9, second, remaining=1)
    subscriptions.add(two, 0, make_job(), Origin.MADE)
    subscriptions.add(one, 3, make_job(), Origin.JOINED)
    assert subscriptions.deliver(make_job(), b"png", 0.5) == 2
    assert subscriptions.deliver(make_job(), b"png", 0.5) == 0
    (picture,) = first.all(Picture)
    assert (picture.request_id, picture.index, picture.remaining) == (5, 0, 1)
    assert picture.cache is Origin.MADE
    (picture,) = second.all(Picture)
    assert (picture.request_id, picture.index, picture.remaining) == (9, 3, 0)
    assert picture.cache is Origin.JOINED
    assert one.is_done
    assert not two.is_done


def test_a_failure_reaches_all_who_wait():
    subscriptions, peer = Subscriptions(), ListeningPeer()
    request = Request(1, peer, remaining=1)
    subscriptions.add(request, 0, make_job(), Origin.MADE)
    subscriptions.fail("job1", "generation_failed", "out of memory", "smaller")
    (failure,) = peer.all(Failure)
    assert (failure.message, failure.hint, failure.remaining) == ("out of memory", "smaller", 0)
    assert len(subscriptions) == 0


def test_dropping_a_request_leaves_the_others_waiting():
    subscriptions = Subscriptions()
    mine = Request(1, ListeningPeer(), remaining=2)
    yours = Request(2, ListeningPeer(), remaining=1)
    subscriptions.add(mine, 0, make_job("shared"), Origin.MADE)
    subscriptions.add(mine, 1, make_job("own"), Origin.MADE)
    waiting = subscriptions.add(yours, 0, make_job("shared"), Origin.JOINED)
    assert [dropped.job_id for dropped in subscriptions.drop(mine)] == ["shared", "own"]
    assert (subscriptions.of("shared"), subscriptions.of("own")) == ((waiting,), ())
    assert subscriptions.drop(mine) == []
    assert mine.is_done
    assert subscriptions.drop(yours) == [waiting]
    assert len(subscriptions) == 0


def test_a_failure_for_one_person_leaves_the_others_waiting():
    subscriptions, mine, yours = Subscriptions(), ListeningPeer("me"), ListeningPeer("you")
    for number, peer in enumerate((mine, mine, yours)):
        request = Request(number, peer, remaining=1)
        subscriptions.add(request, 0, make_job(), Origin.MADE)
    subscriptions.fail("job1", "cancelled", "it was cancelled", identity="me")
    assert [failure.code for failure in mine.all(Failure)] == ["cancelled"] * 2
    assert yours.told == []
    assert [waiting.request.peer for waiting in subscriptions.of("job1")] == [yours]


def test_the_same_job_twice_in_one_request_gives_two_pictures():
    subscriptions, peer = Subscriptions(), ListeningPeer()
    request = Request(1, peer, remaining=2, is_attached=True)
    for index in range(2):
        subscriptions.add(request, index, make_job(), Origin.JOINED)
    assert subscriptions.deliver(make_job(), b"png", 0.5) == 2
    assert [(one.index, one.remaining) for one in peer.all(Picture)] == [(0, 1), (1, 0)]
    assert request.is_done


def test_the_same_news_is_told_once():
    subscriptions, peer = Subscriptions(), ListeningPeer()
    waiting = subscriptions.add(Request(1, peer, remaining=1), 0, make_job(), Origin.MADE)
    for _ in range(3):
        waiting.progress(JobState.QUEUED, ahead=2, note="2 ahead")
    waiting.progress(JobState.RUNNING, step=3)
    assert [(news.state, news.step, news.steps) for news in peer.all(Progress)] == [
        (JobState.QUEUED, 0, 20),
        (JobState.RUNNING, 3, 20),
    ]


def test_a_time_that_passes_is_told_now_and_then():
    subscriptions, peer = Subscriptions(), ListeningPeer()
    waiting = subscriptions.add(Request(1, peer, remaining=1), 0, make_job(), Origin.MADE)
    for tenths in range(600):
        waiting.progress(JobState.QUEUED, ahead=1, eta_seconds=60 - tenths / 10)
    told = [news.eta_seconds for news in peer.all(Progress)]
    assert told[0] == 60
    assert len(told) < 20
