"""A process that runs one artifact and nothing else: `python sandbox.py <folder> <sha256>`.

An artifact's handler is code of whoever published it. So the validator, which decides, never loads it: it
starts this process, without credentials, asks it over pipes, and believes only what it measures itself.

Each message is a line of JSON. Standard input brings requests, the protocol's documents as strings. Standard
output answers {"ready": true} once the model has answered its warm-up request, then to each request
{"answer": <document>} or {"problem": <why not>}; {"error": <why>} when there is no model. What the artifact
prints goes to standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(folder: Path, sha256: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(document: dict[str, Any]) -> None:
        print(json.dumps(document), file=answers, flush=True)

    # Imported here, after standard output is out of reach: both print when they like.
    from inference_runtime.errors import Problem
    from inference_runtime.manifest import ArtifactError, verify
    from inference_runtime.model import Engine, Model

    try:
        model = Model(verify(folder, sha256), Engine(device="cpu"))
    except ArtifactError as error:
        say({"error": str(error)})
        return
    say({"ready": True})
    for line in sys.stdin:
        try:
            say({"answer": model.answer(json.loads(line).encode()).body.decode()})
        except Problem as problem:
            say({"problem": problem.detail})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
