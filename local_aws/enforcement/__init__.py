"""What AWS enforces besides the caller's right to call: keys, execution roles, the network, passed roles.

Each module says what it checks and where AWS documents it; docs/embedded-aws.md lists them.
"""
