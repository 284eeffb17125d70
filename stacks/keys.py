"""KMS keys, one per purpose, so that reading models, data, logs or the audit trail are separate rights."""

from collections.abc import Mapping

from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from constructs import Construct

from catalog.environment import Environment
from stacks.base import PlatformStack

PURPOSES = {
    "models": "model artifacts",
    "data": "inputs, outputs and captures",
    "logs": "log groups",
    "audit": "the audit trail",
    "alarms": "alarm notifications and dead letters",
    "secrets": "the credentials of applications",
}


class KeysStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(scope, "keys", environment, description="KMS keys of the inference platform")
        keys = {purpose: self._key(purpose, what) for purpose, what in PURPOSES.items()}
        for purpose, key in keys.items():
            self.share(f"keys/{purpose}", key.key_arn)

        # Services that encrypt on their own behalf are named in the key's policy; everyone else needs an
        # IAM grant.
        _let(
            keys["logs"],
            "CloudWatchLogs",
            iam.ServicePrincipal(f"logs.{self.region}.amazonaws.com"),
            "kms:Encrypt",
            "kms:Decrypt",
            "kms:ReEncrypt*",
            "kms:GenerateDataKey*",
            "kms:DescribeKey",
            conditions={
                "ArnLike": {"kms:EncryptionContext:aws:logs:arn": self.regional_arn("logs", "log-group:*")}
            },
        )
        trail = self.regional_arn("cloudtrail", f"trail/{self.names.resource('audit')}")
        _let(
            keys["audit"],
            "CloudTrail",
            iam.ServicePrincipal("cloudtrail.amazonaws.com"),
            "kms:GenerateDataKey*",
            "kms:DescribeKey",
            conditions={"StringEquals": {"aws:SourceArn": trail}},
        )
        alarms = self.account_principal("cloudwatch.amazonaws.com")
        _let(keys["alarms"], "CloudWatchAlarms", alarms, "kms:Decrypt", "kms:GenerateDataKey*")
        events = self.account_principal("events.amazonaws.com")
        _let(keys["alarms"], "UndeliveredEvents", events, "kms:Decrypt", "kms:GenerateDataKey")
        if environment.audit.config_rules:
            config = self.account_principal("config.amazonaws.com")
            _let(keys["audit"], "Config", config, "kms:Decrypt", "kms:GenerateDataKey")

    def _key(self, purpose: str, what: str) -> kms.Key:
        return kms.Key(
            self,
            purpose.capitalize(),
            alias=f"alias/{self.names.resource(purpose)}",
            description=f"{self.names.prefix}: {what}",
            enable_key_rotation=True,
            removal_policy=self.removal_policy,
        )


def _let(
    key: kms.Key,
    sid: str,
    service: iam.IPrincipal,
    *actions: str,
    conditions: Mapping[str, object] | None = None,
) -> None:
    """Let a service use the key on its own behalf."""
    key.add_to_resource_policy(
        iam.PolicyStatement(
            sid=sid, principals=[service], actions=list(actions), resources=["*"], conditions=conditions
        )
    )
