"""Several processes for one model, where the work of its engine and around it is one core's.

The first process listens, and is all that a server is. If its warm-up finds that batches are best run on the
loop's thread, by it alone, so that the other cores would have nothing to do, it starts siblings: the same
program, each with one end of a socket pair. A sibling loads the same artifact, says that it is ready, and
from then on is handed clients: those of a few stay together, those of many are shared evenly, which a socket
that all of them accept from would not do. Siblings listen to nothing. What they know of each other is on the
`Board`.

A sibling whose socket pair has closed answers what it has begun and ends, and is ended if it cannot: none
outlives the first process, however that ended. One that ends by itself is started again, each time after
twice as long.
"""

import contextlib
import logging
import os
import pickle
import select
import socket
import subprocess
import sys
import threading
import time
from asyncio import AbstractEventLoop, sleep
from collections.abc import Callable
from time import perf_counter

from inference_containers.onnx.board import Board
from inference_containers.onnx.front import Front
from inference_containers.onnx.settings import Settings
from inference_runtime.batching import Batcher, Plan

#: Where nothing is set: each takes some 60 MB, and so many serve more than one machine's network brings.
_MOST = 8
#: Clients that one process is to have before another is used, at most a full batch: fewer make batches so
#: small that two processes together answer less than one (docs/decisions/0021, 0029).
_EACH = 16
#: What begins the command of a sibling's process, behind that of the first; a descriptor follows.
OPTION = "--sibling"
_READY, _CLIENT = b"ready", b"client"
_MESSAGE_BYTES = 64 * 1024
#: Messages that are read before the clients that are already here are looked after.
_READ = 64
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

logger = logging.getLogger(__name__)


