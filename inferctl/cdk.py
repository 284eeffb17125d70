"""The CDK command line: how it is called, what its progress output means, what an assembly contains."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from inferctl.environment import ROOT
from inferctl.errors import InferctlError

Update = Callable[[str, str, str], None]
"""Called with a stack's name, its state (see `inferctl.output.Board`) and a detail."""

# Never ask the network whether there is news, and never say that we ran.
_QUIET = {
    "CDK_DISABLE_CLI_TELEMETRY": "true",
    "CDK_DISABLE_VERSION_CHECK": "1",
    "NO_COLOR": "1",
    "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
}


def command(*arguments: str) -> list[str]:
    """A call of the pinned CDK CLI, with this Python environment's Node. Raises InferctlError without it."""
    script = ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk"
    if not script.is_file():
        raise InferctlError("The CDK command line is not installed: run `make setup`.")
    return [str(Path(sys.executable).parent / "node"), str(script), "--no-notices", *arguments]


def synth(environment: str, output: Path) -> list[str]:
    """The call that writes an environment's assembly to `output`, from the repository's root."""
    return command("synth", "--quiet", "--context", f"env={environment}", "--output", str(output))


def bootstrap(account: str, region: str) -> list[str]:
    """The call that prepares an account; from a folder without cdk.json, so that it synthesizes nothing."""
    return command("bootstrap", f"aws://{account}/{region}")


def deploy(assembly: Path, *, concurrency: int) -> list[str]:
    """The call that deploys every stack of an assembly, several at a time where dependencies allow."""
    return command(
        "deploy", "--all", "--app", str(assembly), "--require-approval", "never", "--progress", "events",
        "--method", "direct", "--concurrency", str(concurrency),
    )  # fmt: skip


def variables(aws: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a CDK call: our Python and Node first.

    With `aws` (the embedded AWS's), the user's own AWS settings and proxies are left out: neither may lead a
    local deployment elsewhere.
    """
    inherited = dict(os.environ)
    if aws is not None:
        inherited = {
            name: value
            for name, value in inherited.items()
            if not name.upper().startswith("AWS_") and not name.upper().endswith("_PROXY")
        } | {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, **aws}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return inherited | _QUIET | {"PATH": path}


def is_noise(line: str) -> bool:
    """Whether a line of the output is one of the hundreds of events and uploads that went well."""
    event = Progress.EVENT.match(line)
    return (event is not None and "FAILED" not in event["status"]) or Progress.ASSET.match(line) is not None


class Progress:
    """Reads the output of `cdk deploy` line by line, and tells `update` what it says of each stack."""

    _DEPLOYING = re.compile(r"^(?P<stack>\S+): deploying\.\.\. \[\d+/\d+\]")
    EVENT = re.compile(
        r"^(?P<stack>\S+) \|\s*(?P<count>\d+)(?:/\d+)? \|[^|]*\| (?P<status>\w+)\s*\| (?P<type>\S+)"
    )
    _DONE = re.compile(r"^\s*✅\s+(?P<stack>\S+)(?P<unchanged> \(no changes\))?$")
    _FAILED = re.compile(r"^\s*❌\s+(?P<stack>[^\s:]+)")
    ASSET = re.compile(r"^(?P<stack>\S+): (?:start|success): (?P<what>Building|Publishing) ")

    def __init__(self, stacks: list[str], update: Update) -> None:
        self._states = dict.fromkeys(stacks, "waiting")
        self._update = update
        for stack in stacks:
            update(stack, "waiting", "")

    def line(self, text: str) -> None:
        """Take the next line of the output; lines that mean nothing here are ignored."""
        if match := self._DONE.match(text):
            self._tell(match["stack"], "done", "unchanged" if match["unchanged"] else "")
        elif match := self._FAILED.match(text):
            self._tell(match["stack"], "failed", "")
        elif match := self._DEPLOYING.match(text):
            self._tell(match["stack"], "working", "")
        elif match := self.EVENT.match(text):
            self._tell(match["stack"], "working", f"{match['count']} done, {match['status']} {match['type']}")
        elif match := self.ASSET.match(text):
            self._tell(
                match["stack"], self._states.get(match["stack"], ""), match["what"].lower() + " assets"
            )

    def _tell(self, stack: str, state: str, detail: str) -> None:
        # Events of a stack may be printed after its last word.
        if stack in self._states and self._states[stack] not in ("done", "failed"):
            self._states[stack] = state
            self._update(stack, state, detail)


def stacks(assembly: Path) -> list[str]:
    """Names of the stacks in an assembly, in the app's order. Raises InferctlError if it is not one."""
    manifest = assembly / "manifest.json"
    try:
        artifacts = json.loads(manifest.read_text(encoding="utf-8"))["artifacts"]
    except (OSError, ValueError, KeyError) as error:
        raise InferctlError(f"{manifest} is not the manifest of a CDK assembly: {error!r}.") from error
    return [
        artifact.get("properties", {}).get("stackName", name)
        for name, artifact in artifacts.items()
        if artifact["type"] == "aws:cloudformation:stack"
    ]
