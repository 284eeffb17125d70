"""CloudFormation types of services that MiniStack has, but that its CloudFormation does not make.

Each handler calls the service's own API (`local_aws.api`). What these resources then do, and what they only
remember, is said type by type in docs/embedded-aws.md.
"""

from __future__ import annotations

import uuid

from local_aws import api
from local_aws.cloudformation import Created, ResourceType, register
from local_aws.wire import Json


def install() -> None:
    for kind in (
        OIDC_PROVIDER,
        TRAIL,
        FLOW_LOG,
        INGRESS,
        EGRESS,
        WEB_ACL_ASSOCIATION,
        WAF_LOGGING,
        QUERY,
        COMPOSITE_ALARM,
        CONFIG_RULE,
        IDENTITY_PROVIDER,
        LOGIN_PAGES,
    ):
        register(kind)


def _only(properties: Json, *names: str) -> Json:
    return {name: properties[name] for name in names if properties.get(name) is not None}


def _own_tags(properties: Json) -> list[Json]:
    """The tags without those of CloudFormation itself, which only it may set."""
    return [tag for tag in properties.get("Tags") or [] if not tag["Key"].startswith("aws:")]


def _unchanged(physical_id: str, before: Json, after: Json) -> Created:
    """For types whose every property but the tags replaces them."""
    return physical_id, {"Id": physical_id}


# AWS::CloudTrail::Trail

_TRAIL_SETTINGS = (
    "S3BucketName",
    "S3KeyPrefix",
    "SnsTopicName",
    "IncludeGlobalServiceEvents",
    "IsMultiRegionTrail",
    "EnableLogFileValidation",
    "CloudWatchLogsLogGroupArn",
    "CloudWatchLogsRoleArn",
    "IsOrganizationTrail",
)


def _trail_settings(properties: Json) -> Json:
    key = {"KmsKeyId": properties["KMSKeyId"]} if properties.get("KMSKeyId") else {}
    return _only(properties, *_TRAIL_SETTINGS) | key


def _configure_trail(name: str, properties: Json) -> Created:
    for selectors in ("EventSelectors", "AdvancedEventSelectors"):
        if properties.get(selectors):
            api.call("cloudtrail", "PutEventSelectors", {"TrailName": name, selectors: properties[selectors]})
    logging = str(properties.get("IsLogging")).lower() == "true"
    api.call("cloudtrail", "StartLogging" if logging else "StopLogging", {"Name": name})
    trail = api.call("cloudtrail", "GetTrail", {"Name": name})["Trail"]
    if properties.get("Tags"):
        api.call("cloudtrail", "AddTags", {"ResourceId": trail["TrailARN"], "TagsList": properties["Tags"]})
    return name, {"Arn": trail["TrailARN"], "SnsTopicArn": trail.get("SnsTopicARN", "")}


def _create_trail(name: str, properties: Json) -> Created:
    api.call("cloudtrail", "CreateTrail", {"Name": name, **_trail_settings(properties)})
    return _configure_trail(name, properties)


def _update_trail(physical_id: str, before: Json, after: Json) -> Created:
    api.call("cloudtrail", "UpdateTrail", {"Name": physical_id, **_trail_settings(after)})
    return _configure_trail(physical_id, after)


TRAIL = ResourceType(
    "AWS::CloudTrail::Trail",
    create=_create_trail,
    update=_update_trail,
    delete=lambda physical_id, properties: _call("cloudtrail", "DeleteTrail", Name=physical_id),
    name_property="TrailName",
    longest_name=128,
    properties=(
        "TrailName",
        *_TRAIL_SETTINGS,
        "KMSKeyId",
        "IsLogging",
        "EventSelectors",
        "AdvancedEventSelectors",
        "Tags",
    ),
    replaced_by=("TrailName",),
)


# AWS::IAM::OIDCProvider


