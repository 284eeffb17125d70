"""What watches over the whole account, if configuration says so: threats, vulnerabilities, settings, shares.

There is one of each per account and region, and somebody may have it already. So it is a function that looks
first (`lambda_src/account_service`), where a CloudFormation resource would fail.
"""

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_config as config
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from constructs import Construct

from catalog.data import Audit
from catalog.environment import Environment
from catalog.names import ENVIRONMENT_TAG
from stacks.base import PlatformStack
from stacks.constructs.alarms import PlatformAlarm
from stacks.constructs.function import PlatformFunction
from stacks.constructs.schedule import Trigger

SECONDS = 120

ADVICE = "trusted-advisor"

RECORDED = (
    "AWS::CloudTrail::Trail",
    "AWS::EC2::VPC",
    "AWS::KMS::Key",
    "AWS::Lambda::Function",
    "AWS::S3::Bucket",
)
"""The kinds of resources that the rules look at; AWS Config is billed by recorded change."""

Rule = config.ManagedRuleIdentifiers

OWN_RULES = {
    Rule.S3_BUCKET_SSL_REQUESTS_ONLY: "Buckets answer requests over TLS only",
    Rule.S3_BUCKET_LEVEL_PUBLIC_ACCESS_PROHIBITED: "Buckets block public access",
    Rule.S3_BUCKET_VERSIONING_ENABLED: "Buckets keep old versions",
    Rule.LAMBDA_FUNCTION_PUBLIC_ACCESS_PROHIBITED: "Functions are not open to everyone",
}
"""Checked at every change of a resource of this environment."""

ACCOUNT_RULES = {
    Rule.CMK_BACKING_KEY_ROTATION_ENABLED: "Keys rotate",
    Rule.KMS_CMK_NOT_SCHEDULED_FOR_DELETION: "No key is about to be deleted",
    Rule.CLOUDTRAIL_MULTI_REGION_ENABLED: "A trail covers every region",
    Rule.CLOUD_TRAIL_ENCRYPTION_ENABLED: "Trails are encrypted with a key of the account",
    Rule.CLOUD_TRAIL_LOG_FILE_VALIDATION_ENABLED: "Trails can be shown to be whole",
    Rule.VPC_FLOW_LOGS_ENABLED: "Networks record their flows",
}
"""Checked once a day, over the whole account and region."""


RIGHTS = {
    "GuardDuty": (
        "guardduty",
        {
            "*": ["guardduty:ListDetectors", "guardduty:CreateDetector"],
            "guardduty:detector/*": ["guardduty:DeleteDetector"],
        },
    ),
    "Inspector": (
        "inspector2",
        {"*": ["inspector2:BatchGetAccountStatus", "inspector2:Enable", "inspector2:Disable"]},
    ),
    "ConfigRecorder": (
        "config",
        {
            "*": [
                "config:DescribeConfigurationRecorders",
                "config:PutConfigurationRecorder",
                "config:StartConfigurationRecorder",
                "config:StopConfigurationRecorder",
                "config:DeleteConfigurationRecorder",
                "config:DescribeDeliveryChannels",
                "config:PutDeliveryChannel",
                "config:DeleteDeliveryChannel",
            ]
        },
    ),
    "AccessAnalyzer": (
        "access-analyzer",
        {
            "*": ["access-analyzer:ListAnalyzers"],
            "access-analyzer:analyzer/*": [
                "access-analyzer:CreateAnalyzer",
                "access-analyzer:DeleteAnalyzer",
            ],
        },
    ),
}
"""What the function needs for a service: its principal, and the actions on each resource of it, `*` where AWS
knows none: to look, to switch on, to switch off.
"""


