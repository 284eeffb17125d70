"""The synthetic client: serves as proof while all is well, and rings, with the platform's alarm, when not."""

import json
from typing import Any

from tests.integration.local_aws.embedded import until
from tests.integration.platform.conftest import Platform
from tests.integration.platform.rights import without_right_to_call


def run_probe(platform: Platform) -> dict[str, Any]:
    """What the probe's function answers, started as its schedule would."""
    functions = platform.aws("lambda")
    names = [
        function["FunctionName"]
        for page in functions.get_paginator("list_functions").paginate()
        for function in page["Functions"]
    ]
    [name] = [name for name in names if name.startswith("inference-local-health-Probe")]
    answer = functions.invoke(FunctionName=name, Payload=b"{}")
    result: dict[str, Any] = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, result
    return result


def rings(platform: Platform, name: str) -> bool:
    found = platform.aws("cloudwatch").describe_alarms(
        AlarmNames=[f"inference-local-{name}"], AlarmTypes=["MetricAlarm", "CompositeAlarm"]
    )
    [alarm] = [*found["MetricAlarms"], *found["CompositeAlarms"]]
    return bool(alarm["StateValue"] == "ALARM")


def steps(platform: Platform) -> dict[str, str]:
    """The reason of each step's last failure, empty where it went well."""
    events = platform.aws("logs").filter_log_events(logGroupName="/inference/local/probe")["events"]
    said = [json.loads(event["message"]) for event in events if '"message": "probe"' in event["message"]]
    return {line["step"]: line["reason"] for line in said}


def test_the_probe_is_served_as_a_client_and_rings_when_it_is_not(platform: Platform) -> None:
    assert run_probe(platform) == {"failures": 0}, steps(platform)
    # Log lines arrive a little after the answer.
    until(lambda: steps(platform) == dict.fromkeys(("token", "ready", "file-type", "text-embedding"), ""))
    # The platform's alarm may ring for what other tests have broken; the probe's rings for the probe alone.
    until(lambda: not rings(platform, "probe-failures"))

    with without_right_to_call(platform, "InvokeCpuModels"):
        assert run_probe(platform) == {"failures": 1}
        until(lambda: steps(platform)["file-type"].startswith("status 500, request "))
        until(lambda: rings(platform, "probe-failures") and rings(platform, "platform"))
    assert run_probe(platform) == {"failures": 0}, steps(platform)