def _create_oidc_provider(name: str, properties: Json) -> Created:
    request = {
        "Url": properties["Url"],
        "ClientIDList": properties.get("ClientIdList", []),
        # AWS finds it out when it is left out; nobody is asked here.
        "ThumbprintList": properties.get("ThumbprintList") or ["0" * 40],
    }
    arn = api.call("iam", "CreateOpenIDConnectProvider", request)["OpenIDConnectProviderArn"]
    return arn, {"Arn": arn}


OIDC_PROVIDER = ResourceType(
    "AWS::IAM::OIDCProvider",
    create=_create_oidc_provider,
    update=lambda physical_id, before, after: (physical_id, {"Arn": physical_id}),
    delete=lambda physical_id, properties: _call(
        "iam", "DeleteOpenIDConnectProvider", OpenIDConnectProviderArn=physical_id
    ),
    properties=("Url", "ClientIdList", "ThumbprintList", "Tags"),
    replaced_by=("Url", "ClientIdList", "ThumbprintList"),
)


# AWS::EC2::FlowLog

_FLOW_LOG = (
    "ResourceType",
    "TrafficType",
    "LogDestinationType",
    "LogDestination",
    "LogGroupName",
    "LogFormat",
    "DeliverLogsPermissionArn",
    "DeliverCrossAccountRole",
    "MaxAggregationInterval",
    "DestinationOptions",
)


def _create_flow_log(name: str, properties: Json) -> Created:
    request = {"ResourceIds": [properties["ResourceId"]], **_only(properties, *_FLOW_LOG)}
    flow_log = api.call("ec2", "CreateFlowLogs", request)["FlowLogIds"][0]
    return _tag_flow_log(flow_log, {}, properties)


def _tag_flow_log(physical_id: str, before: Json, after: Json) -> Created:
    old = [tag for tag in _own_tags(before) if tag not in _own_tags(after)]
    if old:
        api.call("ec2", "DeleteTags", {"Resources": [physical_id], "Tags": old})
    if _own_tags(after):
        api.call("ec2", "CreateTags", {"Resources": [physical_id], "Tags": _own_tags(after)})
    return physical_id, {"Id": physical_id}


FLOW_LOG = ResourceType(
    "AWS::EC2::FlowLog",
    create=_create_flow_log,
    update=_tag_flow_log,
    delete=lambda physical_id, properties: _call("ec2", "DeleteFlowLogs", FlowLogIds=[physical_id]),
    properties=("ResourceId", *_FLOW_LOG, "Tags"),
    replaced_by=("ResourceId", *_FLOW_LOG),
)


# AWS::EC2::SecurityGroupIngress and Egress

_RULE = ("IpProtocol", "FromPort", "ToPort", "CidrIp", "CidrIpv6", "Description")
_PEER = {
    "Ingress": (
        "SourceSecurityGroupId",
        "SourceSecurityGroupName",
        "SourceSecurityGroupOwnerId",
        "SourcePrefixListId",
    ),
    "Egress": ("DestinationSecurityGroupId", "DestinationPrefixListId"),
}


def _permission(properties: Json) -> Json:
    """The rule as EC2's API has it."""
    note = _only(properties, "Description")
    permission = _only(properties, "IpProtocol", "FromPort", "ToPort")
    group = properties.get("SourceSecurityGroupId") or properties.get("DestinationSecurityGroupId")
    prefixes = properties.get("SourcePrefixListId") or properties.get("DestinationPrefixListId")
    if properties.get("CidrIp"):
        permission["IpRanges"] = [{"CidrIp": properties["CidrIp"], **note}]
    if properties.get("CidrIpv6"):
        permission["Ipv6Ranges"] = [{"CidrIpv6": properties["CidrIpv6"], **note}]
    if group:
        permission["UserIdGroupPairs"] = [{"GroupId": group, **note}]
    if prefixes:
        permission["PrefixListIds"] = [{"PrefixListId": prefixes, **note}]
    return permission


