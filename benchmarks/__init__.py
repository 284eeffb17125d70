"""How fast the inference server is, beside the engine alone and the servers that one would use instead.

`make bench` runs it all, `python -m benchmarks --help` says what can be chosen. See docs/performance.md.
"""
