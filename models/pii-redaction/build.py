"""The `pii-redaction` artifact: a handler and nothing else, for what is a program and no network."""

from inference_runtime.manifest import TensorSpec

INPUTS = (TensorSpec("text", "BYTES", (-1,)),)
OUTPUTS = (TensorSpec("redacted", "BYTES", (-1,)), TensorSpec("found", "INT32", (-1,)))
