"""What these tests deploy: any environment with any models, and a model of one multiplication."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import aws_cdk as cdk
from onnx import TensorProto, helper

import local_aws
from app import ROOT, build
from catalog.environment import Environment
from catalog.model import ModelSpec
from inferctl import cdk as cdk_cli
from inference_runtime.manifest import Artifact
from tests.integration.platform.conftest import Platform
from tests.unit.runtime import tiny

DOUBLE = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,-2.5]}]}'
"""A request to the model that doubles."""


def deploy(platform: Platform, environment: Environment, models: Sequence[ModelSpec], assembly: Path) -> None:
    """What `cdk deploy --all` does, with the assembly written to a folder."""
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    # As the CDK command line asks for it, so that what has not changed is not deployed again.
    context["aws:cdk:enable-path-metadata"] = context["aws:cdk:enable-asset-metadata"] = True
    app = cdk.App(outdir=str(assembly), context=context)
    build(app, environment, models)
    app.synth()
    state = local_aws.status(home=platform.home)
    assert state is not None
    done = subprocess.run(
        cdk_cli.deploy(assembly, concurrency=4),
        capture_output=True,
        text=True,
        cwd=assembly.parent,
        env=cdk_cli.variables(local_aws.environment(state)),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def doubling(folder: Path, name: str) -> Artifact:
    """The artifact of a model that doubles numbers."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])],
    )
    golden = {
        "sample.json": b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[3]}]}',
        "expected.json": b'{"outputs":{"y":{"equals":[6]}}}',
    }
    return tiny.artifact(folder, graph, [("x", "FP32", (-1,))], [("y", "FP32", (-1,))], files=golden)
