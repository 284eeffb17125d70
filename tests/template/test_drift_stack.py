"""Drift: who may read payloads, who may tell others, when it runs, and that tables find what is written."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from judgement import Finding

from app import ROOT
from catalog.loader import load_catalog
from inference_runtime.capture import Exchange, record
from inference_runtime.manifest import Manifest, TensorSpec
from inference_runtime.protocol import Documents, InferRequest
from tests.assembly import Assembly, Resource

MODELS = [model for model in load_catalog(ROOT / "models") if model.watched]


def stack(assembly: Assembly) -> str:
    return f"inference-{assembly.environment}-drift"


def functions(assembly: Assembly) -> dict[str, Resource]:
    found = [each for each in assembly.resources("AWS::Lambda::Function") if each.stack == stack(assembly)]
    return {each.properties["FunctionName"].rpartition(f"{assembly.environment}-")[2]: each for each in found}


def actions(assembly: Assembly, function: Resource) -> set[str]:
    """What the function's role may do, by service and action."""
    role = function.properties["Role"]["Fn::GetAtt"][0]
    found: set[str] = set()
    for policy in assembly.resources("AWS::IAM::Policy"):
        if policy.stack == stack(assembly) and {"Ref": role} in policy.properties["Roles"]:
            for statement in policy.properties["PolicyDocument"]["Statement"]:
                listed = statement["Action"]
                found |= {listed} if isinstance(listed, str) else set(listed)
    return found


def test_what_reads_payloads_is_in_the_private_network_and_calls_s3_alone(assembly: Assembly) -> None:
    compare = functions(assembly)["drift"]
    assert compare.properties["VpcConfig"]["SubnetIds"]
    assert {action.partition(":")[0] for action in actions(assembly, compare)} <= {
        "s3", "kms", "logs", "xray", "ec2",
    }  # fmt: skip


def test_what_tells_others_can_read_no_payload(assembly: Assembly) -> None:
    watch = functions(assembly)["drift-watch"]
    may = actions(assembly, watch)
    assert {"ssm:GetParameter", "lambda:InvokeFunction", "events:PutEvents"} <= may
    assert not [action for action in may if action.startswith("s3:")]


def test_each_model_that_captures_has_a_rule_that_says_how(assembly: Assembly) -> None:
    rules = [each for each in assembly.resources("AWS::Events::Rule") if each.stack == stack(assembly)]
    messages = [json.loads(each.properties["Targets"][0]["Input"]) for each in rules]
    assert {each["model"] for each in messages} == {model.name for model in MODELS}
    assert {each.properties["ScheduleExpression"] for each in rules} == {"rate(1 day)"}
    for message in messages:
        assert message["endpoint"] == f"inference-{assembly.environment}-{message['model']}"
        assert message["settings"]["false_alarm_percent"] == 1
    assert all("DeadLetterConfig" in each.properties["Targets"][0] for each in rules)


def test_each_model_that_captures_has_an_alarm_that_keeps_its_state_between_comparisons(
    assembly: Assembly,
) -> None:
    alarms = {each.properties["AlarmName"]: each for each in assembly.resources("AWS::CloudWatch::Alarm")}
    prefix = f"inference-{assembly.environment}-model"
    found = {name for name in alarms if name.endswith("-drift")}
    assert found == {f"{prefix}-{model.name}-{model.home}-drift" for model in MODELS}
    for name in found:
        properties = alarms[name].properties
        assert (properties["MetricName"], properties["Threshold"]) == ("Drifted", 1)
        assert properties["TreatMissingData"] == "ignore"


def tables(assembly: Assembly) -> dict[str, dict[str, Any]]:
    found = (each.properties["TableInput"] for each in assembly.resources("AWS::Glue::Table"))
    return {each["Name"]: each for each in found}


def _names(hive: str, before: str = "") -> Iterator[str]:
    """The paths of a type's members."""
    inner = hive.removeprefix("struct<").removesuffix(">")
    depth, start = 0, 0
    parts = []
    for place, letter in enumerate(inner + ","):
        depth += {"<": 1, ">": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(inner[start:place])
            start = place + 1
    for part in parts:
        name, _, kind = part.partition(":")
        if kind.startswith("struct<"):
            yield from _names(kind, f"{before}{name}.")
        else:
            yield before + name


def _paths(document: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name.lower()}.")
        else:
            yield before + name.lower()


def test_the_captures_table_has_exactly_the_members_of_a_capture(assembly: Assembly) -> None:
    columns = tables(assembly)["captures"]["StorageDescriptor"]["Columns"]
    declared = ",".join(f"{each['Name']}:{each['Type']}" for each in columns)
    written = record(Exchange("id", b"{}", b"{}", datetime(2026, 1, 1, tzinfo=UTC)))
    assert set(_names(f"struct<{declared}>")) == set(_paths(written))


def test_the_drift_table_has_the_members_of_a_finding(assembly: Assembly) -> None:
    columns = {each["Name"] for each in tables(assembly)["drift"]["StorageDescriptor"]["Columns"]}
    assert columns == {*Finding.__dataclass_fields__, "version", "sha256", "since", "until"}


def test_partitions_are_the_folders_that_captures_are_written_to(assembly: Assembly) -> None:
    table = tables(assembly)["captures"]
    parameters = table["Parameters"]
    template = json.dumps(parameters["storage.location.template"])
    assert "captures/${endpoint}/AllTraffic/${hour}/" in template
    captured = {f"inference-{assembly.environment}-{model.name}" for model in MODELS}
    assert set(parameters["projection.endpoint.values"].split(",")) == captured
    assert parameters["projection.hour.format"] == "yyyy/MM/dd/HH"
    assert [key["Name"] for key in table["PartitionKeys"]] == ["endpoint", "hour"]


def test_the_outputs_table_has_the_members_of_a_batchs_answers_of_any_model(assembly: Assembly) -> None:
    table = tables(assembly)["outputs"]
    columns = {each["Name"] for each in table["StorageDescriptor"]["Columns"]}
    signature = (TensorSpec("y", "FP32", (-1,)),)
    documents = Documents(Manifest("0" * 64, "m", "1", "", "m", None, {}, signature, signature))
    arrays = {"y": np.zeros(1, np.float32)}
    assert columns == set(json.loads(documents.write(InferRequest(arrays, ("y",), "id"), arrays)))
    parameters = table["Parameters"]
    assert "outputs/${model}/${day}/" in json.dumps(parameters["storage.location.template"])
    assert parameters["projection.day.format"] == "yyyy/MM/dd"
    everything = {model.name for model in load_catalog(ROOT / "models")}
    assert set(parameters["projection.model.values"].split(",")) == everything


def test_queries_are_bounded_and_their_answers_encrypted_and_gone_after_a_week(assembly: Assembly) -> None:
    group = assembly.one("AWS::Athena::WorkGroup").properties["WorkGroupConfiguration"]
    assert group["EnforceWorkGroupConfiguration"] is True
    assert group["BytesScannedCutoffPerQuery"] <= 100 * 1024**3
    result = group["ResultConfiguration"]
    assert result["EncryptionConfiguration"]["EncryptionOption"] == "SSE_KMS"
    assert "/athena/" in json.dumps(result["OutputLocation"])
    [rule] = [
        rule
        for bucket in assembly.resources("AWS::S3::Bucket")
        for rule in bucket.properties.get("LifecycleConfiguration", {}).get("Rules", [])
        if rule.get("Prefix") == "athena/"
    ]
    assert rule["ExpirationInDays"] == 7
