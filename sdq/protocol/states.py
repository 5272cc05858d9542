"""The states of a job, and which may follow which."""

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"  # in the server's table, not yet in Redis
    DISPATCHED = "dispatched"  # in Redis, not yet taken by a worker
    RUNNING = "running"  # a worker said that it began
    SUCCEEDED = "succeeded"  # the picture is in the library
    FAILED = "failed"  # given up, the cause is in the row
    CANCELLED = "cancelled"  # nobody wants it any more


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {
            JobState.DISPATCHED,
            JobState.SUCCEEDED,  # it was taken back, and the first attempt arrived after all
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.DISPATCHED: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,  # Redis lost it
            JobState.SUCCEEDED,  # the news of the start was lost, the picture was not
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.QUEUED,  # its worker died
            JobState.SUCCEEDED,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

FINAL_STATES = frozenset(state for state, following in TRANSITIONS.items() if not following)


def may_follow(before: JobState, after: JobState) -> bool:
    """Whether a job may go from one state to the other."""
    return after in TRANSITIONS[before]
