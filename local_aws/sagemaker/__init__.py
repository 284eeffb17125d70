"""A local SageMaker: endpoints are real processes of the container's own entry point, behind the real API."""
