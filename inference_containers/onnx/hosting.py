"""The models of a server: what is there, what is loaded, and what runs each.

A model is loaded in a thread of its own, so that loading one stalls no other, and answers only when its
warm-up has passed. Where a repository is served, its models come and go by the protocol's repository routes,
within a budget of memory; what counts is the size of the artifacts' files, as it is known before loading.
With a budget, no model is in memory twice.
"""

import asyncio
import gc
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from inference_containers.onnx.settings import Settings
from inference_runtime.batching import Batcher, Plan
from inference_runtime.codecs import Codec
from inference_runtime.errors import Problem, shown
from inference_runtime.manifest import FILE_NAME, Artifact, ArtifactError, parse, verify
from inference_runtime.metrics import Metrics
from inference_runtime.service import Service

if TYPE_CHECKING:
    from inference_runtime.model import Model

#: Finds a model's artifact and verifies it. Raises ArtifactError.
Find = Callable[[], Artifact]

#: Each process has the model in its memory: one whose files have more bytes than this stays in one.
_COPIED_BYTES = 128 * 1024 * 1024


class Hosted:
    """One model: its service, and once it is loaded its batcher."""

    def __init__(self, name: str, find: Find, host: "Host") -> None:
        self.service = Service(name, self._load, host.settings.body_bytes)
        self.metrics = host.metrics.model(name)
        #: Nothing before the model is loaded, which `service.loaded` explains to clients.
        self.batcher: Batcher | None = None
        self.codec: Codec
        self.loading = True
        self.size = 0
        self._find = find
        self._host = host
        self._waiting: list[Callable[[], None]] = []

    @property
    def ready(self) -> bool:
        """Whether it answers: it has answered its warm-up, and its engine is not wedged."""
        return self.batcher is not None and self.service.ready and self.batcher.healthy

    @property
    def state(self) -> tuple[str, str]:
        """As the repository's index tells it, with the reason."""
        if self.loading:
            return "LOADING", ""
        if self.ready:
            return "READY", ""
        return "UNAVAILABLE", "its engine is stuck" if self.batcher else "it could not be loaded"

    def start(self) -> None:
        """Load in a thread. A failure is logged, and answered as 503."""
        threading.Thread(target=self._run, name=f"load-{self.service.name}", daemon=True).start()

    def close(self) -> None:
        """Let what is queued be answered, then end the engine."""
        if self.batcher:
            self.batcher.close()

    def when_loaded(self, call: Callable[[], None]) -> None:
        """Call, on the loop, once it is loaded or has failed to."""
        if self.loading:
            self._waiting.append(call)
        else:
            call()

    def _run(self) -> None:
        self.service.load()
        self._host.loop.call_soon_threadsafe(self._loaded)

    def _loaded(self) -> None:
        self.loading = False
        # What is here stays: looking through it for garbage would stop requests for tens of milliseconds.
        gc.freeze()
        for call in self._waiting:
            call()
        self._waiting.clear()

    def _load(self) -> "Model":
        # Imported here: ONNX Runtime takes longest, and the server answers meanwhile.
        from inference_runtime import warmup
        from inference_runtime.model import Engine, Model

        settings, started = self._host.settings, perf_counter()
        artifact = self._find()
        self.size = artifact.manifest.size
        engine = Engine(settings.device, settings.threads, spinning=True, cache=settings.engine_cache)
        if (plan := self._host.plan) is None:
            twice = not settings.memory_bytes
            processes = self._host.processes > 1 and self.size <= _COPIED_BYTES
            models, plan = warmup.load(artifact, engine, settings.max_batch, twice=twice, processes=processes)
        else:
            # Found out by another process, which has company then.
            models = [Model(artifact, replace(engine, threads=1))]
        self.codec = models[0].codec
        self.batcher = Batcher(
            self._host.loop,
            [model.infer_joined for model in models],
            plan,
            settings.limits,
            self.service.name,
            self.metrics.ran,
        )
        self.metrics.waiting = self.batcher.waiting
        self.metrics.loaded(perf_counter() - started)
        return models[0]