def most(settings: Settings) -> int:
    """How many processes a server of one model may have. Each needs room for a whole request."""
    wanted = settings.processes or min(_MOST, len(os.sched_getaffinity(0)))
    return max(1, min(wanted, settings.pending_bytes // settings.body_bytes))


class Siblings:
    """The other processes, for the first. Methods are for the loop's thread."""

    def __init__(self, loop: AbstractEventLoop, front: Front, board: Board) -> None:
        self._loop = loop
        self._front = front
        self._siblings = [_Sibling(self, place) for place in range(1, board.processes)]
        self.board = board
        self._batcher: Batcher
        self.closing = False

    @property
    def plan(self) -> Plan:
        """How the model is run."""
        return self._batcher.plan

    def start(self, batcher: Batcher) -> None:
        """Start them, to run the model as was found out for `batcher`, this process's own."""
        self._batcher = batcher
        self._front.share = self._share
        for sibling in self._siblings:
            sibling.start(self._loop)
        self._tick()

    def _tick(self) -> None:
        self.balance()
        if not self.closing:
            self._loop.call_later(1, self._tick)

    def balance(self) -> None:
        """Let the siblings have some of the clients of this process, if they have too few."""
        self._batcher.beside = any(sibling.clients for sibling in self._siblings)
        own = self._front.clients
        used = self._used(own)
        if used:
            others = [sibling.clients for sibling in used]
            fair = -(-(own + sum(others)) // (1 + len(used)))
            if own > fair and own > min(others) + 1:
                self._front.yield_clients(own - fair)

    def _used(self, own: int) -> "list[_Sibling]":
        """Those that it pays to use, for as many clients as there are."""
        ready = [sibling for sibling in self._siblings if sibling.ready]
        clients = own + sum(sibling.clients for sibling in ready)
        return ready[: max(0, clients // min(_EACH, self.plan.max_batch) - 1)]

    def close(self) -> None:
        """Let them answer what they have begun, and end."""
        self.closing = True
        for sibling in self._siblings:
            sibling.close()

    async def ended(self, seconds: float) -> None:
        """Wait until they have; those that have not within `seconds` are killed."""
        end = perf_counter() + seconds
        running = [sibling.process for sibling in self._siblings if sibling.process]
        while any(process.poll() is None for process in running) and perf_counter() < end:
            await sleep(0.02)
        for process in running:
            process.kill()
            process.wait()

    def _share(self, client: socket.socket) -> bool:
        own = self._front.clients
        fewest = min(self._used(own + 1), key=lambda sibling: sibling.clients, default=None)
        given = fewest is not None and fewest.clients < own and fewest.give(client)
        if given:
            self._batcher.beside = True
        return given


class _Sibling:
    """One of them, and its successors at its place on the board."""

    def __init__(self, siblings: Siblings, place: int) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self._siblings = siblings
        self._place = place
        self._given = 0
        self._pause = _FIRST_PAUSE
        self._started = 0.0
        self._control: socket.socket | None = None

    @property
    def clients(self) -> int:
        """How many it serves, or is about to."""
        return self._given - self._siblings.board.ended_at(self._place)

    def start(self, loop: AbstractEventLoop) -> None:
        if self._siblings.closing:
            return
        board = self._siblings.board
        board.clear(self._place)
        self._given = 0
        self._started = perf_counter()
        # Messages have an end, and arrive whole, with the descriptors that were sent with them.
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, *sys.orig_argv[1:], OPTION, str(theirs.fileno())]
            try:
                self.process = subprocess.Popen(command, pass_fds=(theirs.fileno(),))
            except OSError as error:
                control.close()
                self._again(loop, str(error))
                return
        # The same program is at both ends, and nobody else.
        start = pickle.dumps((self._place, board.processes, self._siblings.plan))
        # If it has ended already, that is heard next.
        with contextlib.suppress(OSError):
            socket.send_fds(control, [start], [board.descriptor])
        control.setblocking(False)
        self._control = control
        loop.add_reader(control, self._hear, control, loop)

    def give(self, client: socket.socket) -> bool:
        """Hand a client over. It is this process's still where that fails."""
        assert self._control is not None
        try:
            socket.send_fds(self._control, [_CLIENT], [client.fileno()])
        except OSError:
            return False
        self._given += 1
        return True

    def close(self) -> None:
        self.ready = False
        if self._control:
            self._siblings._loop.remove_reader(self._control)
            self._control.close()
            self._control = None

    def _hear(self, control: socket.socket, loop: AbstractEventLoop) -> None:
        try:
            message = control.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message == _READY:
            self.ready = True
            logger.info("process joined", extra={"place": self._place})
            self._siblings.balance()
        elif not message:
            self._lost(loop)

    def _lost(self, loop: AbstractEventLoop) -> None:
        """It has ended, which it never does by itself."""
        self.close()
        assert self.process is not None
        # Only what has ended closes its end; to be sure that it is gone costs nothing.
        self.process.kill()
        status = self.process.wait()
        self._siblings.board.clear(self._place)
        self._again(loop, status)

    def _again(self, loop: AbstractEventLoop, reason: int | str) -> None:
        """Start it again, after a pause."""
        if perf_counter() - self._started > _LONGEST_PAUSE:
            self._pause = _FIRST_PAUSE
        logger.error(
            "process ended",
            extra={"place": self._place, "status": reason, "started_again_in_seconds": self._pause},
        )
        loop.call_later(self._pause, self.start, loop)
        self._pause = min(_LONGEST_PAUSE, 2 * self._pause)


class Membership:
    """A sibling's end: what it is told, and who it is given."""

    def __init__(self, descriptor: int) -> None:
        self._control = socket.socket(fileno=descriptor)
        self._loop: AbstractEventLoop
        message, [memory], _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 1)
        # From the process that started this one, over what nobody else has.
        place, processes, self.plan = pickle.loads(message)  # noqa: S301
        self.board = Board(processes, place, memory)

    def join(self, loop: AbstractEventLoop, front: Front) -> None:
        """Say that clients are welcome, and take those that are given."""
        self._control.setblocking(False)
        self._loop = loop
        loop.add_reader(self._control, self.take, front)
        with contextlib.suppress(OSError):
            self._control.send(_READY)

    def take(self, front: Front) -> None:
        """Serve those that wait to be taken."""
        with contextlib.suppress(OSError):
            for _ in range(_READ):
                message, descriptors, _, _ = socket.recv_fds(
                    self._control, _MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC
                )
                if not message:
                    self._loop.remove_reader(self._control)
                    return
                if descriptors:
                    front.adopt(socket.socket(fileno=descriptors[0]))
                else:
                    # There are too many open files.
                    front.ended[0] += 1

    def watch(self, alone: Callable[[], object], seconds: float) -> None:
        """Call `alone`, from a thread, when the first process is gone, and end this one `seconds` later."""

        def watch() -> None:
            poll = select.poll()
            # It is always told when the other end has closed, and asks for nothing else.
            poll.register(self._control, 0)
            poll.poll()
            with contextlib.suppress(RuntimeError):
                alone()
            time.sleep(seconds)
            os._exit(1)

        threading.Thread(target=watch, name="watch", daemon=True).start()
