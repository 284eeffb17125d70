"""The embedded AWS: MiniStack, a local SageMaker and what else the stacks need, in one process on loopback.

`python -m local_aws start|stop|status` runs it; `start()`, `stop()` and `environment()` do so from Python. It
speaks TLS with its own certificate authority and enforces IAM, as AWS does.
"""

from local_aws.launcher import start, status, stop
from local_aws.state import LocalAwsError, State, environment

__all__ = ["LocalAwsError", "State", "environment", "start", "status", "stop"]
