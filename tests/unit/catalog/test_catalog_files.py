"""What a catalog file may say, and what it is told when it says something else."""

# ruff: noqa: E501  a case and what it is told stand on one line

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from catalog import (
    CatalogError,
    CpuModel,
    Environment,
    GpuModel,
    load_catalog,
    load_environment,
    load_model,
    load_platform,
)
from catalog import schema as generated

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = ROOT / "tests" / "samples"

CPU = """\
name: tiny
description: A tiny model.
owner: ml
target: cpu
version: 1.0.0
"""
GPU = CPU.replace("target: cpu", "target: gpu") + "gpu: {instance_type: ml.g5.xlarge}\n"
ENVIRONMENT = """\
name: dev
account: null
region: us-east-1
availability_zones: [us-east-1a, us-east-1b]
network: {cidr: 10.0.0.0/16}
"""


def write(folder: Path, path: str, text: str | bytes) -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refused(call: Callable[[], object]) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        call()
    return str(caught.value).splitlines()


def model_problems(tmp_path: Path, text: str | bytes) -> list[str]:
    return refused(lambda: load_model(write(tmp_path, "models/tiny/model.yaml", text)))


def environment_problems(tmp_path: Path, text: str, name: str = "dev") -> list[str]:
    write(tmp_path, f"config/{name}.yaml", text)
    return refused(lambda: load_environment(tmp_path / "config", name))


class TestSamples:
    def test_the_minimal_model_gets_the_documented_defaults(self, tmp_path: Path) -> None:
        text = (SAMPLES / "model.minimal.yaml").read_text()
        spec = load_model(write(tmp_path, "minimal/model.yaml", text))
        assert isinstance(spec, CpuModel)
        assert (spec.cpu.memory_mb, spec.cpu.timeout_seconds, spec.limits.inline_bytes) == (1769, 29, 4194304)
        assert (spec.artifact.source, spec.artifact.sha256) == ("local", None)

    def test_the_comprehensive_model_keeps_every_value_that_it_gives(self, tmp_path: Path) -> None:
        text = (SAMPLES / "model.comprehensive.yaml").read_text()
        spec = load_model(write(tmp_path, "comprehensive/model.yaml", text))
        assert isinstance(spec, GpuModel)
        assert spec.model_dump(mode="json", exclude_unset=True) == YAML(typ="safe").load(text)

    def test_the_minimal_environment_is_private_kept_and_audited_by_default(self, tmp_path: Path) -> None:
        write(tmp_path, "minimal.yaml", (SAMPLES / "environment.minimal.yaml").read_text())
        environment = load_environment(tmp_path, "minimal")
        assert environment.retention.keep_data
        assert environment.audit.trail
        assert not environment.clients

    def test_the_comprehensive_environment_keeps_every_value_that_it_gives(self, tmp_path: Path) -> None:
        text = (SAMPLES / "environment.comprehensive.yaml").read_text()
        write(tmp_path, "stage.yaml", text)
        given = YAML(typ="safe").load(text)
        assert load_environment(tmp_path, "stage").model_dump(mode="json", exclude_unset=True) == given

    @pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.*.yaml")), ids=lambda path: path.stem)
    def test_samples_fit_the_published_json_schema(self, sample: Path) -> None:
        name = sample.name.split(".")[0]
        schema = json.loads((ROOT / f"catalog/schemas/{name}.schema.json").read_text())
        jsonschema.validate(YAML(typ="safe").load(sample), schema)


