"""Retiring old versions: when it runs, and that it can mark artifacts but never delete or read one."""

from tests.assembly import Assembly


def test_it_runs_daily_and_at_every_release(assembly: Assembly) -> None:
    stack = f"inference-{assembly.environment}-retirement"
    rule = assembly.one("AWS::Events::Rule", stack).properties
    assert rule["ScheduleExpression"] == "rate(1 day)"
    assert rule["EventPattern"]["source"] == ["aws.ssm"]
    assert rule["EventPattern"]["detail"]["name"] == [
        {"wildcard": f"/inference/{assembly.environment}/models/*/live"}
    ]


def test_it_can_mark_artifacts_but_neither_delete_nor_read_them(assembly: Assembly) -> None:
    stack = f"inference-{assembly.environment}-retirement"
    policy = assembly.one("AWS::IAM::Policy", stack).properties["PolicyDocument"]
    actions = {
        action
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert {action for action in actions if action.startswith(("s3:", "ssm:"))} == {
        "s3:ListBucket",
        "s3:GetObjectTagging",
        "s3:PutObjectTagging",
        "s3:DeleteObjectTagging",
        "ssm:GetParameterHistory",
    }
