"""The embedded AWS with a SageMaker that answers what the request's body asks for; the tests start it."""

import asyncio
import base64
import json
import os
from collections.abc import Mapping

from ministack import app as ministack

from local_aws import extensions, gateway, server
from local_aws.state import Home

Http = tuple[int, dict[str, str], bytes]


async def invoke_endpoint(
    account: str, region: str, endpoint_name: str, headers: Mapping[str, str], body: bytes
) -> Http:
    """`echo` answers with the request it got; `script` with what its JSON body says; others do not exist."""
    if endpoint_name == "echo":
        seen = {"region": region, "headers": dict(headers), "body": base64.b64encode(body).decode()}
        return 200, {"Content-Type": "application/json"}, json.dumps(seen).encode()
    if endpoint_name != "script":
        return 400, {"Content-Type": "application/json"}, b'{"Message":"Endpoint not found"}'
    script = json.loads(body)
    await asyncio.sleep(script.get("sleep", 0))
    answer = base64.b64decode(script["base64"]) if "base64" in script else script.get("body", "").encode()
    return script.get("status", 200), script.get("headers", {}), answer


async def control(method: str, path: str, headers: Mapping[str, str], body: bytes, query: object) -> Http:
    """The SageMaker API: every endpoint that is described is in service."""
    if headers["x-amz-target"] != "SageMaker.DescribeEndpoint":
        return 400, {}, b""
    name = json.loads(body)["EndpointName"]
    return 200, {}, json.dumps({"EndpointName": name, "EndpointStatus": "InService"}).encode()


if __name__ == "__main__":
    home = Home.resolve()
    extensions.install(home)
    gateway.install(invoke_endpoint)
    ministack.SERVICE_HANDLERS["sagemaker"] = control
    asyncio.run(server._serve(home, int(os.environ["GATEWAY_PORT"])))
