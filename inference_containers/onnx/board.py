"""What the processes of a server know of each other: one mapping of shared memory, with a slot for each.

Each process writes its own slot and reads all of them. Nothing else is shared.
"""

import mmap
import os
from time import perf_counter

import numpy as np

from inference_runtime.metrics import COUNTS, Metrics

_SLOT = np.dtype(
    [
        # Whether the process serves: its model has answered its warm-up.
        ("serves", np.int64),
        # When it said so last, by `perf_counter`, which is the same clock in all of them.
        ("ticked", np.float64),
        # Whether its engine answers.
        ("healthy", np.int64),
        # Its connections that have ended.
        ("ended", np.int64),
        ("server", COUNTS),
        ("model", COUNTS),
    ]
)
#: A process says every second that it is well, and is believed to be for so many more, however busy it is.
_LATE_SECONDS = 5.0


class Board:
    """The slots. `place` is this process's own; the first process's is 0."""

    def __init__(self, processes: int, place: int = 0, descriptor: int | None = None) -> None:
        """`descriptor` is the memory's, from the process that made it."""
        self.processes = processes
        self.place = place
        self.descriptor = os.memfd_create("inference") if descriptor is None else descriptor
        size = processes * _SLOT.itemsize
        if descriptor is None:
            os.ftruncate(self.descriptor, size)
        self._slots = np.frombuffer(mmap.mmap(self.descriptor, size), _SLOT)
        #: The connections of this process that have ended: one number, in a view that is quick to reach.
        self.ended = self._slots["ended"][place : place + 1].data

    def metrics(self) -> Metrics:
        """What all processes count, counted here by this one."""
        return Metrics((self._slots["server"], self._slots["model"]), self.place)

    def tell(self, healthy: bool) -> None:
        """This process serves, and its engine answers or does not. To be told every second."""
        slot = self._slots[self.place]
        slot["ticked"] = perf_counter()
        slot["healthy"] = healthy
        slot["serves"] = 1

    def clear(self, place: int) -> None:
        """A process has ended, or is about to begin. What it counted stays."""
        slot = self._slots[place]
        slot["serves"] = slot["ended"] = 0

    def ended_at(self, place: int) -> int:
        """How many of a process's connections have ended."""
        return int(self._slots["ended"][place])

    def well(self, wedged_seconds: float) -> bool:
        """Whether every other process that serves has an engine that answers, and has said so lately."""
        latest = perf_counter() - wedged_seconds - _LATE_SECONDS
        serving = self._slots["serves"] == 1
        serving[self.place] = False
        slots = self._slots[serving]
        return bool((slots["healthy"] == 1).all() and (slots["ticked"] > latest).all())
