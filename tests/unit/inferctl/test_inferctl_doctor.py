"""The preflight against accounts that are what a test says: real clients, whose answers botocore checks."""

# ruff: noqa: E501  an answer and what is said of it stand on one line

import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.validate import ParamValidator
from click.testing import CliRunner, Result

from catalog import CpuModel, Environment, GpuModel
from inferctl import doctor, environment
from inferctl.cli import cli
from inferctl.environment import Aws

ROOT = Path(__file__).resolve().parents[3]
ZONES = ["us-east-1a", "us-east-1b", "us-east-1c"]
ACCOUNT = "111122223333"
IMAGE = f"{ACCOUNT}.dkr.ecr.us-west-2.amazonaws.com/team/inference-onnx:1"
ENDPOINTS = "ml.g5.xlarge for endpoint usage"

Answer = dict[str, Any] | Exception | Callable[[dict[str, Any]], dict[str, Any]]


def gpu(name: str, least: int, most: int) -> GpuModel:
    return GpuModel.model_validate(
        {
            "name": name,
            "description": "A model.",
            "owner": "ml",
            "version": "1.0.0",
            "target": "gpu",
            "gpu": {"instance_type": "ml.g5.xlarge"},
            "scaling": {"min": least, "max": most},
        }
    )


def cpu(reserved: int | None = None) -> CpuModel:
    return CpuModel.model_validate(
        {
            "name": "small",
            "description": "A model.",
            "owner": "ml",
            "version": "1.0.0",
            "target": "cpu",
            "cpu": {} if reserved is None else {"reserved_concurrency": reserved},
        }
    )


def config(**fields: Any) -> Environment:
    return Environment.model_validate(
        {
            "name": "prod",
            "account": ACCOUNT,
            "region": "us-east-1",
            "availability_zones": ZONES,
            "network": {"cidr": "10.0.0.0/16"},
            "containers": {"onnx": {"image_uri": IMAGE}},
            "api": {"log_role": True},
            **fields,
        }
    )


def quota(name: str, code: str, value: float) -> dict[str, Any]:
    return {"QuotaName": name, "QuotaCode": code, "Value": value}


def product(price: str, unit: str = "Hrs") -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": price}}
    return json.dumps({"product": {}, "terms": {"OnDemand": {"A.B": {"priceDimensions": {"C": dimension}}}}})


def quota_of(parameters: dict[str, Any]) -> dict[str, Any]:
    values = {"L-01C8A9E0": 300.0, "L-F678F1CE": 5.0}
    return {"Quota": quota("a quota", parameters["QuotaCode"], values[parameters["QuotaCode"]])}