class TestRepository:
    @pytest.mark.parametrize("name", ["local", "dev", "prod"])
    def test_every_environment_goes_with_the_catalog(self, name: str) -> None:
        platform = load_platform(ROOT, name)
        assert platform.environment.name == name
        assert [spec.name for spec in platform.models] == sorted(spec.name for spec in platform.models)

    def test_production_needs_no_lookup_and_keeps_its_data(self) -> None:
        production = load_environment(ROOT / "config", "prod")
        assert production.account
        assert len(production.availability_zones) == 3
        assert production.retention.keep_data

    def test_schemas_and_reference_are_what_the_models_say(self) -> None:
        assert generated.main(["--check"]) == 0

    def test_a_stale_generated_file_fails_the_check_by_name(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(generated, "ROOT", tmp_path)
        assert generated.main([]) == 0
        assert generated.main(["--check"]) == 0
        (tmp_path / "docs/catalog.md").write_text("by hand")
        assert generated.main(["--check"]) == 1
        assert "docs/catalog.md is not what the catalog's models say" in capsys.readouterr().err

    def test_every_field_is_documented(self) -> None:
        for schema in (CpuModel, GpuModel, Environment):
            published = schema.model_json_schema()
            for section in (published, *published["$defs"].values()):
                for name, field in section["properties"].items():
                    assert field.get("description") or "$ref" in field, f"{section['title']}.{name}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CPU + "cpu: {memry_mb: 1}", "6: cpu.memry_mb: unknown key 'memry_mb', did you mean 'memory_mb'?"),
        (CPU + "x: 1", "6: x: unknown key 'x', must be one of name, description, owner, registry, version, artifact, limits, access, slo, capture, drift, release, target, cpu"),
        (CPU + "'[key]': 1", "6: [key]: unknown key '[key]', must be one of name, description, owner, registry, version, artifact, limits, access, slo, capture, drift, release, target, cpu"),
        (CPU + "cpu: {memory_mb: 64}", "6: cpu.memory_mb: 64 is not allowed: must be >= 128"),
        (CPU + "cpu: {memory_mb: '1024'}", "6: cpu.memory_mb: '1024' is not allowed: must be a whole number, without quotes"),
        (CPU + "cpu:\n  timeout_seconds: 30", "7: cpu.timeout_seconds: 30 is not allowed: must be <= 29"),
        (CPU + "cpu:\n", "6: cpu: null is not allowed: must be a mapping of keys to values"),
        (CPU + "limits: {inline_bytes: 4194305}", "6: limits.inline_bytes: 4194305 is not allowed: must be <= 4194304"),
        (CPU + "slo: {availability_percent: .nan}", "6: slo.availability_percent: nan is not allowed: must be a finite number"),
        (CPU + "gpu: {instance_type: ml.g5.xlarge}", "6: gpu: is for target: gpu only, and this model's target is cpu: remove it, or change the target"),
        (CPU + "scaling: {min: 1}", "6: scaling: is for target: gpu only: Lambda scales by itself, and cpu.reserved_concurrency caps it"),
        (GPU + "cpu: {}", "7: cpu: is for target: cpu only, and this model's target is gpu: remove it, or change the target"),
        (GPU + "scaling: {min: -1}", "7: scaling.min: -1 is not allowed: must be >= 0"),
        (GPU + "scaling: {min: 0}\nrelease: {canary_percent: 10}", "8: release.canary_percent: 10 is not allowed: must be 0 where scaling.min is 0: the copies of a model that sleeps are replaced one by one, without a share for a canary. Leave it out, or set scaling.min to 1 or more"),
        (GPU.replace("xlarge", "xlarge, copy_memory_mb: 2048"), "6: gpu.copy_memory_mb: 2048 is not allowed: is for scaling.min: 0 only: otherwise the model has its instances to itself"),
        (GPU.replace("xlarge", "xlarge, copy_gpus: 2") + "scaling: {min: 0}", "6: gpu.copy_gpus: 2 is not allowed: must be <= 1, the GPUs of ml.g5.xlarge"),
        (GPU + "scaling:\n  min: 3\n  max: 2", "9: scaling.max: 2 is not allowed: must be >= scaling.min (3)"),
        (CPU + "release: {canary_percent: 51}", "6: release.canary_percent: 51 is not allowed: must be <= 50"),
        (GPU + "release: {bake_minutes: 0}", "7: release.bake_minutes: 0 is not allowed: must be >= 0.05"),
        (GPU + "release: {bake_minutes: 2.9}", "7: release.bake_minutes: 2.9 is not allowed: must be >= 3: so long SageMaker's alarms need to take a version back. Raise it"),
        (GPU + "capture: {percent: 1}\nrelease: {bake_minutes: 4}", "8: release.bake_minutes: 4.0 is not allowed: must be >= 5: so long SageMaker's alarms need to take a version back, and captures to show what it answered. Raise it, or set release.prediction_shift to null"),
        (GPU + "release: {bake_minutes: 1}\nscaling: {min: 0}", "7: release.bake_minutes: 1.0 is not allowed: must be >= 3: so long SageMaker's alarms need to take a version back. Raise it"),
        (CPU + "capture: {percent: 101}", "6: capture.percent: 101 is not allowed: must be <= 100"),
        (CPU + "capture: {percent: 1, redact: ['a b']}", "6: capture.redact[0]: 'a b' is not allowed: must be a tensor's name: letters, digits and . _ - /, at most 128"),
        (GPU + "capture: {percent: 1, redact: [text]}", "7: capture.redact: ['text'] is not allowed: is for target: cpu only: SageMaker captures whole bodies. Say by capture.keep which side is kept, or set capture.percent to 0"),
        (CPU + "drift: {min_samples: 500, max_samples: 400}", "6: drift.max_samples: 400 is not allowed: must be >= drift.min_samples (500)"),
        (CPU + "drift: {every_hours: 5}", "6: drift.every_hours: 5 is not allowed: must be one of 1, 2, 4, 6, 8, 12 or 24"),
        (GPU + "slo: {p50_ms: 9}", "7: slo.p50_ms: 9 is not allowed: is for target: cpu only: a new version is tried on a CPU, whose times say nothing of a GPU's"),
        (CPU + "registry: -wine", "6: registry: '-wine' is not allowed: The SageMaker model package group whose approved packages are released as this model. Left out: `inference-<env>-<model>`"),
        (GPU + "scaling: {min: 3}", "7: scaling.max: 2 is not allowed: must be >= scaling.min (3)"),
        (CPU.replace("cpu", "tpu"), "4: target: 'tpu' is not allowed: must be 'cpu' (a Lambda function) or 'gpu' (a SageMaker endpoint)"),
        (CPU.replace("target: cpu\n", ""), "1: target: is required: 'cpu' (a Lambda function) or 'gpu' (a SageMaker endpoint)"),
        (CPU.replace("1.0.0", "1.0"), "5: version: 1.0 is not allowed: must be text (put it in quotes if it looks like a number)"),
        (CPU.replace("1.0.0", "v1"), "5: version: 'v1' is not allowed: Semantic version of the artifact, as `1.0.0`; clients see it in answers"),
        (CPU.replace("owner: ml\n", ""), "1: owner: is required: The team that answers for the model; becomes the tag `inference:owner`. Up to 128 letters, digits, spaces and . _ @ + -"),
        (CPU + "artifact: {source: s3://bucket/a/}", "6: artifact.sha256: null is not allowed: is required when artifact.source is an s3:// address"),
        (CPU + f"artifact: {{sha256: {'a' * 64}}}", f"6: artifact.sha256: '{'a' * 64}' is not allowed: must be left out when artifact.source is 'local': it is computed"),
        (CPU.replace("tiny\n", "other\n"), "1: name: 'other' is not allowed: must be the folder's name, 'tiny'"),
    ],
)  # fmt: skip
def test_a_refused_value_is_told_its_line_its_field_and_what_is_allowed(
    tmp_path: Path, text: str, problem: str
) -> None:
    assert model_problems(tmp_path, text) == [f"models/tiny/model.yaml:{problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CPU + "owner: me\n", "6: owner: duplicate key 'owner': already given in line 3"),
        (CPU + "cpu: &x {memory_mb: 128}\n", "6: cpu: anchors and aliases are not supported: write the value out"),
        (CPU + "cpu: !!python/name:os.system {}", "6: cpu: the tag 'tag:yaml.org,2002:python/name:os.system' is not supported: remove it"),
        (CPU + "<<: {a: 1}", "6: '<<' is not a plain text key: must be a name, in quotes if need be"),
        (CPU + "1: 2", "6: '1' is not a plain text key: must be a name, in quotes if need be"),
        (CPU + "cpu: {memory_mb: " + "9" * 5000 + "}", "6: cpu.memory_mb: '" + "9" * 76 + "... cannot be read: must be a shorter number"),
        ("", "1: is empty: must be one YAML mapping of keys to values"),
        ("- a", "1: is not a mapping: must be one YAML mapping of keys to values"),
        (CPU + "---\na: 1", "6: is not valid YAML: but found another document"),
        (CPU + "a: *b", "6: is not valid YAML: found undefined alias 'b'"),
        ("a: [", "1: is not valid YAML"),
        ("\ta: 1", "1: is not valid YAML: found character '\\t' that cannot start any token"),
        (b"name: \xff", "1: is not UTF-8 text: byte 6 cannot be decoded"),
        (b"name: \x1b[31m", "1: is not valid YAML"),
        ("[" * 1000, "1: is nested too deeply"),
        ("a" * 300000, "1: is 300000 bytes large: must be at most 262144"),
    ],
)  # fmt: skip
def test_what_is_more_than_plain_yaml_is_refused(tmp_path: Path, text: str | bytes, problem: str) -> None:
    lines = model_problems(tmp_path, text)
    assert lines[0].startswith(f"models/tiny/model.yaml:{problem}")
    assert all(len(line) < 250 for line in lines)


