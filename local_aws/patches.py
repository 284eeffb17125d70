"""The places where MiniStack itself is changed, each with its reason. Everything else uses its registries."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from ministack import app
from ministack.core import iam_evaluator, lambda_runtime
from ministack.services import cloudformation, ec2, lambda_svc, s3
from ministack.services.cloudformation import custom_resource, engine, provisioners

from local_aws.state import Home
from local_aws.wire import Json, Response

DEPLOY_WAIT = 20.0  # seconds
DEPLOY_POLL = 0.02  # seconds
WORKER_POLL = 0.005  # seconds

S3_PREFIX_LIST = "pl-63a5400a"

# What AWS's Python runtimes bring besides the interpreter: boto3 and all it needs.
LAMBDA_PACKAGES = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")

# What the launcher tells the server, and no function has any business knowing.
SERVER_SETTINGS = (
    "AUTH",
    "BIND_HOST",
    "CLOUDTRAIL_RECORDING",
    "DOCKER_HOST",
    "GATEWAY_PORT",
    "IOT_MTLS_ENABLED",
    "LOCAL_AWS_HOME",
    "LOCAL_AWS_LISTENER",
    "MINISTACK_ACCOUNT_ID",
    "MINISTACK_REGION",
    "MINISTACK_SSL_CERT",
    "MINISTACK_SSL_KEY",
    "SFTP_ENABLED",
    "STATE_DIR",
    "USE_SSL",
)


def install(home: Home, functions_proxy: str) -> None:
    """Apply every patch. `functions_proxy` is how functions reach AWS by its public names."""
    _verify_root()
    _admit_web_identities()
    _isolate_lambda_workers(home, functions_proxy)
    _limit_lambda_workers()
    _answer_when_deployed()
    _fail_custom_resources_at_once()
    _name_unknown_types()
    _lock_buckets()
    _keep_prefix_lists()
    _name_prefix_lists_as_aws_does()


def _verify_root() -> None:
    """Root is one key with one secret, and its signature is checked like everyone's.

    MiniStack takes any twelve digits, `test`, or no key at all for root and does not look at the signature:
    every program on the machine could act as the account.
    """
    configured = os.environ["AWS_ACCESS_KEY_ID"]

    def is_root_access_key(access_key_id: str) -> bool:
        return access_key_id == configured

    # What MiniStack asks to leave a request unverified.
    def needs_no_verification(access_key_id: str) -> bool:
        return False

    replace_everywhere(iam_evaluator.is_root_access_key, is_root_access_key)
    replace_everywhere(iam_evaluator._is_root_key, needs_no_verification)


def _admit_web_identities() -> None:
    """AssumeRoleWithWebIdentity needs no signature: its token says who asks, and STS asks the role's trust.

    MiniStack serves it unsigned by treating a caller without a key as root, which `_verify_root` has ended.
    """
    known = iam_evaluator.enforce

    def enforce(access_key_id: str, iam_action: str, *arguments: Any, **options: Any) -> Any:
        if iam_action == "sts:AssumeRoleWithWebIdentity" and not access_key_id:
            return None
        return known(access_key_id, iam_action, *arguments, **options)

    replace_everywhere(known, enforce)


def _isolate_lambda_workers(home: Home, proxy: str) -> None:
    """A Lambda worker sees its own zip, boto3 and the standard library.

    MiniStack starts workers with the server's own interpreter, where a package that a zip lacks would be
    found in this project's environment: the function would work here and fail on AWS.
    """
    shutil.rmtree(home.lambda_runtime, ignore_errors=True)
    packages = home.lambda_runtime / "packages"
    packages.mkdir(parents=True)
    for name in LAMBDA_PACKAGES:
        for source in _installed(name):
            (packages / source.name).symlink_to(source)
    python = home.lambda_runtime / "python"
    interpreter = getattr(sys, "_base_executable", sys.executable)
    # -S: without site-packages. The server's settings stay out of the function's environment, and its
    # temporary folder is its own, as /tmp is on Lambda.
    python.write_text(
        "#!/bin/sh\n"
        'TMPDIR="$(dirname "$1")/tmp"; mkdir -p "$TMPDIR"; export TMPDIR\n'
        f"unset {' '.join(SERVER_SETTINGS)}\n"
        f"export PYTHONPATH={_quoted(packages)}\n"
        f"export https_proxy={proxy} no_proxy=127.0.0.1,localhost\n"
        f'exec {_quoted(interpreter)} -S "$@"\n'
    )
    python.chmod(0o755)
    known = lambda_runtime._detect_runtime_binary

    def detect_runtime_binary(runtime: str) -> tuple[str, str]:
        binary, script = known(runtime)
        return (str(python) if runtime.startswith("python") else binary), script

    lambda_runtime._detect_runtime_binary = detect_runtime_binary


def _installed(name: str) -> set[Path]:
    """The top-level files and folders of an installed distribution."""
    distribution = importlib.metadata.distribution(name)
    tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
    return {Path(str(distribution.locate_file(top))) for top in tops}


def _quoted(path: Path | str) -> str:
    escaped = str(path).replace("'", "'\\''")
    return f"'{escaped}'"


def _limit_lambda_workers() -> None:
    """A function has no more processes than this machine has cores; a burst waits for them.

    AWS starts an environment per concurrent request. Here a burst of sixteen would start sixteen interpreters
    on two cores, each with its own copy of the model, and none would answer in time.
    """
    known = lambda_runtime.acquire_worker
    most = max(2, os.cpu_count() or 1)

    def acquire_worker(func_name: str, config: Json, code_zip: bytes, qualifier: str = "$LATEST") -> Any:
        deadline = time.monotonic() + float(config.get("Timeout", 3))
        while True:
            worker, reason = known(func_name, config, code_zip, qualifier=qualifier, max_concurrency=most)
            if worker is not None or time.monotonic() >= deadline:
                return worker, reason
            time.sleep(WORKER_POLL)

    replace_everywhere(known, acquire_worker)


def _answer_when_deployed() -> None:
    """Stack operations answer when they are done, if that takes no more than DEPLOY_WAIT seconds.

    The CDK CLI looks after five seconds whether a stack is done that was not done at first: with a dozen
    stacks that are made in milliseconds, it would sleep for a minute. AWS may answer as late; clients cannot
    tell.
    """
    known = app.SERVICE_HANDLERS["cloudformation"]
    operations = ("CreateStack", "UpdateStack", "DeleteStack", "ExecuteChangeSet", "CreateChangeSet")

    async def handle(method: str, path: str, headers: Json, body: bytes, query: Json) -> Response:
        answer: Response = await known(method, path, headers, body, query)
        parameters = {**parse_qs(body.decode("utf-8", "replace")), **query}
        stack = parameters.get("StackName", [""])[0]
        name = stack.split("/")[1] if stack.startswith("arn:") else stack
        if answer[0] == 200 and parameters.get("Action", [""])[0] in operations:
            deadline = time.monotonic() + DEPLOY_WAIT
            while _in_progress(name) and time.monotonic() < deadline:
                await asyncio.sleep(DEPLOY_POLL)
        return answer

    app.SERVICE_HANDLERS["cloudformation"] = handle


def _in_progress(name: str) -> bool:
    stack = cloudformation._stacks.get(name) or {}
    status = str(stack.get("StackStatus", ""))
    changing = any(
        change_set.get("StackName") == name
        and change_set.get("Status", "").endswith(("_PENDING", "_IN_PROGRESS"))
        for change_set in cloudformation._change_sets.values()
    )
    return changing or (status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS")


def _fail_custom_resources_at_once() -> None:
    """A custom resource whose function raises fails now, with the function's error, instead of in an hour.

    CloudFormation waits for the ResponseURL until ServiceTimeout, since Lambda may still retry; here nothing
    does.
    """
    known = lambda_svc._execute_function_with_config_scope

    def execute(function: Json, event: Any) -> Any:
        result = known(function, event)
        if (
            isinstance(event, dict)
            and "ResponseURL" in event
            and isinstance(result, dict)
            and result.get("error")
        ):
            token = event["ResponseURL"].rpartition("/")[2]
            body = result.get("body")
            said = body.get("errorMessage") if isinstance(body, dict) else body
            name = (function.get("config") or function).get("FunctionName", "")
            reason = f"The function {name} failed: {said}"
            custom_resource.deliver_response(token, {"Status": "FAILED", "Reason": reason})
        return result

    lambda_svc._execute_function_with_config_scope = execute


def _name_unknown_types() -> None:
    """A template with a type that nothing here makes is refused by type and by logical id.

    MiniStack refuses it too, but names only the type.
    """
    known = engine.validate_template_support

    def validate(template: Json, *arguments: Any, **options: Any) -> Any:
        try:
            return known(template, *arguments, **options)
        except ValueError as error:
            message = str(error)
            if "Unrecognized resource types" not in message:
                raise
            listed = message.partition("[")[2].rstrip("]").split(", ")
            where = [
                f"{logical_id} ({resource['Type']})"
                for logical_id, resource in (template.get("Resources") or {}).items()
                if isinstance(resource, dict) and resource.get("Type") in listed
            ]
            raise ValueError(
                f"{message}: {', '.join(where)}. The embedded AWS does not make these: docs/embedded-aws.md."
            ) from error

    replace_everywhere(known, validate)


def _lock_buckets() -> None:
    """A bucket's ObjectLockConfiguration counts: MiniStack locks objects, and leaves this property out."""

    def xml(configuration: Json) -> bytes:
        retention = (configuration.get("Rule") or {}).get("DefaultRetention") or {}
        settings = "".join(f"<{name}>{value}</{name}>" for name, value in retention.items())
        rule = f"<Rule><DefaultRetention>{settings}</DefaultRetention></Rule>" if settings else ""
        enabled = "<ObjectLockEnabled>Enabled</ObjectLockEnabled>"
        return f"<ObjectLockConfiguration>{enabled}{rule}</ObjectLockConfiguration>".encode()

    def keep(bucket: str) -> None:
        """S3 never takes Object Lock off a bucket."""

    locks = ("ObjectLockConfiguration", xml, s3._put_object_lock_configuration, keep)
    provisioners._S3_BUCKET_CONFIGURATIONS += (locks,)


