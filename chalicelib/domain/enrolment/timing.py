"""When to look again, and when to give up."""

from __future__ import annotations

from datetime import timedelta

# An attempt ends after this: enrolled or failed.
ATTEMPT = timedelta(minutes=15)

# What was launched a moment ago may be unknown to EC2's own answers yet (Amazon EC2 API Reference,
# "Ensuring idempotency" and "Eventual consistency").
SETTLING = timedelta(minutes=5)

# A command that was to be sent, but whose id was never recorded.
SENDING = timedelta(seconds=30)

# Delivery, execution and the agent's report; SSM gives up sooner and says so.
COMMAND_PATIENCE = timedelta(minutes=4)

# How often what works is looked at all the same: a disk may have been exchanged.
CHECK = timedelta(days=1)

# Clocks that write and read the time of a look.
CLOCKS_DIFFER = timedelta(seconds=0.5)

# After an instance is gone: what was just being issued to it must not stay.
CONFIRM = timedelta(minutes=15)

# And once more when the last credentials of its role have ended, which EC2 gives for six hours.
CREDENTIALS = timedelta(hours=6)

# An instance that asks by itself may be about to install what it was given.
OWN_GRACE = timedelta(hours=1)

# How long it may take to ask again: an hour's timer, as much by chance, and its tries.
OWN_ATTEMPT = timedelta(minutes=150)

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(seconds=60)
_FIRST_RETRY, _LONGEST_RETRY = timedelta(minutes=15), timedelta(days=1)
_MOST_DOUBLINGS = 10


def pause(tries: int, spread: float) -> timedelta:
    """How long to wait after so many tries; longer by up to a quarter with *spread*, 0 to 1."""
    return _grown(_FIRST_PAUSE, tries, _LONGEST_PAUSE) * (1 + spread / 4)


def as_long_again(waited: timedelta) -> timedelta:
    """How long to wait on, having waited for so long."""
    return min(max(waited, _FIRST_PAUSE), _LONGEST_PAUSE)


def retry(failures: int, spread: float) -> timedelta:
    """How long to leave an instance alone after so many failed attempts, at least one."""
    return _grown(_FIRST_RETRY, failures - 1, _LONGEST_RETRY) * (1 + spread / 4)


def check(spread: float) -> timedelta:
    """How long what works is left alone: CHECK, or less by up to a quarter with *spread*."""
    return CHECK * (1 - spread / 4)


def _grown(first: timedelta, times: int, longest: timedelta) -> timedelta:
    doubled: timedelta = first * (1 << min(times, _MOST_DOUBLINGS))
    return min(doubled, longest)