@pytest.mark.parametrize("instance", ["ml.m5.large", "ml.inf2.xlarge", "ml.p2.xlarge", "ml.g5dn.xlarge"])
def test_a_gpu_model_on_an_instance_without_a_usable_gpu_is_refused_naming_the_families(
    tmp_path: Path, instance: str
) -> None:
    (line,) = model_problems(tmp_path, GPU.replace("ml.g5.xlarge", instance))
    assert line.startswith(
        f"models/tiny/model.yaml:6: gpu.instance_type: '{instance}' is not allowed: must be of"
    )
    assert "g4dn, g5, g6, g6e" in line
    assert "target: cpu" in line


@pytest.mark.parametrize(
    ("instance", "nearest"),
    [("ml.g5.3xlarge", "ml.g5.xlarge"), ("ml.p5.xlarge", "ml.p5.4xlarge"), ("ml.g6.4large", "ml.g6.4xlarge")],
)
def test_an_instance_type_that_does_not_exist_is_refused_naming_the_nearest(
    tmp_path: Path, instance: str, nearest: str
) -> None:
    (line,) = model_problems(tmp_path, GPU.replace("ml.g5.xlarge", instance))
    refused, _, names = line.partition("; the nearest are ")
    assert refused == (
        f"models/tiny/model.yaml:6: gpu.instance_type: '{instance}' is not allowed: "
        "is not an instance type of SageMaker endpoints"
    )
    assert nearest in names.split(", ")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"account: null": "account: 111122223333"}, "2: account: 111122223333 is not allowed: must be text (put it in quotes if it looks like a number)"),
        ({"us-east-1b": "us-east-1a"}, "4: availability_zones[1]: 'us-east-1a' is not allowed: is listed twice"),
        ({"us-east-1b": "us-west-2b"}, "4: availability_zones[1]: 'us-west-2b' is not allowed: must be a zone of us-east-1: us-east-1a, us-east-1b, us-east-1c, us-east-1d, us-east-1e, us-east-1f"),
        ({", us-east-1b": ""}, "4: availability_zones: ['us-east-1a'] is not allowed: must have at least 2 item(s)"),
        ({"10.0.0.0/16": "10.0.0.1/16"}, "5: network.cidr: '10.0.0.1/16' is not allowed: must be an IPv4 network address, as 10.20.0.0/16 (10.0.0.1/16 has host bits set)"),
        ({"10.0.0.0/16": "10.0.0.0/24"}, "5: network.cidr: '10.0.0.0/24' is not allowed: must have a prefix from /16 to /22: room for every zone's subnets"),
        ({"network:": "retention: {logs_days: 31}\nnetwork:"}, "5: retention.logs_days: 31 is not allowed: must be one of 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653"),
        ({"network:": "clients: [{name: abc, scopes: [read]}]\nnetwork:"}, "5: clients[0].scopes[0]: 'read' is not allowed: What its tokens allow: `invoke` (call the models that share this scope), `invoke.<model>` (call a model that has a scope of its own), `admin` (read the platform's state; no inference)"),
        ({"network:": "clients: [{name: abc, scopes: []}]\nnetwork:"}, "5: clients[0].scopes: [] is not allowed: must have at least 1 item(s)"),
        ({"network:": "containers: {onnx: {}}\nnetwork:"}, "5: containers.onnx: {} is not allowed: must have either image_uri: <ECR address> or build: true"),
        ({"network:": "containers: {onnx: {image_uri: 111122223333.dkr.ecr.eu-west-1.amazonaws.com/a:1, base_image: python}}\nnetwork:"}, "5: containers.onnx: 'python' is not allowed: is for build: true only: an image_uri is already built"),
        ({"network:": "containers: {Onnx: {build: true}}\nnetwork:"}, "5: containers.Onnx: 'Onnx' is not allowed: must match ^[a-z][a-z0-9-]{1,30}[a-z0-9]$"),
        ({"name: dev": "name: prod"}, "1: name: 'prod' is not allowed: must be the file's name, 'dev'"),
    ],
)  # fmt: skip
def test_a_refused_environment_value_is_told_the_same_way(
    tmp_path: Path, change: dict[str, str], problem: str
) -> None:
    text = ENVIRONMENT
    for old, new in change.items():
        text = text.replace(old, new)
    assert environment_problems(tmp_path, text) == [f"config/dev.yaml:{problem}"]


