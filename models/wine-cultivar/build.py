"""The `wine-cultivar` artifact: a scikit-learn pipeline, scaling and logistic regression, as one ONNX graph.

The graph is the model.onnx beside this file, which train.py made. The measurements of a wine are, in this
order: alcohol, malic acid, ash, alcalinity of ash, magnesium, total phenols, flavanoids, nonflavanoid
phenols, proanthocyanins, color intensity, hue, OD280/OD315 of diluted wines, proline; in the units of the
data set.
"""

from inference_runtime.manifest import TensorSpec

INPUTS = (TensorSpec("measurements", "FP32", (-1, 13)),)
OUTPUTS = (TensorSpec("cultivar", "BYTES", (-1,)), TensorSpec("probability", "FP32", (-1, 3)))
