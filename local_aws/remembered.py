"""Operations that MiniStack's services lack and that only have to remember what they are told."""

from __future__ import annotations

import time
import uuid

from ministack.core.responses import AccountRegionScopedDict

from local_aws import registry
from local_aws.wire import Json, ServiceError

_waf_logging = AccountRegionScopedDict()  # resource ARN -> LoggingConfiguration
_queries = AccountRegionScopedDict()  # query definition id -> QueryDefinition


def install() -> None:
    registry.extend(
        "wafv2",
        {
            "PutLoggingConfiguration": _put_waf_logging,
            "GetLoggingConfiguration": _get_waf_logging,
            "ListLoggingConfigurations": lambda request: {"LoggingConfigurations": _waf_logging.values()},
            "DeleteLoggingConfiguration": _delete_waf_logging,
        },
    )
    registry.extend(
        "logs",
        {
            "PutQueryDefinition": _put_query,
            "DescribeQueryDefinitions": _describe_queries,
            "DeleteQueryDefinition": _delete_query,
        },
    )


def _put_waf_logging(request: Json) -> Json:
    configuration = request["LoggingConfiguration"]
    for destination in configuration["LogDestinationConfigs"]:
        # The three services whose names must start so: WAF writes nowhere else.
        if not destination.rpartition(":")[2].rpartition("/")[2].startswith("aws-waf-logs-"):
            raise ServiceError(
                "WAFInvalidParameterException",
                f"The name of the log destination {destination} must start with aws-waf-logs-.",
            )
    _waf_logging[configuration["ResourceArn"]] = configuration
    return {"LoggingConfiguration": configuration}


def _get_waf_logging(request: Json) -> Json:
    configuration = _waf_logging.get(request["ResourceArn"])
    if configuration is None:
        raise ServiceError(
            "WAFNonexistentItemException", f"{request['ResourceArn']} has no logging configuration."
        )
    return {"LoggingConfiguration": configuration}


def _delete_waf_logging(request: Json) -> Json:
    if _waf_logging.pop(request["ResourceArn"], None) is None:
        raise ServiceError(
            "WAFNonexistentItemException", f"{request['ResourceArn']} has no logging configuration."
        )
    return {}


def _put_query(request: Json) -> Json:
    identifier = request.get("queryDefinitionId")
    if identifier is not None and identifier not in _queries:
        raise ServiceError("ResourceNotFoundException", f"The query definition {identifier} does not exist.")
    identifier = identifier or str(uuid.uuid4())
    kept = ("name", "queryString", "logGroupNames", "queryLanguage", "parameters")
    _queries[identifier] = {
        "queryLanguage": "CWLI",
        **{name: request[name] for name in kept if name in request},
        "queryDefinitionId": identifier,
        "lastModified": int(time.time() * 1000),
    }
    return {"queryDefinitionId": identifier}


def _describe_queries(request: Json) -> Json:
    prefix = request.get("queryDefinitionNamePrefix", "")
    found = [query for query in _queries.values() if query["name"].startswith(prefix)]
    return {"queryDefinitions": sorted(found, key=lambda query: query["name"])}


def _delete_query(request: Json) -> Json:
    if _queries.pop(request["queryDefinitionId"], None) is None:
        raise ServiceError(
            "ResourceNotFoundException",
            f"The query definition {request['queryDefinitionId']} does not exist.",
        )
    return {"success": True}