def test_two_clients_of_one_name_are_refused_at_the_second(tmp_path: Path) -> None:
    client = "  - name: app\n    scopes: [invoke]\n"
    (line,) = environment_problems(tmp_path, f"{ENVIRONMENT}clients:\n{client}{client}")
    assert line == "config/dev.yaml:9: clients[1].name: 'app' is not allowed: is the name of another client"


def test_host_functions_are_for_the_embedded_aws_only(tmp_path: Path) -> None:
    text = ENVIRONMENT + "functions:\n  python: host\n  architecture: host\n"
    assert environment_problems(tmp_path, text) == [
        "config/dev.yaml:7: functions.python: 'host' is not allowed: is for the environment 'local' only, where "
        "this machine runs the functions: AWS Lambda needs a named version",
        "config/dev.yaml:8: functions.architecture: 'host' is not allowed: is for the environment 'local' only, "
        "where this machine runs the functions: AWS Lambda needs a named instruction set",
    ]
    write(tmp_path, "config/local.yaml", text.replace("dev", "local"))
    assert load_environment(tmp_path / "config", "local").functions.python == "host"


def test_an_unknown_environment_is_told_which_there_are(tmp_path: Path) -> None:
    write(tmp_path, "config/dev.yaml", ENVIRONMENT)
    write(tmp_path, "config/prod.yaml", ENVIRONMENT)
    (line,) = refused(lambda: load_environment(tmp_path / "config", "prd"))
    assert line == "config/prd.yaml:1: there is no environment 'prd': there are dev, prod"


