"""From folders of YAML to checked values; all problems of all files are raised at once, as `CatalogError`."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from catalog import capacity, regions, scopes, yaml
from catalog.accepted import AcceptedChanges
from catalog.environment import Environment
from catalog.errors import CatalogError, Problem, explain, show
from catalog.errors import Path as FieldPath
from catalog.model import CpuModel, GpuModel, ModelSpec
from catalog.section import Section

S = TypeVar("S", bound=Section)

_TARGETS: dict[str, type[CpuModel] | type[GpuModel]] = {"cpu": CpuModel, "gpu": GpuModel}


@dataclass(frozen=True)
class Platform:
    """Everything that the YAML files say about one environment."""

    environment: Environment
    models: tuple[ModelSpec, ...]


def load_platform(root: Path, environment: str) -> Platform:
    """Read `config/<environment>.yaml` and every `models/*/model.yaml` below `root`, and check them together.

    Raises CatalogError with the problems of all files: also for a GPU model whose container is not a folder
    of `inference_containers/`, or has no image in the environment, for a scope that no model has, and for
    what exceeds a quota.
    """
    found, document, problems = _environment(root / "config", environment)
    models, more = _catalog(root / "models")
    label = f"config/{environment}.yaml"
    if found is not None and document is not None and not more:
        problems += scopes.problems(models)
        problems += (
            Problem.at(label, document.line(field), field, message)
            for field, message in scopes.refusals(found, models)
        )
    problems += more
    for spec in models:
        if isinstance(spec, GpuModel):
            problems += _hosting_problems(spec, found, root, environment)
    if found is not None and document is not None:
        problems += capacity.problems(found, models)
        problems += (
            Problem.at(label, document.line(path), path, message)
            for path, message in _probe_refusals(found, models, root)
        )
    if problems or found is None:
        raise CatalogError(problems)
    return Platform(found, models)


def load_environment(folder: Path, name: str) -> Environment:
    """Read `<folder>/<name>.yaml`. Raises CatalogError."""
    found, _, problems = _environment(folder, name)
    if problems or found is None:
        raise CatalogError(problems)
    return found


def load_catalog(folder: Path) -> tuple[ModelSpec, ...]:
    """Read every `<folder>/*/model.yaml`, sorted by name. Raises CatalogError with the problems of all."""
    models, problems = _catalog(folder)
    if problems:
        raise CatalogError(problems)
    return models


def load_model(path: Path) -> ModelSpec:
    """Read one model.yaml, in a folder of the model's name. Raises CatalogError."""
    spec, problems = _model(path)
    if problems or spec is None:
        raise CatalogError(problems)
    return spec


def load_accepted_changes(path: Path) -> AcceptedChanges:
    """Read the file that declares dangerous changes. Raises CatalogError."""
    document, problems = yaml.read(path, _label(path))
    found = None
    if document is not None:
        found, more = _validate(document, AcceptedChanges, _label(path))
        problems += more
    if problems or found is None:
        raise CatalogError(problems)
    return found


def _environment(folder: Path, name: str) -> tuple[Environment | None, yaml.Document | None, list[Problem]]:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        return (
            None,
            None,
            [Problem(_label(path), 1, "", f"there is no environment {show(name)}: there are {known}")],
        )
    document, problems = yaml.read(path, _label(path))
    if document is None:
        return None, None, problems
    problems += _name_problems(document, _label(path), name, "the file's")
    found, more = _validate(document, Environment, _label(path))
    if found is not None:
        more += _overlap_problems(found, document, path)
    return found, document, problems + more


def _overlap_problems(found: Environment, document: yaml.Document, path: Path) -> list[Problem]:
    """The environment's VPC must not overlap another's of its account and region: they may want to peer."""
    place = ("network", "cidr")
    ours = found.network.range
    if found.network.cidr is None or ours is None:
        return []
    problems = []
    for sibling in sorted(path.parent.glob("*.yaml")):
        other = _quietly(sibling) if sibling != path else None
        if other is None or (other.account, other.region) != (found.account, found.region):
            continue
        theirs = other.network.range
        if theirs is not None and theirs.overlaps(ours):
            message = (
                f"{show(str(ours))} is not allowed: overlaps {theirs} of {_label(sibling)}, in the same "
                "account and region: choose another range"
            )
            problems.append(Problem.at(_label(path), document.line(place), place, message))
    return problems


