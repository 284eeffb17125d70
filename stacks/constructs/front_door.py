"""How the API is reached: from where, by which name, and past which firewall."""

from typing import Any

from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_wafv2 as waf

from catalog.edge import Domain, PrivateAccess
from stacks.base import PlatformStack

HTTPS = 443


class FrontDoor:
    """What an environment says under `api.domain`, `api.private` and `firewall`, for the API of a stack."""

    def __init__(self, stack: PlatformStack) -> None:
        self._stack = stack
        self._settings = stack.environment_config.api

    @property
    def api_options(self) -> dict[str, Any]:
        """What `SpecRestApi` is made with."""
        private, domain = self._settings.private, self._settings.domain
        kind = apigateway.EndpointType.PRIVATE if private else apigateway.EndpointType.REGIONAL
        return {
            "endpoint_configuration": apigateway.EndpointConfiguration(
                types=[kind], vpc_endpoints=self._vpc_endpoints(private) if private else None
            ),
            # The import itself has a default of its own, EDGE.
            "parameters": {"endpointConfigurationTypes": kind.value},
            "policy": _only_through(private) if private else None,
            "disable_execute_api_endpoint": domain is not None and not domain.keep_default_endpoint,
        }

    def open(self, api: apigateway.SpecRestApi) -> str:
        """Put the firewall before the API, name it, and return the address that clients use."""
        if self._stack.environment_config.firewall.enabled:
            self._guard(api.deployment_stage)
        private, domain = self._settings.private, self._settings.domain
        if domain is not None:
            self._name(domain, api)
            return f"https://{domain.name}"
        # Built from the region, not taken from the stage: clients get one form of the address everywhere.
        # The form with a VPC endpoint works whether or not that endpoint has private DNS.
        host = f"{api.rest_api_id}-{private.vpc_endpoint_ids[0]}" if private else api.rest_api_id
        stack = self._stack
        return f"https://{host}.execute-api.{stack.region}.{stack.url_suffix}/{stack.environment_config.name}"

    def _guard(self, stage: apigateway.Stage) -> None:
        stack = self._stack
        association = waf.CfnWebACLAssociation(
            stack,
            "Firewall",
            resource_arn=stage.stage_arn,
            web_acl_arn=stack.shared("firewall/web-acl-arn"),
        )
        # The ARN alone is made of names; only the stage itself can be guarded.
        association.node.add_dependency(stage)

    def _name(self, domain: Domain, api: apigateway.SpecRestApi) -> None:
        stack = self._stack
        name = apigateway.DomainName(
            stack,
            "Domain",
            domain_name=domain.name,
            certificate=acm.Certificate.from_certificate_arn(stack, "Certificate", domain.certificate_arn),
            endpoint_type=apigateway.EndpointType.REGIONAL,
            # TLS 1.3, and 1.2 with forward secrecy; the host of a request must be the one that TLS named.
            security_policy=apigateway.SecurityPolicy.TLS13_1_2_PFS_PQ_2025_09,
            endpoint_access_mode=apigateway.EndpointAccessMode.STRICT,
        )
        apigateway.BasePathMapping(
            stack, "DomainMapping", domain_name=name, rest_api=api, stage=api.deployment_stage
        )
        if domain.hosted_zone_id is not None:
            route53.CfnRecordSet(
                stack,
                "DomainAlias",
                hosted_zone_id=domain.hosted_zone_id,
                name=domain.name,
                type="A",
                alias_target=route53.CfnRecordSet.AliasTargetProperty(
                    dns_name=name.domain_name_alias_domain_name,
                    hosted_zone_id=name.domain_name_alias_hosted_zone_id,
                ),
            )

    def _vpc_endpoints(self, private: PrivateAccess) -> list[ec2.IVpcEndpoint]:
        return [
            ec2.InterfaceVpcEndpoint.from_interface_vpc_endpoint_attributes(
                self._stack, identifier, vpc_endpoint_id=identifier, port=HTTPS
            )
            for identifier in private.vpc_endpoint_ids
        ]


def _only_through(private: PrivateAccess) -> iam.PolicyDocument:
    """Admits requests that come through these VPC endpoints; who sends them, their tokens say."""
    return iam.PolicyDocument(
        statements=[
            iam.PolicyStatement(
                sid="OnlyThroughTheseEndpoints",
                principals=[iam.AnyPrincipal()],
                actions=["execute-api:Invoke"],
                resources=["execute-api:/*"],
                conditions={"StringEquals": {"aws:SourceVpce": list(private.vpc_endpoint_ids)}},
            )
        ]
    )
