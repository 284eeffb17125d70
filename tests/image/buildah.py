"""The image, built and run without Docker, daemon or registry: by buildah, on a base of Debian's packages.

buildah runs containers by chroot, on the network of this machine, so the server gets the loopback interface.
Everything is kept below build/image; deleting that folder starts over.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from inference_runtime.manifest import Artifact
from tests.unit.containers.process import ROOT, Server

HOME = ROOT / "build" / "image"
#: Debian's release whose Python is the one that the Dockerfile's own base has, and that with headers.
SUITE = "trixie"
PACKAGES = "python3,python3-dev,python3-pip,python-is-python3,ca-certificates"
DOCKERFILE = "inference_containers/onnx/Dockerfile"


@cache
def _command() -> list[str]:
    """buildah, with a storage of its own: of layers where the kernel allows, else of whole copies."""
    for driver in ("overlay", "vfs"):
        folders = ["--root", str(HOME / driver), "--runroot", str(HOME / "run" / driver)]
        command = ["buildah", *folders, "--storage-driver", driver]
        if subprocess.run([*command, "info"], capture_output=True, check=False).returncode == 0:
            return command
    raise RuntimeError("buildah can store nothing: try `buildah --storage-driver vfs info`")


def built(device: str) -> str:
    """The image of `device`, `cpu` or `cuda`, built from the Dockerfile as it is now. Returns its name."""
    missing = [tool for tool in ("buildah", "debootstrap") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        raise RuntimeError(
            "Building an image needs root, and on Debian: "
            "apt-get install --no-install-recommends buildah debootstrap"
        )
    name = f"inference-onnx-{device}"
    arguments = [f"BASE_IMAGE={_base()}", f"DEVICE={device}"]
    options = [option for argument in arguments for option in ("--build-arg", argument)]
    # What pip on this machine is told by its environment, an index or a certificate, holds for the build too.
    pip = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    options += [option for key, value in pip.items() for option in ("--env", f"{key}={value}")]
    _buildah("build", "--isolation", "chroot", "--layers", *options, "--file", DOCKERFILE, "--tag", name, ".")
    return name


def output(image: str, *command: str) -> str:
    """What a command writes that runs in a container of `image`."""
    container = _buildah("from", image)
    try:
        return _buildah("run", "--isolation", "chroot", container, "--", *command)
    finally:
        _buildah("rm", container)


@contextmanager
def running(image: str, artifact: Artifact, log: Path, **environment: str) -> Iterator[Server]:
    """A container of `image`, as SageMaker starts it: `serve`, with the model mounted read-only."""
    container = _buildah("from", image)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    manifest = artifact.manifest
    settings = {
        "BIND_HOST": "127.0.0.1",
        "SAGEMAKER_BIND_TO_PORT": str(port),
        "MODEL_NAME": manifest.name,
        "MODEL_SHA256": manifest.sha256,
    } | environment
    command = [*_command(), "run", "--isolation", "chroot", "--volume", f"{artifact.folder}:/opt/ml/model:ro"]
    command += [option for key, value in settings.items() for option in ("--env", f"{key}={value}")]
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, container, "--", "serve"], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT
            )
        try:
            yield Server(process, port, log)
        finally:
            if process.poll() is None:
                terminate(process.pid)
            process.wait(timeout=60)
    finally:
        _buildah("rm", container)


def terminate(pid: int) -> None:
    """Send SIGTERM to what a container runs: buildah, which is `pid`, and its helpers do not pass it on."""
    if Path(f"/proc/{pid}/comm").read_text().startswith("python"):
        os.kill(pid, signal.SIGTERM)  # it ends its own children
        return
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            terminate(int(child))


def _base() -> str:
    """The base image, made when it is not there."""
    name = f"localhost/python-dev-{SUITE}"
    if name not in _buildah("images", "--format", "{{.Name}}").split():
        folder = HOME / "base"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        debootstrap = [shutil.which("debootstrap") or "debootstrap", "--variant=minbase"]
        subprocess.run([*debootstrap, f"--include={PACKAGES}", SUITE, str(folder)], check=True)
        # It trusts what this machine trusts, a company's own certificate authority for one.
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder / "etc/ssl/certs/ca-certificates.crt")
        container = _buildah("from", "scratch")
        _buildah("copy", "--quiet", container, str(folder), "/")
        _buildah("commit", "--rm", "--quiet", container, name)
        shutil.rmtree(folder)
    return name


def _buildah(*arguments: str) -> str:
    done = subprocess.run([*_command(), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"buildah {arguments[0]} failed: see above")
    return done.stdout.strip()
