"""What a start of the Lambda function costs, phase by phase, and what its layer adds to a warm request.

`python -m benchmarks.cold_start` runs the function's own zip in a Python of its own, as Lambda does, with a
web server in place of S3. Nothing is compiled beforehand, as in a folder that Lambda mounts read-only. A
real start also has the time that Lambda takes to make the environment, S3's latency, and a CPU that is
`cpu.memory_mb` of one.
"""

import argparse
import compileall
import functools
import http.server
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Any

from inferctl.environment import ROOT
from inference_runtime.manifest import verify
from models import build as builder
from stacks.bundling import lambda_zip

WARM_REQUESTS = 300

#: Runs in the function's Python, with the task's folder, an event, and the number of warm requests.
_CHILD = """
import json, sys, time
clock = time.perf_counter
spent, begun = {}, clock()
task, event, warm = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
sys.path.insert(0, task)

def timed(name, function):
    def call(*args, **kwargs):
        started = clock()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0) + clock() - started
    return call

def imported(label, *names):
    started = clock()
    for name in names:
        __import__(name)
    spent[label] = clock() - started

imported("import numpy, orjson", "numpy", "orjson")
imported("import the runtime", *(f"inference_runtime.{name}" for name in ("artifacts", "model", "service")))
import inference_runtime.artifacts as artifacts
import inference_runtime.model as model
artifacts.fetch = timed("fetch", artifacts.fetch)
# ONNX Runtime is imported when the first graph is loaded.
model.Model.__init__ = timed("load", model.Model.__init__)
started = clock()
import handler
spent["the rest of the handler"] = clock() - started - spent["fetch"] - spent["load"]
spent["first answer"] = -clock()
answer = handler.handler(event, None)
spent["first answer"] += clock()
assert answer["statusCode"] == 200, answer
total = clock() - begun
infer = model.Model.infer
inside = []
def watched(self, *args):
    started = clock()
    try:
        return infer(self, *args)
    finally:
        inside.append(clock() - started)
model.Model.infer = watched
whole = []
for _ in range(warm):
    started = clock()
    handler.handler(event, None)
    whole.append(clock() - started)
middle = lambda values: sorted(values)[len(values) // 2]
print(json.dumps({"phases": spent, "total": total, "warm": middle(whole), "model": middle(inside)}))
"""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_start", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--models", nargs="+", default=["file-type", "wine-cultivar", "pii-redaction"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="as if bytecode were in the zip")
    options = parser.parse_args()
    if builder.main(options.models) != 0:
        return 1
    with tempfile.TemporaryDirectory() as folder, _s3() as endpoint:
        task = Path(folder) / "task"
        with zipfile.ZipFile(lambda_zip("inference", python="host", architecture="host")) as archive:
            archive.extractall(task)
        if options.compiled:
            compileall.compile_dir(task, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
        # The models take turns, so that a busy moment does not fall on one of them alone.
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.models}
        for number in range(options.rounds):
            for name, found in runs.items():
                found.append(_start(task, name, endpoint, Path(folder) / f"cache-{name}-{number}"))
    print(_table(runs))
    return 0


def _start(task: Path, name: str, endpoint: str, cache: Path) -> dict[str, Any]:
    artifact = verify(builder.BUILD / "artifacts" / name)
    event = {
        "httpMethod": "POST",
        "path": f"/v2/models/{name}/infer",
        "headers": {"Content-Type": "application/json"},
        "body": (ROOT / "models" / name / "sample.json").read_text(),
        "isBase64Encoded": False,
        "requestContext": {"requestId": "cold-start"},
    }
    environment = {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint, "ARTIFACT_CACHE": str(cache),
        "MODEL_NAME": name, "MODEL_SHA256": artifact.manifest.sha256,
        "MODEL_URI": f"s3://artifacts/{name}/",
        "METRICS_NAMESPACE": "Inference",
    }  # fmt: skip
    isolated = [sys._base_executable, "-I", "-S", "-B", "-c", _CHILD]  # type: ignore[attr-defined]
    started = time.perf_counter()
    done = subprocess.run(
        [*isolated, str(task), json.dumps(event), str(WARM_REQUESTS)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    whole = time.perf_counter() - started
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"whole": whole}


@contextmanager
def _s3() -> Iterator[str]:
    """As much of S3 as a download needs: a web server over `<bucket>/<key>`, the bucket being `artifacts`."""
    handler = functools.partial(_Quiet, directory=str(builder.BUILD))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def _table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: medians in milliseconds."""
    names = list(runs)
    phases = list(next(iter(runs.values()))[0]["phases"])

    def row(label: str, values: list[float], digits: int = 0) -> str:
        return f"| {label} | " + " | ".join(f"{1000 * value:,.{digits}f}" for value in values) + " |"

    def medians(pick: Any) -> list[float]:
        return [statistics.median(pick(run) for run in runs[name]) for name in names]

    lines = [f"| Milliseconds, median of {len(runs[names[0]])} | " + " | ".join(names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    lines += [row(phase, medians(lambda run, phase=phase: run["phases"][phase])) for phase in phases]
    lines.append(row("**start to first answer**", medians(lambda run: run["total"])))
    lines.append(row("a warm request", medians(lambda run: run["warm"]), 2))
    lines.append(row("of it, the model", medians(lambda run: run["model"]), 2))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