class Host:
    """The models by name. Methods are for the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        metrics: Metrics,
        models: Mapping[str, Find],
        repository: Path | None = None,
        plan: Plan | None = None,
        processes: int = 1,
    ) -> None:
        """`models` are loaded at once; those of `repository` by its routes too.

        With a `plan`, how to run them is not measured. So many `processes`, at most, serve them.
        """
        self.loop = loop
        self.processes = processes
        self.plan = plan
        self.settings = settings
        self.metrics = metrics
        self.repository = repository
        self.models = {name: Hosted(name, find, self) for name, find in models.items()}
        self._awaited = set(self.models)

    def start(self) -> None:
        """Begin to load."""
        for hosted in self.models.values():
            hosted.start()

    def awaited(self) -> list[Hosted]:
        """The models without which the server is not ready: those it was started with, and still has."""
        return [self.models[name] for name in self._awaited]

    def index(self, ready: bool) -> list[dict[str, str]]:
        """Every model of the repository, or only those that answer."""
        found: dict[str, dict[str, str]] = {}
        for name in sorted({*self.models, *(folders(self.repository) if self.repository else ())}):
            hosted = self.models.get(name)
            state, reason = hosted.state if hosted else ("UNAVAILABLE", "unloaded")
            version = (hosted.service.version if hosted else None) or ""
            found[name] = {"name": name, "version": version, "state": state, "reason": reason}
        return [entry for entry in found.values() if entry["state"] == "READY" or not ready]

    def load(self, name: str) -> Hosted:
        """Begin to load a model of the repository, anew if it has failed.

        Raises:
            Problem: not-found; insufficient-memory where it does not fit beside the others.
        """
        hosted = self.models.get(name)
        if hosted and (hosted.loading or hosted.ready):
            return hosted
        folder = folders(self._writable()).get(name)
        if folder is None:
            raise Problem("not-found", f"There is no model {shown(name)} in the repository")
        try:
            manifest = parse((folder / FILE_NAME).read_bytes())
        except (ArtifactError, OSError) as error:
            raise Problem("model-unavailable", f"The model {name!r} could not be loaded") from error
        size = manifest.size
        taken = sum(other.size for other in self.models.values() if other is not hosted)
        budget = self.settings.memory_bytes
        if budget and taken + size > budget:
            raise Problem(
                "insufficient-memory",
                f"The model {name!r} takes {size} bytes; {max(budget - taken, 0)} of {budget} are left",
            )
        if hosted:
            hosted.close()
        hosted = self.models[name] = Hosted(name, lambda: verify(folder), self)
        hosted.size = size
        hosted.start()
        return hosted

    def unload(self, name: str) -> None:
        """Take a model away. What it has accepted is still answered.

        Raises:
            Problem: not-found; model-unavailable while it is being loaded.
        """
        self._writable()
        hosted = self.models.get(name)
        if hosted is None:
            raise Problem("not-found", f"There is no model {shown(name)} here")
        if hosted.loading:
            raise Problem("model-unavailable", f"The model {name!r} is still loading; try again soon")
        del self.models[name]
        self._awaited.discard(name)
        hosted.close()

    def settle(self, settings: Settings) -> None:
        """Keep to other settings from now on."""
        self.settings = settings
        for hosted in self.models.values():
            if hosted.batcher:
                hosted.batcher.settle(settings.limits)

    def expire(self, now: float) -> None:
        """Answer every request that is late."""
        for hosted in self.models.values():
            if hosted.batcher:
                hosted.batcher.expire(now)

    def _writable(self) -> Path:
        if self.repository is None:
            raise Problem("not-found", "This server has one model, and no repository to load others from")
        return self.repository


def folders(repository: Path) -> dict[str, Path]:
    """The artifacts of a repository: its folders with a manifest, by their names, which are the models'."""
    return {path.parent.name: path.parent for path in sorted(repository.glob(f"*/{FILE_NAME}"))}


def found(repository: Path) -> dict[str, Any]:
    """How each artifact of a repository is found."""
    return {name: lambda folder=folder: verify(folder) for name, folder in folders(repository).items()}
