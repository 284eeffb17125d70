"""The inference engine shared by every target: artifact, Open Inference Protocol v2, ONNX Runtime.

A request flows `service` -> `protocol` -> `model`; each module imports only those listed after it:

    service    routes, the model's lifecycle, problems turned into answers
    model      an artifact in memory: ONNX session plus the optional handler.py
    protocol   request and response documents
    tensors    JSON data <-> numpy arrays
    artifacts  S3 -> a verified local folder
    manifest   what an artifact is, and whether a folder is one
    errors     what a client may be told

`logs` writes JSON lines, for targets that have no Powertools.

Nothing is imported here: each home pays at cold start only for what it uses.
"""
