"""An environment's templates, from wherever they are kept, in one form: two that deploy the same are equal.

Baselines are templates in that form, committed in `tests/policy/baselines/<env>/`. So what a commit deploys
can be read from git, without synthesizing that commit.
"""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inferctl.environment import ROOT, Aws, aws_errors
from inferctl.errors import InputError
from inferctl.stacks import deployed

Template = dict[str, Any]
Templates = dict[str, Template]
"""Stack name -> its template."""

BASELINES = ROOT / "tests" / "policy" / "baselines"

LINE = 110

# Hashes of assets, of artifacts, and those in the logical ids of versions and deployments: new bytes to
# serve, the same resources.
_HASH = re.compile(r"(?:(?<![0-9a-f])|(?<=[0-9A-F]{8}))[0-9a-f]{32}(?:[0-9a-f]{32})?(?![0-9a-f])")


def of_assembly(folder: Path) -> Templates:
    """The templates that `cdk synth` wrote to a folder, or those of a baseline's. Raises InputError."""
    files = sorted(folder.glob("*.template.json")) or sorted(folder.glob("*.json"))
    found = {}
    for file in files:
        template = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(template, dict) and "Resources" in template:
            found[file.name.removesuffix(".json").removesuffix(".template")] = normalized(template)
    if not found:
        raise InputError(f"{folder} holds no CloudFormation template.")
    return found


def of_commit(environment: str, ref: str) -> Templates:
    """The baseline of an environment as a git commit has it; none, if it has none. Raises InputError."""
    # A ref that begins with a hyphen would be read as an option.
    commit = _git("rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}").strip()
    folder = (BASELINES.relative_to(ROOT) / environment).as_posix()
    listed = _git("ls-tree", "--name-only", "-z", commit, f"{folder}/")
    return {
        Path(name).stem: json.loads(_git("show", f"{commit}:{name}")) for name in listed.split("\0") if name
    }


def of_deployed(environment: str, aws: Aws) -> Templates:
    """What is deployed now, as CloudFormation was told it."""
    client = aws.client("cloudformation")
    with aws_errors():
        return {
            stack.name: normalized(client.get_template(StackName=stack.arn)["TemplateBody"])
            for stack in deployed(aws, environment)
        }


def normalized(template: Mapping[str, Any] | str) -> Template:
    """Without what deploys nothing (metadata, the bootstrap's version), hashes by their name only."""
    text = template if isinstance(template, str) else json.dumps(template)
    plain: Template = json.loads(_HASH.sub("<hash>", text))
    kept = {key: value for key, value in plain.items() if key not in ("Metadata", "Rules")}
    kept["Resources"] = {
        logical_id: {key: value for key, value in resource.items() if key != "Metadata"}
        for logical_id, resource in plain.get("Resources", {}).items()
        if resource["Type"] != "AWS::CDK::Metadata"
    }
    kept["Parameters"] = {
        name: parameter
        for name, parameter in plain.get("Parameters", {}).items()
        if name != "BootstrapVersion"
    }
    return kept


def write_baseline(environment: str, templates: Templates, folder: Path = BASELINES) -> Path:
    """Make the templates the environment's baseline, in place of what was there."""
    into = folder / environment
    into.mkdir(parents=True, exist_ok=True)
    for file in into.glob("*.json"):
        if file.stem not in templates:
            file.unlink()
    for stack, template in templates.items():
        (into / f"{stack}.json").write_text(_pretty(template) + "\n", encoding="utf-8")
    return into


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with sorted keys, where what fits into a line is on one: short to read, and to compare."""
    line = json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(indent) + len(line) <= LINE or not isinstance(value, dict | list):
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_pretty(value[key], inner)}" for key in sorted(value)]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _pretty(item, inner) for item in value) + f"\n{indent}]"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)  # noqa: S607 (git is where PATH has it)
    if done.returncode != 0:
        raise InputError(f"git has no such commit here: {done.stderr.strip()}.")
    return done.stdout