def _keep_prefix_lists() -> None:
    """A security group's rule keeps the prefix lists that it names: MiniStack reads none from a request."""
    known = ec2._parse_ip_permissions

    def parse(parameters: Json, prefix: str) -> list[Json]:
        rules: list[Json] = known(parameters, prefix)
        for number, rule in enumerate(rules, 1):
            path, index = f"{prefix}.{number}.PrefixListIds", 1
            while identifier := ec2._p(parameters, f"{path}.{index}.PrefixListId"):
                note = ec2._p(parameters, f"{path}.{index}.Description")
                entry = {"PrefixListId": identifier} | ({"Description": note} if note else {})
                rule["PrefixListIds"].append(entry)
                index += 1
        return rules

    ec2._parse_ip_permissions = parse


def _name_prefix_lists_as_aws_does() -> None:
    """S3's prefix list has the id that it has in the real us-east-1; MiniStack hashes one from its name."""
    known = ec2._aws_pl_id_from_name

    def identifier(name: str) -> str:
        return S3_PREFIX_LIST if name == "com.amazonaws.us-east-1.s3" else str(known(name))

    ec2._aws_pl_id_from_name = identifier


def replace_everywhere(known: Any, ours: Any) -> None:
    """Replace a function in every MiniStack module that imported it by name."""
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("ministack."):
            for name, value in list(vars(module).items()):
                if value is known:
                    setattr(module, name, ours)
