"""What the last comparisons of captures with their baselines found, and asking for one now.

What is looked at, and how, is what was deployed: the functions' settings and the rules' messages.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.config import Config

from catalog.names import Names
from inferctl.environment import Aws
from inferctl.errors import InferctlError, InputError

RESULTS = "drift/results/"
LONGEST_SECONDS = 900

NOT_THERE = "No model of {environment} captures anything: set capture.percent in a model.yaml, and deploy."


def latest(aws: Aws, environment: str) -> list[dict[str, Any]]:
    """The newest result of each model that has one, in the order of their names."""
    functions = aws.client("lambda")
    try:
        found = functions.get_function_configuration(FunctionName=Names(environment).resource("drift"))
    except functions.exceptions.ResourceNotFoundException:
        raise InferctlError(NOT_THERE.format(environment=environment)) from None
    bucket, s3 = found["Environment"]["Variables"]["DATA_BUCKET"], aws.client("s3")
    newest: dict[str, str] = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=RESULTS):
        for item in page.get("Contents", ()):
            # Keys hold the time from its largest part on.
            model = item["Key"].removeprefix(RESULTS).partition("/")[0]
            newest[model] = max(newest.get(model, ""), item["Key"])
    return [
        json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for _, key in sorted(newest.items())
    ]


def compare(aws: Aws, environment: str, model: str) -> dict[str, Any]:
    """Have a model compared now, as its schedule does, and wait for the answer.

    Raises:
        InputError: the model is not compared.
        InferctlError: the comparison failed.
    """
    messages = {each["model"]: each for each in _messages(aws, environment)}
    if model not in messages:
        known = ", ".join(sorted(messages)) or "none"
        raise InputError(f"The model {model!r} is not compared with a baseline; these are: {known}.")
    invoked = aws.session.client(
        "lambda",
        **aws.options,
        config=Config(read_timeout=LONGEST_SECONDS, retries={"total_max_attempts": 1}),
    ).invoke(
        FunctionName=Names(environment).resource("drift-watch"),
        Payload=json.dumps(messages[model] | {"until": datetime.now(UTC).isoformat()}).encode(),
    )
    answer: dict[str, Any] = json.loads(invoked["Payload"].read())
    if "FunctionError" in invoked:
        raise InferctlError(f"The comparison failed: {answer.get('errorMessage', answer)}")
    return answer


def _messages(aws: Aws, environment: str) -> Iterator[dict[str, Any]]:
    """What the rules of the stack `drift` say to its function."""
    events = aws.client("events")
    prefix = Names(environment).resource("drift-")
    for page in events.get_paginator("list_rules").paginate(NamePrefix=prefix):
        for rule in page["Rules"]:
            for target in events.list_targets_by_rule(Rule=rule["Name"])["Targets"]:
                if "Input" in target:
                    yield json.loads(target["Input"])
