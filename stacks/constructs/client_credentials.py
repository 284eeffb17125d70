"""The right to read an app client's credentials, for functions that call the platform as its clients do."""

from aws_cdk import aws_iam as iam

from stacks.base import PlatformStack


def read_credentials(stack: PlatformStack, client: str) -> tuple[list[iam.PolicyStatement], dict[str, str]]:
    """The statements, and the reasons for the wildcards in them."""
    secret = stack.regional_arn("secretsmanager", f"secret:{stack.names.client_secret(client)}-??????")
    statements = [
        iam.PolicyStatement(
            sid="ReadCredentials", actions=["secretsmanager:GetSecretValue"], resources=[secret]
        ),
        iam.PolicyStatement(
            sid="DecryptCredentials", actions=["kms:Decrypt"], resources=[stack.key("secrets").key_arn]
        ),
    ]
    return statements, {secret: "Secrets Manager ends every ARN in six characters of its own."}