def _rule(direction: str) -> ResourceType:
    def create(name: str, properties: Json) -> Created:
        group, permission = properties["GroupId"], _permission(properties)
        request = {"GroupId": group, "IpPermissions": [permission]}
        answer = api.call("ec2", f"AuthorizeSecurityGroup{direction}", request)
        rules = [rule["SecurityGroupRuleId"] for rule in answer.get("SecurityGroupRules") or []]
        identifier = rules[0] if rules else name
        return identifier, {"Id": identifier}

    def delete(physical_id: str, properties: Json) -> None:
        request = {"GroupId": properties["GroupId"], "IpPermissions": [_permission(properties)]}
        api.call("ec2", f"RevokeSecurityGroup{direction}", request)

    return ResourceType(
        f"AWS::EC2::SecurityGroup{direction}",
        create=create,
        update=_unchanged,
        delete=delete,
        properties=("GroupId", *_RULE, *_PEER[direction]),
        replaced_by=("GroupId", *_RULE, *_PEER[direction]),
    )


INGRESS, EGRESS = _rule("Ingress"), _rule("Egress")


# AWS::WAFv2::WebACLAssociation and ::LoggingConfiguration


def _associate(name: str, properties: Json) -> Created:
    api.call("wafv2", "AssociateWebACL", properties)
    return f"{properties['WebACLArn']}|{properties['ResourceArn']}", {}


WEB_ACL_ASSOCIATION = ResourceType(
    "AWS::WAFv2::WebACLAssociation",
    create=_associate,
    update=_unchanged,
    delete=lambda physical_id, properties: _call(
        "wafv2", "DisassociateWebACL", ResourceArn=properties["ResourceArn"]
    ),
    properties=("ResourceArn", "WebACLArn"),
    replaced_by=("ResourceArn", "WebACLArn"),
)


def _put_waf_logging(properties: Json) -> Created:
    api.call("wafv2", "PutLoggingConfiguration", {"LoggingConfiguration": properties})
    return properties["ResourceArn"], {"ManagedByFirewallManager": False}


WAF_LOGGING = ResourceType(
    "AWS::WAFv2::LoggingConfiguration",
    create=lambda name, properties: _put_waf_logging(properties),
    update=lambda physical_id, before, after: _put_waf_logging(after),
    delete=lambda physical_id, properties: _call(
        "wafv2", "DeleteLoggingConfiguration", ResourceArn=physical_id
    ),
    properties=("ResourceArn", "LogDestinationConfigs", "LoggingFilter", "RedactedFields"),
    replaced_by=("ResourceArn",),
)


# AWS::Logs::QueryDefinition


def _put_query(properties: Json, existing: str | None) -> Created:
    request = {
        "name": properties["Name"],
        "queryString": properties["QueryString"],
        "logGroupNames": properties.get("LogGroupNames"),
        "queryLanguage": properties.get("QueryLanguage"),
        "parameters": [
            {name[:1].lower() + name[1:]: value for name, value in parameter.items()}
            for parameter in properties.get("Parameters") or []
        ]
        or None,
        "queryDefinitionId": existing,
    }
    given = {name: value for name, value in request.items() if value is not None}
    identifier = api.call("logs", "PutQueryDefinition", given)["queryDefinitionId"]
    return identifier, {"QueryDefinitionId": identifier}


QUERY = ResourceType(
    "AWS::Logs::QueryDefinition",
    create=lambda name, properties: _put_query(properties, None),
    update=lambda physical_id, before, after: _put_query(after, physical_id),
    delete=lambda physical_id, properties: _call(
        "logs", "DeleteQueryDefinition", queryDefinitionId=physical_id
    ),
    properties=("Name", "QueryString", "LogGroupNames", "QueryLanguage", "Parameters"),
    replaced_by=(),
)


# AWS::CloudWatch::CompositeAlarm

_COMPOSITE = (
    "AlarmRule",
    "AlarmDescription",
    "ActionsEnabled",
    "AlarmActions",
    "OKActions",
    "InsufficientDataActions",
)


def _put_composite(name: str, properties: Json) -> Created:
    request = {"AlarmName": name, **_only(properties, *_COMPOSITE), "Tags": _own_tags(properties)}
    api.call("cloudwatch", "PutCompositeAlarm", request)
    described = api.call(
        "cloudwatch", "DescribeAlarms", {"AlarmNames": [name], "AlarmTypes": ["CompositeAlarm"]}
    )
    return name, {"Arn": described["CompositeAlarms"][0]["AlarmArn"]}


