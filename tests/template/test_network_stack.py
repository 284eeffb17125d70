"""The network's promises, in each of its forms: nothing is open, and every way out is one that is used."""

import json
from collections.abc import Iterator
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam

from app import ROOT
from catalog.environment import Environment
from catalog.loader import Platform, load_platform
from catalog.model import GpuModel
from stacks.network import NetworkStack
from tests.assembly import NAG_PACKS, Assembly, assemble

VPC = {
    "id": "vpc-0a1b2c3d4e5f60718",
    "subnets": {"us-east-1a": "subnet-0a1b2c3d", "us-east-1b": "subnet-0b1b2c3d"},
}
TABLES = {"us-east-1a": "rtb-0a1b2c3d", "us-east-1b": "rtb-0b1b2c3d"}
FORMS: dict[str, dict[str, Any]] = {
    "private": {"cidr": "10.20.0.0/16", "private_control_plane": True},
    "existing": {"vpc": VPC},
    "existing, private": {"vpc": VPC | {"cidr": "10.0.0.0/16"}, "private_control_plane": True},
    "existing, endpoints": {
        "vpc": VPC | {"create_endpoints": True, "route_tables": TABLES},
        "private_control_plane": True,
    },
}

# What Lambda does in a function's name, by the sid of its statement or, for traces, by the action.
BY_LAMBDA = {"WriteLogs", "AttachToTheNetwork", "ReportFailures", "EncryptFailures"}

# X-Ray is for Lambda to reach, KMS for the service that encrypts, roles for the one they are passed to.
INDIRECT = {"xray", "kms", "iam"}

# IAM's name of a service, or of an action -> that of its endpoint, where they differ.
ENDPOINT_NAMES = {
    "sagemaker": "sagemaker.api",
    "sagemaker:InvokeEndpoint": "sagemaker.runtime",
    "cloudwatch": "monitoring",
}


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Assembly]:
    """The app of `dev` with each form of network."""
    models = load_platform(ROOT, "dev").models
    return {
        name: assemble(tmp_path_factory.mktemp("network"), Platform(environment(network), models))
        for name, network in FORMS.items()
    }


def environment(network: dict[str, Any]) -> Environment:
    """`dev` with another network, and no probe: with its client releases ask models at the public address."""
    document = load_platform(ROOT, "dev").environment.model_dump(mode="json", exclude_unset=True)
    return Environment.model_validate(document | {"network": network, "probe": None})


@pytest.fixture(params=["made", *FORMS])
def network(request: pytest.FixtureRequest, dev: Assembly, forms: dict[str, Assembly]) -> Assembly:
    return dev if request.param == "made" else forms[request.param]


def rules(assembly: Assembly, direction: str) -> Iterator[dict[str, Any]]:
    """Every rule of every security group, inside the group or a resource of its own."""
    for group in assembly.resources("AWS::EC2::SecurityGroup"):
        yield from group.properties.get(f"SecurityGroup{direction}", [])
    for rule in assembly.resources(f"AWS::EC2::SecurityGroup{direction}"):
        yield rule.properties


def endpoints(assembly: Assembly) -> dict[str, dict[str, Any]]:
    """Service name without the region's prefix -> properties of its endpoint."""
    found = {}
    for resource in assembly.resources("AWS::EC2::VPCEndpoint"):
        name = resource.properties["ServiceName"]
        parts = [name] if isinstance(name, str) else name["Fn::Join"][1]
        text = "".join("us-east-1" if part == {"Ref": "AWS::Region"} else part for part in parts)
        found[text.partition("us-east-1.")[2]] = resource.properties
    return found


def control_functions(assembly: Assembly) -> list[tuple[str, dict[str, Any]]]:
    """Stack and properties of the functions that neither run models nor see what they answer."""
    functions = list(assembly.resources("AWS::Lambda::Function"))
    return [
        (f.stack, f.properties)
        for f in functions
        if f.logical_id.startswith("Scaler")
        or ("-model-" not in f.stack and not f.logical_id.startswith("Compare"))
    ]


def inside(function: dict[str, Any]) -> bool:
    return "VpcConfig" in function


def calls(assembly: Assembly, stack: str, function: dict[str, Any]) -> Iterator[str]:
    """Actions that the function's own code is given."""
    role = function["Role"]["Fn::GetAtt"][0]
    for policy in assembly.resources("AWS::IAM::Policy"):
        if policy.stack == stack and {"Ref": role} in policy.properties["Roles"]:
            for statement in policy.properties["PolicyDocument"]["Statement"]:
                if statement.get("Sid") not in BY_LAMBDA:
                    actions = statement["Action"]
                    yield from [actions] if isinstance(actions, str) else actions


def test_no_security_group_is_open_and_https_is_the_only_port(network: Assembly) -> None:
    both = [*rules(network, "Ingress"), *rules(network, "Egress")]
    assert both
    for rule in both:
        # `0.0.0.0/0` and `::/0`; a group that may do nothing is written as a rule to 255.255.255.255.
        assert not str(rule.get("CidrIp", "")).endswith("/0")
        assert "CidrIpv6" not in rule
        if rule.get("CidrIp") != "255.255.255.255/32":
            assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 443, 443)


