"""Checkov finds nothing in any environment but what is acknowledged beside its construct."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import ROOT
from tests.assembly import Assembly
from tests.conftest import ENVIRONMENTS


def test_checkov_has_no_unacknowledged_finding(synthesize: Callable[[str], Assembly], tmp_path: Path) -> None:
    templates = [
        path
        for environment in ENVIRONMENTS
        for path in sorted(synthesize(environment).folder.glob("*.template.json"))
    ]
    # In the same run, because its start is most of it: a bucket that shows that it looks.
    wrong = tmp_path / "wrong.template.json"
    wrong.write_text(json.dumps({"Resources": {"Open": {"Type": "AWS::S3::Bucket"}}}))

    report = _checkov(*templates, wrong)

    found = [
        f"{check['check_id']} {check['check_name']}: {Path(check['file_path']).name} {check['resource']}"
        for check in report["results"]["failed_checks"]
    ]
    assert not [finding for finding in found if wrong.name not in finding], "\n".join(found)
    assert [finding for finding in found if finding.startswith("CKV_AWS_53 ")]
    assert report["summary"]["parsing_errors"] == 0, report["results"]["parsing_errors"]
    resources = (json.loads(path.read_text()).get("Resources", {}) for path in (*templates, wrong))
    assert report["summary"]["resource_count"] == sum(map(len, resources))


def test_checkov_acknowledgements_say_why(prod: Assembly) -> None:
    skips = [
        skip
        for r in prod.resources()
        for skip in r.raw.get("Metadata", {}).get("checkov", {}).get("skip", [])
    ]
    assert skips
    for skip in skips:
        assert len(skip["comment"]) > 20, skip["id"]


def _checkov(*templates: Path) -> dict[str, Any]:
    """Checkov's report on the templates."""
    # `make test` has installed it; a bare pytest installs it now.
    subprocess.run([shutil.which("make") or "make", "--silent", "checkov"], cwd=ROOT, check=True)
    command: list[str | Path] = [ROOT / "build/checkov/bin/checkov", "--framework", "cloudformation"]
    command += ["--skip-download", "--quiet", "--compact", "--output", "json"]
    for template in templates:
        command += ["--file", template]
    # What it does not carry with it, it does not have: nothing is asked of anybody.
    nobody = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | nobody)
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report
