"""API Gateway's REST data plane, executed as AWS documents it.

MiniStack keeps the control plane, authorizers, throttles, quotas and request validation; this package owns
what happens to one request between them, in this order:

    pipeline      route, checks, integration, answer, records
    deployments   the snapshot of the API that a stage serves
    mapping       what reaches the backend, and what of its answer reaches the client
    backends      Lambda, SageMaker, MOCK and HTTP
    access        whether the integration's role, or the function's policy, lets API Gateway call
    faults        the answers that API Gateway gives itself: gateway responses
    records       the access log and the metrics
    openapi       an API from its OpenAPI document, all of it or nothing
    provisioning  what CloudFormation and the control plane must carry, and refuse, for the above
"""

from local_aws.gateway.backends import InvokeEndpoint

__all__ = ["InvokeEndpoint", "install"]


def install(invoke_endpoint: InvokeEndpoint | None = None) -> None:
    """Replace MiniStack's execution of REST APIs in this process.

    Args:
        invoke_endpoint: SageMaker Runtime's InvokeEndpoint; by default the local SageMaker's.
    """
    from local_aws.gateway import backends, pipeline, provisioning

    if invoke_endpoint is None:
        from local_aws.sagemaker import runtime

        invoke_endpoint = runtime.invoke_endpoint
    backends.invoke_endpoint = invoke_endpoint
    if not pipeline.installed():
        provisioning.install()
        pipeline.install()
