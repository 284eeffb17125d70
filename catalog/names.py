"""Every deterministic name of an environment, in one place.

Names that callers need (the function, the endpoint, the parameter paths) are computed, never exported:
CloudFormation exports would tie the stacks' lifetimes together. Resources that CloudFormation must be free
to replace (SageMaker models and endpoint configs, keys, the VPC) have no name here; their ids travel as SSM
parameters.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """Names of one environment's resources.

    Args:
        environment: the environment's name, such as `dev`.
    """

    environment: str

    @property
    def prefix(self) -> str:
        return f"inference-{self.environment}"

    def resource(self, name: str) -> str:
        """A regional resource: stack, function, topic, trail, dashboard."""
        return f"{self.prefix}-{name}"

    def model(self, model: str, home: str = "cpu") -> str:
        """The Lambda function of a CPU model, or the SageMaker endpoint of a GPU model; where that hosts an
        inference component, the component too.

        An endpoint has either models or components for as long as it exists: a model that begins to scale to
        zero, or ends it, gets another. No model's name begins with a digit.

        Args:
            home: the model's (`ModelSpec.home`); a function and an endpoint of its own are called the same.
        """
        return self.resource(f"0-{model}" if home == FROM_ZERO else model)

    def bucket(self, purpose: str, account: str, region: str) -> str:
        """Bucket names are global, so they end in the account and the region."""
        return f"{self.prefix}-{purpose}-{account}-{region}"

    def parameter(self, path: str) -> str:
        """An SSM parameter of this environment: `api/url`, `keys/models` …"""
        return f"/inference/{self.environment}/{path}"

    def live_parameter(self, model: str) -> str:
        """Holds the SHA-256 of the artifact that is served: releases write it, deployments only create it."""
        return self.parameter(f"models/{model}/live")

    def validator(self, model: str, home: str) -> str:
        """The function that tries a model's new versions. No model's name has an underscore."""
        return self.resource(f"val_{home}_{model}")

    def model_group(self, model: str) -> str:
        """The SageMaker model package group of a model, unless its `registry` names another."""
        return self.resource(model)

    def release_parameter(self, model: str) -> str:
        """Holds what a release must know of a model."""
        return self.parameter(f"models/{model}/release")

    @property
    def releases(self) -> str:
        """The table of releases."""
        return self.resource("releases")

    @property
    def release_machine(self) -> str:
        """The state machine of a release."""
        return self.resource("release")

    @property
    def metrics_namespace(self) -> str:
        """Where functions count what only they see; an account may hold several environments."""
        return f"Inference/{self.environment}"

    def client_secret(self, client: str) -> str:
        """The secret in Secrets Manager with which an application takes tokens."""
        return f"inference/{self.environment}/clients/{client}"

    @property
    def firewall_log_group(self) -> str:
        """WAF delivers only to log groups whose name starts so."""
        return f"aws-waf-logs-{self.prefix}"

    def log_group(self, name: str) -> str:
        return f"/inference/{self.environment}/{name}"

    def model_log_group(self, model: str, home: str) -> str:
        """Where a model's function or container writes; both services fix the form."""
        return f"{_LOGS[home]}/{self.model(model, home)}"

    @property
    def database(self) -> str:
        """The Glue database of captures, ground truth and drift; SQL takes no hyphens unquoted."""
        return self.prefix.replace("-", "_")

    def query(self, name: str, model: str | None = None) -> str:
        """A saved query of Logs Insights, which shows slashes as folders."""
        return "/".join(part for part in (self.prefix, model, name) if part)


def on_target(model: str, home: str) -> str:
    """What a model's stack is called, and what the names in it begin with: it holds the model's home, because
    a model that moves has both stacks for a while (docs/decisions/0011).
    """
    return f"model-{model}-{home}"


FROM_ZERO = "gpu0"
"""The home of a GPU model that scales to zero: an inference component. The others are their target's."""

_LOGS = {
    "cpu": "/aws/lambda",
    "gpu": "/aws/sagemaker/Endpoints",
    FROM_ZERO: "/aws/sagemaker/InferenceComponents",
}


INCOMING, REGISTRY = "incoming", "registry"
"""Where in the models bucket uploads come to, below `<folder>/<model>/`: releases start at the manifest in
the former, and at the approval of a package in the latter.
"""

UPLOADS = (INCOMING, REGISTRY)

ALIAS = "live"
"""The alias of a CPU model's function that the API invokes."""

RESOURCE_SERVER = "inference"
"""The OAuth2 resource server: a token's scopes are `inference/invoke`, `inference/admin` and so on."""

INVOKE, ADMIN = "invoke", "admin"
PLATFORM_SCOPES = {
    INVOKE: "Call models and read their metadata",
    ADMIN: "Read the platform's state; no inference",
}
"""The scopes that every environment has -> what Cognito says of them."""


def own_scope(model: str) -> str:
    """The scope of a model that has one of its own, as clients list it."""
    return f"{INVOKE}.{model}"


ENVIRONMENT_TAG = "inference:environment"
"""On every resource and stack: what `inferctl prune` and cost reports select by."""

RETIRED_TAG = "inference:retired"
"""On the objects of an artifact that the last releases left behind: since when, then `expiring`."""

EXPIRING = "expiring"
"""The value of RETIRED_TAG that makes S3 delete an object."""
