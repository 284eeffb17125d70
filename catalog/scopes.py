"""Scopes that one model alone has: whether the callers of an environment and the models agree on them."""

from collections.abc import Iterator, Sequence

from catalog.callers import SCOPES_PER_SERVER, Client, Login
from catalog.environment import Environment
from catalog.errors import Path, Problem, show
from catalog.model import ModelSpec
from catalog.names import INVOKE, PLATFORM_SCOPES, own_scope


def models_with_own_scope(models: Sequence[ModelSpec]) -> list[str]:
    """The models that have a scope of their own, sorted."""
    return sorted(model.name for model in models if model.access.scope == "own")


def refusals(environment: Environment, models: Sequence[ModelSpec]) -> Iterator[tuple[Path, str]]:
    """Scopes of callers that no model has: the place in the environment's file, and what to say."""
    known, private = {model.name for model in models}, models_with_own_scope(models)
    for place, caller in _callers(environment):
        for position, model in caller.models.items():
            if model in private:
                continue
            if model in known:
                reason = (
                    f"the model {model} has no scope of its own: list {INVOKE!r}, which opens it, or set "
                    "access.scope: own in its model.yaml"
                )
            else:
                listed = ", ".join(private) or "none"
                reason = f"there is no model {model}; models with a scope of their own: {listed}"
            refused = show(caller.scopes[position])
            yield (*place, "scopes", position), f"{refused} is not allowed: {reason}"


def problems(models: Sequence[ModelSpec]) -> list[Problem]:
    """More scopes than Cognito takes."""
    private = models_with_own_scope(models)
    room = SCOPES_PER_SERVER - len(PLATFORM_SCOPES)
    message = (
        f"'own' is not allowed: with it {len(private)} models have a scope of their own, and Cognito's quota "
        f"of {SCOPES_PER_SERVER} scopes per resource server (not adjustable) leaves room for {room}; let "
        f"some share the scope {INVOKE!r}"
    )
    return [Problem(f"models/{name}/model.yaml", 1, "access.scope", message) for name in private[room:]]


def uncalled(environment: Environment, models: Sequence[ModelSpec]) -> list[str]:
    """The models with a scope of their own that no caller may use: allowed, and probably an oversight."""
    listed = {scope for _, caller in _callers(environment) for scope in caller.scopes}
    return [model for model in models_with_own_scope(models) if own_scope(model) not in listed]


def _callers(environment: Environment) -> Iterator[tuple[Path, Client | Login]]:
    for position, client in enumerate(environment.clients):
        yield ("clients", position), client
    if environment.login is not None:
        yield ("login",), environment.login
