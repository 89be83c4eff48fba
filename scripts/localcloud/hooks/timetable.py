"""What the hooks do later, or away from the emulator's event loop: one thread, in order of time."""

from __future__ import annotations

import contextvars
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)


class Timetable:
    """Things to do, each at its time, in the account and region of who asked.

    They are done one after the other, so that none may take long or wait for another request.
    """

    def __init__(self) -> None:
        """Begin the thread, which ends with the process."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = (
            itertools.count()
        )  # of two that are due together, the first asked comes first
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="timetable", daemon=True).start()

    def after(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        """Have it done so many seconds from now; what it raises is logged."""
        context = contextvars.copy_context()
        entry = (time.monotonic() + seconds, next(self._numbers))
        with self._changed:
            heapq.heappush(self._due, (*entry, lambda: context.run(do, *arguments)))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            do = self._next()
            try:
                do()
            except Exception:
                log.exception("what was to be done failed")  # and what is due next is done

    def _next(self) -> Callable[[], None]:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._due and self._due[0][0] <= now:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(self._due[0][0] - now if self._due else None)