def _quietly(path: Path) -> Environment | None:
    """Another environment, if its file is right; what is wrong with it is said when it is asked for."""
    document, _ = yaml.read(path, _label(path))
    return _validate(document, Environment, _label(path))[0] if document else None


def _catalog(folder: Path) -> tuple[tuple[ModelSpec, ...], list[Problem]]:
    results = [_model(path) for path in sorted(folder.glob("*/model.yaml"))]
    models = (spec for spec, _ in results if spec is not None)
    return tuple(sorted(models, key=lambda spec: spec.name)), [p for _, problems in results for p in problems]


def _model(path: Path) -> tuple[ModelSpec | None, list[Problem]]:
    document, problems = yaml.read(path, _label(path))
    if document is None:
        return None, problems
    problems += _name_problems(document, _label(path), path.absolute().parent.name, "the folder's")
    # A wrong target is one problem among others: the sections that are there tell which model was meant.
    meant = "gpu" if "gpu" in document.data else "cpu"
    target = document.data.get("target")
    if isinstance(target, str) and target in _TARGETS:
        found, more = _validate(document, _TARGETS[target], _label(path))
        return found, problems + more
    completed = replace(document, data={**document.data, "target": meant})
    _, more = _validate(completed, _TARGETS[meant], _label(path))
    says = f"{show(target)} is not allowed: must be" if "target" in document.data else "is required:"
    problem = Problem(
        _label(path),
        document.line(("target",)),
        "target",
        f"{says} 'cpu' (a Lambda function) or 'gpu' (a SageMaker endpoint)",
    )
    return None, [*problems, *more, problem]


def _validate(document: yaml.Document, model: type[S], label: str) -> tuple[S | None, list[Problem]]:
    try:
        return model.model_validate(document.data), []
    except ValidationError as error:
        explained = ((path, said) for path, said in explain(error, model) if path not in document.unread)
        return None, [Problem.at(label, document.line(path), path, message) for path, message in explained]


def _name_problems(document: yaml.Document, label: str, expected: str, whose: str) -> list[Problem]:
    name: Any = document.data.get("name")
    if not isinstance(name, str) or name == expected:
        return []
    message = f"{show(name)} is not allowed: must be {whose} name, {show(expected)}"
    return [Problem(label, document.line(("name",)), "name", message)]


def _hosting_problems(spec: GpuModel, found: Environment | None, root: Path, name: str) -> list[Problem]:
    container, label = spec.gpu.container, f"models/{spec.name}/model.yaml"
    folders = sorted(path.parent.name for path in (root / "inference_containers").glob("*/Dockerfile"))
    if container not in folders:
        allowed = ", ".join(folders) or "none yet"
        message = f"{show(container)} is not allowed: must be a folder of inference_containers/ ({allowed})"
        return [Problem(label, 1, "gpu.container", message)]
    if found is not None and container not in found.containers:
        message = f"{show(container)} has no image in config/{name}.yaml: add it under containers there"
        return [Problem(label, 1, "gpu.container", message)]
    if found is not None and spec.sleeps and found.region in regions.WITHOUT_COMPONENTS:
        message = f"0 is not allowed in {found.region}, which has no inference components: must be >= 1"
        return [Problem(label, 1, "scaling.min", message)]
    return []


def _probe_refusals(
    found: Environment, models: tuple[ModelSpec, ...], root: Path
) -> Iterator[tuple[FieldPath, str]]:
    """Models that the probe cannot ask, unknown ones, those without a sample or its answer, and those that
    sleep: the place in the environment's file, and what to say.
    """
    known = {model.name: model for model in models}
    for number, model in enumerate(found.probe.models if found.probe else ()):
        missing = [
            file
            for file in ("sample.json", "expected.json")
            if not (root / "models" / model / file).is_file()
        ]
        path, refused = ("probe", "models", number), f"{show(model)} is not allowed"
        if model not in known:
            yield path, f"{refused}: must be a model ({', '.join(known) or 'none yet'})"
        elif missing:
            yield path, f"{refused}: models/{model}/ has no {' and no '.join(missing)}"
        elif known[model].sleeps:
            yield path, f"{refused}: its scaling.min is 0, and the probe would keep it awake"


def _label(path: Path) -> str:
    """The last parts of the path, which say the same in every checkout: `models/x/model.yaml`."""
    absolute = path.absolute()
    depth = 3 if path.name == "model.yaml" else 2
    return "/".join(absolute.parts[-depth:])
