"""`inferctl` brings an environment up and down, shows it, and calls its models; its client works alone, too.

from inferctl.environment import find

with find("dev").client() as client:
    answer = client.infer("text-embedding", {"inputs": [...]})
"""
