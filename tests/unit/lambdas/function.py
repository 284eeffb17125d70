"""A Lambda function's handler module, imported afresh as an execution environment does it."""

import importlib.util
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[3]


def imported(function: str, module_name: str = "handler") -> ModuleType:
    path = ROOT / "lambda_src" / function / f"{module_name}.py"
    spec = importlib.util.spec_from_file_location(f"{function}_{module_name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def own_loggers(*others: str) -> Iterator[None]:
    """Loggers that a cold start configures are the process's, which here outlives it: put them back."""
    loggers = [logging.getLogger(name) for name in ("inference", "inference_runtime", *others)]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    try:
        yield
    finally:
        for logger, settings in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate, logger.level = settings


def proxy_event(method: str, path: str, body: str | None = None, **changes: Any) -> dict[str, Any]:
    """What API Gateway sends for a REST proxy integration, as far as it is read."""
    return {
        "httpMethod": method,
        "path": path,
        "resource": path,
        "headers": {"Content-Type": "application/json"},
        "body": body,
        "isBase64Encoded": False,
        "requestContext": {"requestId": "request-1"},
    } | changes
