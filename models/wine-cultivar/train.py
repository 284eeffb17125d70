"""Train the classifier, and write it with its preprocessing to model.onnx beside this file: `make train`.
And what its traffic is expected to be, to baseline.jsonl: all wines of the data, with its answers.

The data are 178 chemical analyses of wines from three cultivars (Forina et al., UCI Machine Learning
Repository, https://doi.org/10.24432/C5PC7J, CC BY 4.0), as scikit-learn ships them. scikit-learn and its
converter are heavy, and linear algebra differs in the last digits from one processor to the next. So what
they made is in the repository, and a test trains again and compares; nothing else needs them.

model.onnx reads `measurements` FP32 [n, 13] in the data's own units, as the scaling is in the graph, and
gives `cultivar`, strings [n], and `probability` FP32 [n, 3], whose columns are in the alphabetical order of
the names.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# The data call them class_0, class_1 and class_2.
CULTIVARS = np.array(["barolo", "grignolino", "barbera"])
OPSETS = {"": 20, "ai.onnx.ml": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier and export it.")
    default = Path(__file__).with_name("model.onnx")
    parser.add_argument("--output", type=Path, default=default, help="the file to write")
    options = parser.parse_args()

    measurements, classes = load_wine(return_X_y=True)
    train, held_out, labels, held_out_labels = train_test_split(
        measurements, CULTIVARS[classes], test_size=0.25, stratify=classes, random_state=0
    )
    # A tolerance far below float32, so that every machine ends at the same optimum.
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, tol=1e-10, max_iter=1000))
    pipeline.fit(train, labels)
    right = (pipeline.predict(held_out) == held_out_labels).sum()
    print(f"{right} of {len(held_out)} wines that it had not seen are told right")

    model = convert_sklearn(
        pipeline,
        "wine-cultivar",
        initial_types=[("measurements", FloatTensorType([None, measurements.shape[1]]))],
        final_types=[
            ("cultivar", StringTensorType([None])),
            ("probability", FloatTensorType([None, len(CULTIVARS)])),
        ],
        options={"zipmap": False},
        target_opset=OPSETS,
    )
    options.output.write_bytes(model.SerializeToString(deterministic=True))
    probability = pipeline.predict_proba(measurements).round(6)
    told = zip(measurements.tolist(), pipeline.predict(measurements), probability.tolist(), strict=True)
    lines = [_line(wine, str(cultivar), shares) for wine, cultivar, shares in told]
    options.output.with_name("baseline.jsonl").write_text("".join(lines))


def _line(wine: list[float], cultivar: str, shares: list[float]) -> str:
    """A wine's request and answer, as clients send and get them."""

    def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": shape, "data": data}

    exchange = {
        "inputs": [tensor("measurements", "FP32", [1, len(wine)], wine)],
        "outputs": [
            tensor("cultivar", "BYTES", [1], [cultivar]),
            tensor("probability", "FP32", [1, len(shares)], shares),
        ],
    }
    return json.dumps(exchange) + "\n"


if __name__ == "__main__":
    main()
