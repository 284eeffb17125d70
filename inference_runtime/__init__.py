"""The inference engine shared by every target: artifact, Open Inference Protocol v2, ONNX Runtime.

A request flows `service` -> `codecs` -> `model` -> `codecs`; each module imports only those listed after it:

    service      routes, the model's lifecycle, problems turned into answers
    model        an artifact in memory: ONNX session plus the optional handler.py
    bfloat16     graphs with tensors of BF16
    codecs       bodies of every media type <-> requests and answers
    protocol     documents of the Open Inference Protocol, and bytes after them
    plain        bodies that are no documents: npy, raw bytes, CSV
    compression  gzip and deflate, within a limit
    tensors      JSON data and bytes <-> numpy arrays
    artifacts    S3 -> a verified local folder
    s3           objects of S3, without boto3
    manifest     what an artifact is, and whether a folder is one
    errors       what a client may be told

A target that is a server of its own has more to do, and a function nothing of it:

    warmup       how a model is best run on this machine, measured as it is loaded
    batching     requests joined into batches, and run one after the other
    padding      requests of different lengths in one batch
    binding      a GPU's batches: captured graphs, page-locked memory
    cuda         what NVIDIA's libraries are asked for directly
    metrics      what Prometheus is told

`logs` writes JSON lines.

Nothing is imported here: each home pays at cold start only for what it uses.
"""