COMPOSITE_ALARM = ResourceType(
    "AWS::CloudWatch::CompositeAlarm",
    create=_put_composite,
    update=lambda physical_id, before, after: _put_composite(physical_id, after),
    delete=lambda physical_id, properties: _call("cloudwatch", "DeleteAlarms", AlarmNames=[physical_id]),
    name_property="AlarmName",
    longest_name=255,
    properties=("AlarmName", *_COMPOSITE, "Tags"),
    replaced_by=("AlarmName",),
)


# AWS::Config::ConfigRule

_CONFIG_RULE = ("Description", "Source", "Scope", "InputParameters", "MaximumExecutionFrequency")


def _put_config_rule(name: str, properties: Json) -> Created:
    # Without a recorder AWS Config takes no rule.
    if not api.call("config", "DescribeConfigurationRecorders", {})["ConfigurationRecorders"]:
        raise ValueError("NoAvailableConfigurationRecorderException: there is no configuration recorder.")
    api.call(
        "config",
        "PutConfigRule",
        {"ConfigRule": {"ConfigRuleName": name, **_only(properties, *_CONFIG_RULE)}},
    )
    [rule] = api.call("config", "DescribeConfigRules", {"ConfigRuleNames": [name]})["ConfigRules"]
    return name, {"Arn": rule["ConfigRuleArn"], "ConfigRuleId": rule["ConfigRuleId"]}


CONFIG_RULE = ResourceType(
    "AWS::Config::ConfigRule",
    create=_put_config_rule,
    update=lambda physical_id, before, after: _put_config_rule(physical_id, after),
    delete=lambda physical_id, properties: _call("config", "DeleteConfigRule", ConfigRuleName=physical_id),
    name_property="ConfigRuleName",
    longest_name=128,
    properties=("ConfigRuleName", *_CONFIG_RULE),
    replaced_by=("ConfigRuleName",),
)


# AWS::Cognito::UserPoolIdentityProvider

_PROVIDER = ("ProviderDetails", "AttributeMapping", "IdpIdentifiers")


def _create_identity_provider(name: str, properties: Json) -> Created:
    request = _only(properties, "UserPoolId", "ProviderName", "ProviderType", *_PROVIDER)
    api.call("cognito-idp", "CreateIdentityProvider", request)
    return properties["ProviderName"], {}


def _update_identity_provider(physical_id: str, before: Json, after: Json) -> Created:
    api.call(
        "cognito-idp",
        "UpdateIdentityProvider",
        _only(after, "UserPoolId", *_PROVIDER) | {"ProviderName": physical_id},
    )
    return physical_id, {}


IDENTITY_PROVIDER = ResourceType(
    "AWS::Cognito::UserPoolIdentityProvider",
    create=_create_identity_provider,
    update=_update_identity_provider,
    delete=lambda physical_id, properties: _call(
        "cognito-idp",
        "DeleteIdentityProvider",
        UserPoolId=properties["UserPoolId"],
        ProviderName=physical_id,
    ),
    properties=("UserPoolId", "ProviderName", "ProviderType", *_PROVIDER),
    replaced_by=("UserPoolId", "ProviderName", "ProviderType"),
)


# AWS::Cognito::ManagedLoginBranding

_BRANDING = ("UserPoolId", "ClientId", "UseCognitoProvidedValues", "Settings", "Assets")

LOGIN_PAGES = ResourceType(
    "AWS::Cognito::ManagedLoginBranding",
    create=lambda name, properties: (f"{properties['UserPoolId']}|{uuid.uuid4()}", {}),
    update=lambda physical_id, before, after: (physical_id, {}),
    # The login pages look as MiniStack draws them.
    delete=lambda physical_id, properties: None,
    properties=_BRANDING,
    replaced_by=("UserPoolId", "ClientId"),
)


def _call(service: str, operation: str, **parameters: object) -> None:
    api.call(service, operation, parameters)