def test_all_problems_of_all_files_come_at_once_in_order(tmp_path: Path) -> None:
    write(tmp_path, "config/dev.yaml", ENVIRONMENT.replace("us-east-1b", "us-east-9b"))
    write(tmp_path, "models/tiny/model.yaml", CPU + "cpu: {memory_mb: 1, timeout_seconds: 0}\nz: 1\n")
    write(tmp_path, "models/aaa/model.yaml", CPU.replace("tiny", "aaa") + "target: gpu\n")
    lines = refused(lambda: load_platform(tmp_path, "dev"))
    assert [line.split(": ")[0] for line in lines] == [
        "config/dev.yaml:4",
        "models/aaa/model.yaml:6",
        "models/tiny/model.yaml:6",
        "models/tiny/model.yaml:6",
        "models/tiny/model.yaml:7",
    ]


def test_models_are_sorted_by_name_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("zebra", "apple"):
        write(tmp_path, f"{name}/model.yaml", CPU.replace("tiny", name))
    write(tmp_path, "README.md", "not a model")
    assert [spec.name for spec in load_catalog(tmp_path)] == ["apple", "zebra"]


class TestContainers:
    def platform(self, tmp_path: Path, containers: str) -> Path:
        write(tmp_path, "models/tiny/model.yaml", GPU)
        write(tmp_path, "config/dev.yaml", ENVIRONMENT + containers)
        return tmp_path

    def test_a_gpu_model_needs_the_folder_of_its_container(self, tmp_path: Path) -> None:
        root = self.platform(tmp_path, "containers: {onnx: {build: true}}\n")
        write(root, "inference_containers/torch/Dockerfile", "FROM x")
        (line,) = refused(lambda: load_platform(root, "dev"))
        assert (
            "gpu.container: 'onnx' is not allowed: must be a folder of inference_containers/ (torch)" in line
        )

    def test_a_gpu_model_needs_an_image_in_the_environment(self, tmp_path: Path) -> None:
        root = self.platform(tmp_path, "")
        write(root, "inference_containers/onnx/Dockerfile", "FROM x")
        (line,) = refused(lambda: load_platform(root, "dev"))
        assert "'onnx' has no image in config/dev.yaml: add it under containers there" in line

    @pytest.mark.parametrize(("region", "sleeps"), [("eu-west-1", True), ("eu-west-3", False)])
    def test_a_gpu_model_sleeps_where_its_region_has_inference_components(
        self, tmp_path: Path, region: str, sleeps: bool
    ) -> None:
        root = self.platform(tmp_path, "containers: {onnx: {build: true}}\n")
        write(root, "inference_containers/onnx/Dockerfile", "FROM x")
        write(root, "models/tiny/model.yaml", GPU + "scaling: {min: 0, max: 1}\n")
        config = (root / "config/dev.yaml").read_text().replace("us-east-1", region)
        write(root, "config/dev.yaml", config)
        if sleeps:
            assert load_platform(root, "dev").models[0].sleeps
        else:
            (line,) = refused(lambda: load_platform(root, "dev"))
            assert "scaling.min: 0 is not allowed in eu-west-3, which has no inference components" in line

    def test_with_both_the_platform_loads(self, tmp_path: Path) -> None:
        root = self.platform(tmp_path, "containers: {onnx: {build: true}}\n")
        write(root, "inference_containers/onnx/Dockerfile", "FROM x")
        assert [spec.name for spec in load_platform(root, "dev").models] == ["tiny"]


def test_a_spec_cannot_be_changed_after_it_was_checked(tmp_path: Path) -> None:
    spec: Any = load_model(write(tmp_path, "tiny/model.yaml", CPU))
    with pytest.raises(ValueError, match="frozen"):
        spec.cpu.memory_mb = 1