def refused(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": f"{code}."}}, operation)


HEALTHY: dict[str, Answer] = {
    "sts.GetCallerIdentity": {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/ops", "UserId": "U"},
    "ec2.DescribeRegions": {"Regions": [{"RegionName": "us-east-1", "OptInStatus": "opt-in-not-required"}]},
    "ec2.DescribeAvailabilityZones": {
        "AvailabilityZones": [
            {"ZoneName": zone, "State": "available", "ZoneId": f"use1-az{number}"}
            for number, zone in enumerate(ZONES, 1)
        ]
    },
    "ec2.DescribeVpcs": {"Vpcs": [{"VpcId": "vpc-1"}]},
    "ec2.DescribeManagedPrefixLists": {"PrefixLists": [{"PrefixListId": "pl-63a5400a"}]},
    "ec2.DescribeInstanceTypeOfferings": {
        "InstanceTypeOfferings": [{"InstanceType": "g5.xlarge", "Location": zone} for zone in ZONES]
    },
    "apigateway.GetRestApis": {"items": []},
    "apigateway.GetAccount": {},
    "cognito-idp.ListUserPools": {"UserPools": []},
    "lambda.ListFunctions": {"Functions": []},
    "lambda.GetAccountSettings": {"AccountLimit": {"ConcurrentExecutions": 1000}},
    "sagemaker.ListEndpoints": {"Endpoints": []},
    "wafv2.ListWebACLs": {"WebACLs": []},
    "ssm.GetParameter": {"Parameter": {"Value": "30"}},
    "service-quotas.ListServiceQuotas": {"Quotas": [quota(ENDPOINTS, "L-1928E07B", 8)]},
    "service-quotas.ListAWSDefaultServiceQuotas": {"Quotas": []},
    "service-quotas.GetServiceQuota": quota_of,
    "ecr.DescribeImages": {"imageDetails": []},
    "cloudtrail.DescribeTrails": {"trailList": []},
    "pricing.GetProducts": {"PriceList": [product("1.4080000000")]},
}


class Account:
    """What boto3 calls a session: its clients answer as told, and remember what they were asked."""

    current: "Account"

    def __init__(self, answers: dict[str, Answer] | None = None) -> None:
        self.answers = HEALTHY | (answers or {})
        self.calls: set[str] = set()
        self.asked: dict[str, dict[str, Any]] = {}

    def client(self, service: str, region_name: str, **_: Any) -> Any:
        Account.current = self
        return shared_client(service, region_name)

    def answer(self, call: str, output: Any) -> dict[str, Any]:
        self.calls.add(call)
        told = self.answers.get(call, refused("UnauthorizedOperation", call.partition(".")[2]))
        if callable(told):
            told = told(self.asked[call])
        if isinstance(told, Exception):
            raise told
        wrong = ParamValidator().validate(told, output)
        assert not wrong.has_errors(), wrong.generate_report()
        return told


@cache
def shared_client(service: str, region: str) -> Any:
    """One client for all tests, since making it takes longer than all that it is asked."""
    client = boto3.client(service, region, aws_access_key_id="a", aws_secret_access_key="b")

    def remember(params: dict[str, Any], model: Any, **_: Any) -> None:
        Account.current.asked[f"{service}.{model.name}"] = {**params, "region": region}

    def answer(model: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        told = Account.current.answer(f"{service}.{model.name}", model.output_shape)
        return SimpleNamespace(status_code=200), told

    client.meta.events.register("before-parameter-build", remember)
    client.meta.events.register("before-call", answer)
    return client


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "INFERENCE_ENV", "CDK_DOCKER"):
        monkeypatch.delenv(name, raising=False)


def examine(
    account: Account, of: Environment | None = None, models: Iterable[Any] = (gpu("vectors", 2, 4),)
) -> dict[str, doctor.Finding]:
    findings = doctor.examine(doctor.Preflight(of or config(), tuple(models), Aws(account)))
    assert len({finding.check for finding in findings}) == len(findings)
    return {finding.check: finding for finding in findings}


def test_an_account_that_has_everything_is_ready() -> None:
    findings = examine(Account(), models=(gpu("vectors", 2, 4), cpu()))
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert findings["quota: ml.g5.xlarge"].quota == "L-1928E07B"
    assert findings["price: vectors"].found == (
        "2 to 4 ml.g5.xlarge: 2.82 to 5.63 USD an hour, 2,056 to 4,111 a month"
    )


def test_the_doctor_only_reads() -> None:
    account = watching()
    examine(account, config(audit=WATCHED))
    assert account.calls
    assert not [call for call in account.calls if not re.match(r"[\w-]+\.(Batch)?(Get|List|Describe)", call)]


def test_another_account_than_the_environments_is_asked_nothing_else() -> None:
    account = Account()
    findings = examine(account, config(account="999999999999"))
    assert findings.keys() == {"credentials"}
    assert findings["credentials"].state == "failed"
    assert "config/prod.yaml says 999999999999" in findings["credentials"].found
    assert account.calls == {"sts.GetCallerIdentity"}


@pytest.mark.parametrize(
    ("call", "answer", "check", "state", "says"),
    [
        ("ec2.DescribeRegions", {"Regions": [{"OptInStatus": "not-opted-in"}]}, "region", "failed", "aws account enable-region --region-name us-east-1"),
        ("ec2.DescribeAvailabilityZones", {"AvailabilityZones": [{"ZoneName": z, "State": "available"} for z in (*ZONES[:2], "us-east-1f")]}, "zones", "failed", "us-east-1c is not offered to this account; it has us-east-1a, us-east-1b, us-east-1f"),
        ("ec2.DescribeAvailabilityZones", {"AvailabilityZones": [{"ZoneName": z, "State": "impaired"} for z in ZONES]}, "zones", "warning", "us-east-1a, us-east-1b, us-east-1c: impaired"),
        ("sagemaker.ListEndpoints", EndpointConnectionError(endpoint_url="https://x"), "services", "failed", "sagemaker does not answer in us-east-1"),
        ("ssm.GetParameter", refused("ParameterNotFound", "GetParameter"), "bootstrap", "failed", "npx cdk bootstrap --context env=prod"),
        ("ssm.GetParameter", {"Parameter": {"Value": "5"}}, "bootstrap", "failed", "version 5, and 6 is needed"),
        ("service-quotas.ListServiceQuotas", {"Quotas": [quota(ENDPOINTS, "L-1928E07B", 3)]}, "quota: ml.g5.xlarge", "failed", "--service-code sagemaker --quota-code L-1928E07B --desired-value 8"),
        ("service-quotas.ListServiceQuotas", {"Quotas": [quota(ENDPOINTS, "L-1928E07B", 4)]}, "quota: ml.g5.xlarge", "warning", "ml.g5.xlarge for endpoint usage is 4; the catalog starts 2, scales to 4"),
        ("service-quotas.ListServiceQuotas", {"Quotas": []}, "quota: ml.g5.xlarge", "failed", "SageMaker does not offer the type there"),
        ("service-quotas.GetServiceQuota", lambda p: {"Quota": quota("q", p["QuotaCode"], 8)}, "quota: API", "failed", "--service-code apigateway --quota-code L-01C8A9E0 --desired-value 9"),
        ("ec2.DescribeVpcs", {"Vpcs": [{"VpcId": f"vpc-{n}"} for n in range(5)]}, "quota: VPCs", "failed", "5 of 5 VPCs of the region are in use"),
        ("lambda.GetAccountSettings", {"AccountLimit": {"ConcurrentExecutions": 10}}, "quota: Lambda", "warning", "--quota-code L-B99A9384 --desired-value 1000"),
        ("ecr.DescribeImages", refused("ImageNotFoundException", "DescribeImages"), "image: onnx", "failed", "inference-onnx:1 is not there: ImageNotFoundException"),
        ("ec2.DescribeManagedPrefixLists", {"PrefixLists": [{"PrefixListId": "pl-99999999"}]}, "S3 prefix list", "failed", "network.s3_prefix_list: pl-99999999 in config/prod.yaml"),
        ("ec2.DescribeInstanceTypeOfferings", {"InstanceTypeOfferings": [{"InstanceType": "g5.xlarge", "Location": z} for z in ("us-east-1a", "us-east-1d")]}, "zones: ml.g5.xlarge", "warning", "it has it in us-east-1a, us-east-1d: list two of them"),
        ("ec2.DescribeInstanceTypeOfferings", {"InstanceTypeOfferings": []}, "zones: ml.g5.xlarge", "unknown", "EC2 does not list g5.xlarge"),
        ("cloudtrail.DescribeTrails", {"trailList": [{"Name": f"t{n}", "HomeRegion": "us-east-1"} for n in range(5)]}, "trails", "failed", "the region has 5 trails, and CloudTrail allows 5"),
        ("cloudtrail.DescribeTrails", {"trailList": [{"Name": "org", "HomeRegion": "eu-west-1", "IsOrganizationTrail": True}]}, "trails", "warning", "the organization's trail org records this account already"),
        ("pricing.GetProducts", {"PriceList": []}, "price: vectors", "unknown", "2 to 4 ml.g5.xlarge: the price list has no single price"),
        ("pricing.GetProducts", {"PriceList": [product("1"), product("2")]}, "price: vectors", "unknown", "no single price"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_with_its_remedy(
    call: str, answer: Answer, check: str, state: str, says: str
) -> None:
    finding = examine(Account({call: answer}))[check]
    assert finding.state == state
    assert says in f"{finding.found} {finding.remedy}"
    if check.startswith("quota: ") and "not offer" not in says:
        assert re.fullmatch(r"L-[0-9A-F]{8}", str(finding.quota))


def test_quotas_are_those_of_the_whole_catalog() -> None:
    findings = examine(Account(), models=(gpu("vectors", 2, 4), gpu("others", 1, 2)))
    assert findings["quota: ml.g5.xlarge"].state == "warning"
    assert "the catalog starts 3, scales to 6" in findings["quota: ml.g5.xlarge"].found
    assert "--desired-value 12" in findings["quota: ml.g5.xlarge"].remedy
    assert findings["price: all GPUs"].found.startswith("4.22 to 8.45 USD an hour")


def test_a_quota_that_was_never_raised_is_the_default() -> None:
    account = Account(
        {
            "service-quotas.ListServiceQuotas": {"Quotas": []},
            "service-quotas.ListAWSDefaultServiceQuotas": {"Quotas": [quota(ENDPOINTS, "L-1928E07B", 0)]},
            "service-quotas.GetServiceQuota": refused("NoSuchResourceException", "GetServiceQuota"),
            "service-quotas.GetAWSDefaultServiceQuota": quota_of,
        }
    )
    findings = examine(account)
    assert "ml.g5.xlarge for endpoint usage is 0" in findings["quota: ml.g5.xlarge"].found
    assert findings["quota: ml.g5.xlarge"].state == "failed"
    assert findings["quota: API"].state == "ok"


def test_reserved_executions_leave_what_lambda_keeps() -> None:
    account = Account({"lambda.GetAccountSettings": {"AccountLimit": {"ConcurrentExecutions": 1000}}})
    assert examine(account, models=[cpu(900)])["quota: Lambda"].state == "ok"
    finding = examine(account, models=[cpu(901)])["quota: Lambda"]
    assert finding.state == "failed"
    assert "901 reserved by the catalog, and 100 must stay unreserved" in finding.found
    assert "--desired-value 1001" in finding.remedy


@pytest.mark.parametrize(
    ("quotas", "check", "says"),
    [
        ({"api_resources": 400}, "quota: API", "9 resources of 300, and quotas.api_resources says 400"),
        ({"lambda_concurrency": 2000}, "quota: Lambda", "and quotas.lambda_concurrency says 2000"),
        ({"instances": {"ml.g5.xlarge": 9}}, "quota: ml.g5.xlarge", "and quotas.instances says 9"),
    ],
)
def test_config_that_promises_more_than_the_account_has_is_a_warning(
    quotas: dict[str, Any], check: str, says: str
) -> None:
    finding = examine(Account(), config(quotas=quotas))[check]
    assert finding.state == "warning"
    assert says in finding.found


def test_an_environment_that_has_its_vpc_needs_no_other() -> None:
    tagged = {"VpcId": "vpc-1", "Tags": [{"Key": "Name", "Value": "inference-prod"}]}
    assert examine(Account({"ec2.DescribeVpcs": {"Vpcs": [tagged] * 5}}))["quota: VPCs"].state == "ok"


@pytest.mark.parametrize(
    ("role", "ours", "state"),
    [
        (None, True, "ok"),
        (None, False, "failed"),
        ("arn:aws:iam::111122223333:role/inference-prod-api-LogRole8D9F-x", True, "ok"),
        ("arn:aws:iam::111122223333:role/somebody-elses", True, "warning"),
        ("arn:aws:iam::111122223333:role/somebody-elses", False, "ok"),
    ],
)
def test_the_regions_one_logging_role_is_neither_missing_nor_taken_away(
    role: str | None, ours: bool, state: str
) -> None:
    account = Account({"apigateway.GetAccount": {"cloudwatchRoleArn": role} if role else {}})
    finding = examine(account, config(api={"log_role": ours}))["API logging role"]
    assert finding.state == state
    if state != "ok":
        assert f"api.log_role: {'false' if ours else 'true'} in config/prod.yaml" in finding.remedy


WATCHED = {
    "guard_duty": True,
    "inspector": ["ecr", "lambda"],
    "config_rules": True,
    "access_analyzer": True,
    "trusted_advisor": True,
}
RECORDER: dict[str, Answer] = {
    "config.DescribeConfigurationRecorders": {"ConfigurationRecorders": [{"name": "default"}]}
}


def scan(status: str) -> dict[str, str]:
    return {"status": status, "errorCode": "ALREADY_ENABLED", "errorMessage": "none"}


def watching(answers: dict[str, Answer] | None = None) -> Account:
    """An account that has none of these, unless `answers` say otherwise."""
    scans = {"ec2": scan("DISABLED"), "ecr": scan("DISABLED"), "lambda": scan("ENABLED")}
    none: dict[str, Answer] = {
        "guardduty.ListDetectors": {"DetectorIds": []},
        "inspector2.BatchGetAccountStatus": {
            "accounts": [{"accountId": ACCOUNT, "state": scan("ENABLED"), "resourceState": scans}]
        },
        "config.DescribeConfigurationRecorders": {"ConfigurationRecorders": []},
        "config.DescribeConfigurationRecorderStatus": {"ConfigurationRecordersStatus": []},
        "accessanalyzer.ListAnalyzers": {"analyzers": []},
        "trustedadvisor.ListRecommendations": {"recommendationSummaries": []},
    }
    return Account(none | (answers or {}))


def watched(answers: dict[str, Answer]) -> dict[str, doctor.Finding]:
    return examine(watching(answers), config(audit=WATCHED))


def test_what_an_account_has_once_is_told_where_config_asks_for_it() -> None:
    findings = watched({"guardduty.ListDetectors": {"DetectorIds": ["d1"]}})
    assert findings["GuardDuty"].found == "d1 is there already, and stays as it is"
    assert findings["Inspector"].found == "lambda is there already, and stays as it is"
    assert findings["AWS Config"].found == "made by the deployment"
    assert findings["Access Analyzer"].found == "made by the deployment"
    assert {finding.state for finding in findings.values()} == {"ok"}
    assert (
        not {"GuardDuty", "Inspector", "AWS Config", "Access Analyzer", "Trusted Advisor"}
        & examine(Account()).keys()
    )


@pytest.mark.parametrize(("recording", "state"), [(True, "ok"), (False, "warning")])
def test_a_recorder_that_stands_still_is_a_warning(recording: bool, state: str) -> None:
    status = {"ConfigurationRecordersStatus": [{"name": "default", "recording": recording}]}
    finding = watched(RECORDER | {"config.DescribeConfigurationRecorderStatus": status})["AWS Config"]
    assert finding.state == state
    assert ("start-configuration-recorder" in finding.remedy) == (not recording)


def test_without_a_support_plan_trusted_advisor_is_unknown() -> None:
    without = refused("AccessDeniedException", "ListRecommendations")
    assert watched({"trustedadvisor.ListRecommendations": without})["Trusted Advisor"].state == "unknown"


class TestImages:
    def test_an_image_is_looked_for_where_its_address_says(self) -> None:
        account = Account()
        examine(account)
        assert account.asked["ecr.DescribeImages"] == {
            "registryId": ACCOUNT,
            "repositoryName": "team/inference-onnx",
            "imageIds": [{"imageTag": "1"}],
            "region": "us-west-2",
        }

    def test_a_digest_is_one_too(self) -> None:
        account = Account()
        examine(account, config(containers={"onnx": {"image_uri": f"{IMAGE[:-2]}@sha256:{'a' * 64}"}}))
        assert account.asked["ecr.DescribeImages"]["imageIds"] == [{"imageDigest": f"sha256:{'a' * 64}"}]

    @pytest.mark.parametrize(("builder", "state"), [("python3", "ok"), ("no-such-builder", "failed")])
    def test_an_image_to_build_needs_a_builder_here(
        self, monkeypatch: pytest.MonkeyPatch, builder: str, state: str
    ) -> None:
        monkeypatch.setenv("CDK_DOCKER", builder)
        finding = examine(Account(), config(containers={"onnx": {"build": True}}))["image: onnx"]
        assert (finding.state, builder in finding.found) == (state, True)


class TestExistingVpc:
    VPC = {
        "id": "vpc-0a1b2c3d",
        "subnets": {zone: f"subnet-0000000{n}" for n, zone in enumerate(ZONES)},
    }
    S3_ENDPOINT = {"ServiceName": "com.amazonaws.us-east-1.s3", "RouteTableIds": ["rtb-1"]}

    def account(self, *routes: dict[str, str], **changes: Answer) -> Account:
        table = {
            "RouteTableId": "rtb-1",
            "Associations": [{"Main": True}],
            "Routes": [{"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local"}, *routes],
        }
        subnets = [
            {"SubnetId": identifier, "AvailabilityZone": zone}
            for zone, identifier in self.VPC["subnets"].items()  # type: ignore[attr-defined]
        ]
        return Account(
            {
                "ec2.DescribeSubnets": {"Subnets": subnets},
                "ec2.DescribeRouteTables": {"RouteTables": [table]},
                "ec2.DescribeVpcEndpoints": {"VpcEndpoints": [self.S3_ENDPOINT]},
            }
            | {f"ec2.{name}": answer for name, answer in changes.items()}
        )

    def found(self, account: Account) -> list[doctor.Finding]:
        preflight = doctor.Preflight(config(network={"vpc": self.VPC}), (), Aws(account))
        return [finding for finding in doctor.examine(preflight) if finding.check == "existing VPC"]

    def test_one_that_has_what_it_must_is_right(self) -> None:
        account = self.account()
        [finding] = self.found(account)
        assert finding.state == "ok"
        assert "ec2.DescribeVpcs" not in account.calls  # no VPC is made: no quota counts

    def test_a_route_to_the_internet_is_a_failure_of_every_subnet_that_has_it(self) -> None:
        way_out = {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}
        findings = self.found(self.account(way_out))
        assert [finding.state for finding in findings] == ["failed"] * 3
        assert findings[0].found == "subnet-00000000 has a route out of the VPC, by nat-1"

    def test_a_subnet_of_another_zone_or_another_vpc_is_named(self) -> None:
        subnets = [
            {"SubnetId": "subnet-00000000", "AvailabilityZone": "us-east-1d"},
            {"SubnetId": "subnet-00000001", "AvailabilityZone": "us-east-1b"},
        ]
        said = [finding.found for finding in self.found(self.account(DescribeSubnets={"Subnets": subnets}))]
        assert said == [
            "subnet-00000000 is in us-east-1d, not in us-east-1a",
            "vpc-0a1b2c3d has no subnet subnet-00000002",
        ]

    def test_models_cannot_do_without_an_endpoint_of_s3(self) -> None:
        findings = self.found(self.account(DescribeVpcEndpoints={"VpcEndpoints": []}))
        assert len(findings) == 3
        assert "no route to a gateway endpoint of S3" in findings[0].found


class TestUnknown:
    def test_what_the_caller_may_not_ask_is_unknown_and_not_right(self) -> None:
        account = Account()
        account.answers = {"sts.GetCallerIdentity": HEALTHY["sts.GetCallerIdentity"]}
        findings = examine(account)
        states = {finding.state for check, finding in findings.items() if check != "credentials"}
        assert states == {"unknown"}
        assert findings["GPU quotas"].found == "not allowed to call ListServiceQuotas"
        assert "docs/doctor.md" in findings["GPU quotas"].remedy

    def test_a_price_list_out_of_reach_is_no_price(self) -> None:
        unreachable = EndpointConnectionError(endpoint_url="https://api.pricing.us-east-1.amazonaws.com")
        finding = examine(Account({"pricing.GetProducts": unreachable}))["price"]
        assert finding.state == "unknown"
        assert "USD" not in finding.found

    def test_prices_are_asked_of_the_region_that_serves_them(self) -> None:
        account = Account()
        examine(account, config(region="eu-west-1", availability_zones=["eu-west-1a", "eu-west-1b"]))
        asked = account.asked["pricing.GetProducts"]
        assert asked["region"] == "us-east-1"
        assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"} in asked["Filters"]


class TestCommandLine:
    @pytest.fixture
    def run(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
        def call(account: Account, *arguments: str) -> Result:
            monkeypatch.setattr(environment, "connect", lambda name: Aws(account))
            return CliRunner().invoke(cli, arguments, prog_name="inferctl")

        return call

    def test_a_failure_exits_with_1_and_names_the_check(self, run: Callable[..., Result]) -> None:
        account = Account({"ssm.GetParameter": {"Parameter": {"Value": "5"}}})
        result = run(account, "doctor", "--env", "prod")
        assert result.exit_code == 1
        assert re.search(r"^failed +bootstrap +version 5, and 6 is needed$", result.stdout, re.M)
        assert "bootstrap\n  npx cdk bootstrap --context env=prod" in result.stdout
        assert "bootstrap" in result.stderr.splitlines()[-1]

    def test_the_result_as_json_is_the_same_before_and_after_the_command(
        self, run: Callable[..., Result]
    ) -> None:
        account = Account()
        after = run(account, "doctor", "--env", "prod", "--json")
        before = run(account, "--env", "prod", "--json", "doctor")
        assert after.stdout == before.stdout
        document = json.loads(after.stdout)
        assert (document["environment"], document["region"]) == ("prod", "us-east-1")
        by_check = {finding["check"]: finding for finding in document["findings"]}
        assert by_check["quota: ml.g5.xlarge"]["quota"] == "L-1928E07B"
        assert document["failed"] == sum(f["state"] == "failed" for f in document["findings"])

    def test_without_credentials_it_exits_with_4(self, run: Callable[..., Result]) -> None:
        assert run(Account({"sts.GetCallerIdentity": NoCredentialsError()}), "doctor").exit_code == 4


def test_the_documented_rights_are_those_of_the_calls_that_are_made() -> None:
    account = TestExistingVpc().account()
    doctor.examine(
        doctor.Preflight(config(network={"vpc": TestExistingVpc.VPC}), (gpu("vectors", 1, 2),), Aws(account))
    )
    made = Account(
        {
            "service-quotas.ListServiceQuotas": {"Quotas": []},
            "service-quotas.GetServiceQuota": refused("NoSuchResourceException", "GetServiceQuota"),
            "service-quotas.GetAWSDefaultServiceQuota": quota_of,
        }
    )
    examine(made)
    watches = watching()
    examine(watches, config(audit=WATCHED))
    prefixes = {"service-quotas": "servicequotas", "accessanalyzer": "access-analyzer"}
    needed = set()
    for call in account.calls | made.calls | watches.calls:
        service, _, operation = call.partition(".")
        if service == "apigateway":
            needed.add("apigateway:GET")
        elif service != "sts":  # GetCallerIdentity needs no right
            needed.add(f"{prefixes.get(service, service)}:{operation}")
    [policy] = re.findall(r"^```json\n(.*?)^```", (ROOT / "docs/doctor.md").read_text(), re.M | re.S)
    statements = json.loads(policy)["Statement"]
    assert {action for statement in statements for action in statement["Action"]} == needed