def test_models_reach_s3s_prefix_list_and_nothing_reaches_them(network: Assembly) -> None:
    [models] = [
        group.properties
        for group in network.resources("AWS::EC2::SecurityGroup")
        if group.logical_id.startswith("Models")
    ]
    assert "SecurityGroupIngress" not in models
    egress = [*models.get("SecurityGroupEgress", []), *_rules_beside(network, "Egress", "Models")]
    assert [rule["DestinationPrefixListId"] for rule in egress] == ["pl-63a5400a"]
    assert not list(_rules_beside(network, "Ingress", "Models"))


def _rules_beside(assembly: Assembly, direction: str, group: str) -> Iterator[dict[str, Any]]:
    for rule in rules(assembly, direction):
        if rule.get("GroupId", {}).get("Fn::GetAtt", [""])[0].startswith(group):
            yield rule


def test_every_endpoint_has_a_policy_that_names_the_platforms_own(network: Assembly) -> None:
    for name, endpoint in endpoints(network).items():
        for statement in endpoint["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            assert not [a for a in ([actions] if isinstance(actions, str) else actions) if "*" in a], name
            if statement.get("Sid") == "AnswerCloudFormation":
                assert "cloudformation-custom-resource-response-useast1/*" in json.dumps(statement)
                continue
            assert "aws:PrincipalAccount" in statement["Condition"]["StringEquals"], name
            # Metrics and a query's results have no resources, the bus is the account's, and scalable targets
            # have ids of AWS's own.
            if name not in ("monitoring", "logs", "events", "application-autoscaling"):
                assert "inference" in json.dumps(statement["Resource"]) or "cdk-" in json.dumps(statement)


def test_without_a_private_control_plane_there_is_no_interface_endpoint(
    dev: Assembly, forms: dict[str, Assembly]
) -> None:
    assert endpoints(dev).keys() == {"s3"}
    assert endpoints(forms["existing"]).keys() == set()
    assert control_functions(dev)
    assert not [f for _, f in control_functions(dev) if inside(f)]


@pytest.mark.parametrize("form", ["private", "existing, endpoints"])
def test_there_is_an_endpoint_for_each_service_that_control_functions_call_and_no_other(
    forms: dict[str, Assembly], form: str
) -> None:
    assembly = forms[form]
    called = {
        action if action in ENDPOINT_NAMES else action.partition(":")[0]
        for stack, function in control_functions(assembly)
        if inside(function)
        for action in calls(assembly, stack, function)
    }
    wanted = {ENDPOINT_NAMES.get(service, service) for service in called - INDIRECT}
    assert {"ssm", "lambda", "sagemaker.api", "sagemaker.runtime", "s3"} <= wanted
    assert endpoints(assembly).keys() == wanted


def test_an_endpoint_lets_through_what_control_functions_may_do(forms: dict[str, Assembly]) -> None:
    assembly = forms["private"]
    allowed: set[str] = set()
    for endpoint in endpoints(assembly).values():
        for statement in endpoint["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            allowed |= {actions} if isinstance(actions, str) else set(actions)
    for stack, function in control_functions(assembly):
        if inside(function):
            direct = {a for a in calls(assembly, stack, function) if a.partition(":")[0] not in INDIRECT}
            assert direct <= allowed, stack


def test_only_control_functions_reach_the_interface_endpoints(forms: dict[str, Assembly]) -> None:
    for form in ("private", "existing, endpoints"):
        assembly = forms[form]
        admitted = [rule["SourceSecurityGroupId"]["Fn::GetAtt"][0] for rule in rules(assembly, "Ingress")]
        assert len(admitted) == 1
        assert admitted[0].startswith("Control")
        interfaces = [e for e in endpoints(assembly).values() if e["VpcEndpointType"] == "Interface"]
        groups = {json.dumps(e["SecurityGroupIds"]) for e in interfaces}
        assert len(groups) == 1
        assert "Endpoints" in groups.pop()


def test_dynamodb_is_reached_by_a_route_of_the_control_functions_alone(forms: dict[str, Assembly]) -> None:
    for form in ("private", "existing, private", "existing, endpoints"):
        egress = [rule for rule in rules(forms[form], "Egress") if "pl-02cd2c6b" in rule.values()]
        assert [rule["Description"] for rule in egress] == ["DynamoDB through its gateway endpoint"], form
    routed = endpoints(forms["private"])["dynamodb"]
    # By an interface it would have no private DNS, and be found by nobody.
    assert routed["VpcEndpointType"] == "Gateway"
    assert {table["Ref"].partition("control")[0] for table in routed["RouteTableIds"]} == {"Vpc"}
    assert "dynamodb" not in endpoints(forms["existing, private"])


def test_control_functions_have_isolated_subnets_of_their_own(forms: dict[str, Assembly]) -> None:
    assembly = forms["private"]
    subnets = {
        subnet.properties["CidrBlock"]: subnet.properties["AvailabilityZone"]
        for subnet in assembly.resources("AWS::EC2::Subnet")
    }
    assert subnets == {
        "10.20.0.0/24": "us-east-1a",
        "10.20.1.0/24": "us-east-1b",
        "10.20.2.0/26": "us-east-1a",
        "10.20.2.64/26": "us-east-1b",
    }
    forbidden = {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route"}
    assert not [r for r in assembly.resources() if r.type in forbidden]
    shared = parameters(assembly)
    for stack, function in control_functions(assembly):
        if inside(function):
            defaults = assembly.templates[stack]["Parameters"]
            [group] = function["VpcConfig"]["SecurityGroupIds"]
            assert defaults[group["Ref"]]["Default"] == "/inference/dev/network/control/security-group-id"
            assert {
                defaults[s["Ref"]]["Default"] for s in function["VpcConfig"]["SubnetIds"]
            } <= shared.keys()


def parameters(assembly: Assembly) -> dict[str, Any]:
    """Path -> value of what the network stack shares."""
    return {
        resource.properties["Name"]: resource.properties["Value"]
        for resource in assembly.resources("AWS::SSM::Parameter")
        if resource.stack == "inference-dev-network"
    }


@pytest.mark.parametrize("form", ["existing", "existing, private", "existing, endpoints"])
def test_in_an_existing_vpc_only_security_groups_and_endpoints_are_made(
    forms: dict[str, Assembly], form: str
) -> None:
    types = {r.type for r in forms[form].resources() if r.type.startswith("AWS::EC2::")}
    if "endpoints" not in form:
        assert "AWS::EC2::VPCEndpoint" not in types
    assert types <= {
        "AWS::EC2::SecurityGroup",
        "AWS::EC2::SecurityGroupEgress",
        "AWS::EC2::SecurityGroupIngress",
        "AWS::EC2::VPCEndpoint",
    }


def test_an_existing_vpc_is_shared_under_the_same_names(dev: Assembly, forms: dict[str, Assembly]) -> None:
    shared = parameters(forms["existing"])
    assert shared.keys() == parameters(dev).keys()
    assert shared["/inference/dev/network/subnets/us-east-1b"] == "subnet-0b1b2c3d"


def test_an_existing_vpcs_endpoints_are_called_by_its_range(forms: dict[str, Assembly]) -> None:
    ranges = [rule["CidrIp"] for rule in rules(forms["existing, private"], "Egress") if "CidrIp" in rule]
    assert ranges == ["10.0.0.0/16"]


def test_the_s3_endpoint_of_an_existing_vpc_is_in_its_route_tables(forms: dict[str, Assembly]) -> None:
    assert endpoints(forms["existing, endpoints"])["s3"]["RouteTableIds"] == ["rtb-0a1b2c3d", "rtb-0b1b2c3d"]


def test_cdk_nag_has_no_unacknowledged_finding_in_any_form(forms: dict[str, Assembly]) -> None:
    for form, assembly in forms.items():
        packs = {plugin["pluginName"]: plugin["violations"] for plugin in assembly.report["pluginReports"]}
        for pack in NAG_PACKS:
            assert packs[pack] == [], form


def test_stacks_stay_free_of_exports_in_every_form(forms: dict[str, Assembly]) -> None:
    for form, assembly in forms.items():
        text = json.dumps(assembly.templates)
        assert '"Export"' not in text, form
        assert "Fn::ImportValue" not in text, form


def test_a_control_function_whose_service_has_no_known_endpoint_is_refused_by_name() -> None:
    network = NetworkStack(cdk.App(), environment(FORMS["private"]))
    statement = iam.PolicyStatement(actions=["support:DescribeTrustedAdvisorChecks"], resources=["*"])
    with pytest.raises(ValueError, match=r"support:Describe.* no endpoint of 'support' is known"):
        network.serve([statement])


def test_flow_logs_are_encrypted_and_kept_as_long_as_other_logs(prod: Assembly) -> None:
    flows = prod.one("AWS::EC2::FlowLog").properties
    assert (flows["TrafficType"], flows["LogDestinationType"]) == ("ALL", "cloud-watch-logs")
    group = prod.templates["inference-prod-network"]["Resources"][flows["LogGroupName"]["Ref"]]["Properties"]
    assert group["RetentionInDays"] == 365
    assert "KmsKeyId" in group


def test_a_model_of_two_or_more_instances_has_a_subnet_in_two_or_more_zones(prod: Assembly) -> None:
    platform = load_platform(ROOT, "prod")
    many = [m for m in platform.models if isinstance(m, GpuModel) and m.scaling.min >= 2]
    assert many
    for model in many:
        stack = f"inference-prod-model-{model.name}-{model.target}"
        config = prod.one("AWS::SageMaker::Model", stack).properties["VpcConfig"]
        paths = {prod.templates[stack]["Parameters"][s["Ref"]]["Default"] for s in config["Subnets"]}
        assert paths == {
            f"/inference/prod/network/subnets/{zone}" for zone in platform.environment.availability_zones
        }
        assert len(paths) >= 2
        variant = prod.one("AWS::SageMaker::EndpointConfig", stack).properties["ProductionVariants"][0]
        assert variant["InitialInstanceCount"] == model.scaling.min