class AccountStack(PlatformStack):
    def __init__(self, scope: Construct, environment: Environment) -> None:
        super().__init__(
            scope, "account", environment, description="Account-level security services that config asks for"
        )
        audit = environment.audit
        services = self._services(audit)
        if services:
            made = self._make(services)
            if audit.config_rules:
                self._check(made["ConfigRecorder"])
        if audit.trusted_advisor:
            self._count_findings()

    @staticmethod
    def has_work(audit: Audit) -> bool:
        """Whether configuration asks for anything that this stack makes."""
        return bool(
            audit.guard_duty
            or audit.inspector
            or audit.config_rules
            or audit.access_analyzer
            or audit.trusted_advisor
        )

    def _services(self, audit: Audit) -> dict[str, tuple[str, dict[str, str]]]:
        """The services to switch on: construct id -> the function's name for it, and its options."""
        services: dict[str, tuple[str, dict[str, str]]] = {}
        if audit.guard_duty:
            services["GuardDuty"] = ("GuardDuty", {})
        for scan in audit.inspector:
            services[f"Inspector-{scan}"] = ("Inspector", {"Scan": scan.upper(), "Account": self.account})
        if audit.config_rules:
            services["ConfigRecorder"] = (
                "ConfigRecorder",
                {
                    "Bucket": self.bucket_name("audit"),
                    "KeyArn": self.key("audit").key_arn,
                    "RoleArn": self._config_role,
                    "ResourceTypes": ",".join(RECORDED),
                },
            )
        if audit.access_analyzer:
            services["AccessAnalyzer"] = ("AccessAnalyzer", {"Name": self.names.prefix})
        return services

    def _rights(self, services: set[str]) -> tuple[list[iam.PolicyStatement], dict[str, str]]:
        """What the function may do for these services, and why each wildcard is needed."""
        statements, wildcards = [], {}
        for service in sorted(services):
            for resource, actions in RIGHTS[service][1].items():
                arn = self.regional_arn(*resource.split(":")) if resource != "*" else resource
                wildcards[arn] = (
                    "Switches of the account: what they make has no id yet, looking names nothing."
                )
                statements.append(iam.PolicyStatement(actions=actions, resources=[arn]))
        roles = f"{self._service_linked_roles}*"
        wildcards[roles] = "The condition names the services whose role it is."
        statements.append(
            iam.PolicyStatement(
                # Each service acts by a role of its own, which the first to switch it on makes.
                sid="MakeServiceLinkedRoles",
                actions=["iam:CreateServiceLinkedRole"],
                resources=[roles],
                conditions={
                    "StringEquals": {
                        "iam:AWSServiceName": [
                            f"{RIGHTS[service][0]}.amazonaws.com" for service in sorted(services)
                        ]
                    }
                },
            )
        )
        if "ConfigRecorder" in services:
            statements.append(
                iam.PolicyStatement(
                    sid="RecordWithItsRole",
                    actions=["iam:PassRole"],
                    resources=[self._config_role],
                    conditions={"StringEquals": {"iam:PassedToService": "config.amazonaws.com"}},
                )
            )
        return statements, wildcards

    @property
    def _service_linked_roles(self) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/aws-service-role/"

    @property
    def _config_role(self) -> str:
        return f"{self._service_linked_roles}config.amazonaws.com/AWSServiceRoleForConfig"

    def _make(
        self,
        services: Mapping[str, tuple[str, Mapping[str, str]]],
    ) -> dict[str, cdk.CustomResource]:
        statements, wildcards = self._rights({service for service, _ in services.values()})
        function = PlatformFunction(
            self,
            "Function",
            source="account_service",
            description="Switches on what is off of the account's security services (custom resource)",
            environment={},
            memory_mb=256,
            timeout_seconds=SECONDS,
            log_group_name=self.names.log_group("account-service"),
            # These services' APIs are not reached from the network.
            public=True,
            statements=statements,
            wildcards=wildcards,
        )
        made = {}
        for construct_id, (service, options) in services.items():
            made[construct_id] = cdk.CustomResource(
                self,
                construct_id,
                resource_type="Custom::AccountService",
                service_token=function.function.function_arn,
                service_timeout=cdk.Duration.seconds(SECONDS + 30),
                properties={"Service": service, "Options": options},
            )
            made[construct_id].node.add_dependency(function.role)
        return made

    def _check(self, recorder: Construct) -> None:
        for rules, own in ((OWN_RULES, True), (ACCOUNT_RULES, False)):
            for identifier, description in rules.items():
                name = identifier.lower().replace("_", "-")
                rule = config.CfnConfigRule(
                    self,
                    f"Rule-{name}",
                    config_rule_name=self.names.resource(name),
                    description=description,
                    source=config.CfnConfigRule.SourceProperty(owner="AWS", source_identifier=identifier),
                    scope=config.CfnConfigRule.ScopeProperty(
                        tag_key=ENVIRONMENT_TAG, tag_value=self.environment_config.name
                    )
                    if own
                    else None,
                )
                # Without a recorder AWS Config takes no rule.
                rule.node.add_dependency(recorder)

    def _count_findings(self) -> None:
        function = PlatformFunction(
            self,
            "TrustedAdvisor",
            source="trusted_advisor",
            description="Counts Trusted Advisor's findings",
            environment={"METRICS_NAMESPACE": self.names.metrics_namespace},
            memory_mb=256,
            timeout_seconds=60,
            log_group_name=self.names.log_group("trusted-advisor"),
            public=True,
            statements=[
                iam.PolicyStatement(
                    sid="ReadFindings", actions=["trustedadvisor:ListRecommendations"], resources=["*"]
                )
            ],
            wildcards={"*": "Findings are of the account, and listing them names no resource."},
        )
        Trigger(
            self,
            "Daily",
            function,
            description="Once a day: Trusted Advisor's findings",
            schedule=events.Schedule.rate(cdk.Duration.days(1)),
        )
        PlatformAlarm(
            self,
            ADVICE,
            cloudwatch.Metric(
                namespace=self.names.metrics_namespace,
                metric_name="TrustedAdvisorFindings",
                dimensions_map={"Status": "error"},
                statistic="Maximum",
                period=cdk.Duration.days(1),
            ),
            description="Ticket: Trusted Advisor recommends action, by its red findings.",
            runbook=ADVICE,
            threshold=1,
            # Until the next day's count nothing is known to have changed.
            missing=cloudwatch.TreatMissingData.IGNORE,
            notify=True,
        )
