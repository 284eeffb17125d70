"""KMS keys, one per purpose, so that reading models, data, logs or the audit trail are separate rights."""

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
        keys["logs"].add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchLogs",
                principals=[iam.ServicePrincipal(f"logs.{self.region}.amazonaws.com")],
                actions=[
                    "kms:Encrypt",
                    "kms:Decrypt",
                    "kms:ReEncrypt*",
                    "kms:GenerateDataKey*",
                    "kms:DescribeKey",
                ],
                resources=["*"],
                conditions={
                    "ArnLike": {
                        "kms:EncryptionContext:aws:logs:arn": self.regional_arn("logs", "log-group:*")
                    }
                },
            )
        )
        keys["audit"].add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudTrail",
                principals=[iam.ServicePrincipal("cloudtrail.amazonaws.com")],
                actions=["kms:GenerateDataKey*", "kms:DescribeKey"],
                resources=["*"],
                conditions={
                    "StringEquals": {
                        "aws:SourceArn": self.regional_arn(
                            "cloudtrail", f"trail/{self.names.resource('audit')}"
                        )
                    }
                },
            )
        )
        keys["alarms"].add_to_resource_policy(
            iam.PolicyStatement(
                sid="CloudWatchAlarms",
                principals=[self.account_principal("cloudwatch.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                resources=["*"],
            )
        )
        keys["alarms"].add_to_resource_policy(
            iam.PolicyStatement(
                sid="UndeliveredEvents",
                principals=[self.account_principal("events.amazonaws.com")],
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=["*"],
            )
        )
        if environment.audit.config_rules:
            keys["audit"].add_to_resource_policy(
                iam.PolicyStatement(
                    sid="Config",
                    principals=[self.account_principal("config.amazonaws.com")],
                    actions=["kms:Decrypt", "kms:GenerateDataKey"],
                    resources=["*"],
                )
            )

    def _key(self, purpose: str, what: str) -> kms.Key:
        return kms.Key(
            self,
            purpose.capitalize(),
            alias=f"alias/{self.names.resource(purpose)}",
            description=f"{self.names.prefix}: {what}",
            enable_key_rotation=True,
            removal_policy=self.removal_policy,
        )
