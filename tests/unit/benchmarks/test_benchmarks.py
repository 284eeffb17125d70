"""The benchmark's own arithmetic, and its models: what is published follows from what was measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks import models, report
from benchmarks.report import Point, Run
from inferctl.load import Result
from inferctl.serving import signature

RESULT = Result(1, 1.0, 0, 0, 1.0, 2.0, 3.0, 4.0)


def point(
    server: str,
    setting: str,
    number: int,
    connections: int,
    per_second: int,
    failed: int = 0,
    ours: float = 0.0,
) -> Point:
    result = replace(RESULT, connections=connections, requests=per_second + failed, failed=failed)
    return Point("mlp", server, setting, number, 1.0, 100.0, 200.0, ours, result)


def run(*points: Point) -> Run:
    return Run({"compiled": True}, points, {"mlp": {1: [1000.0, 2000.0, 9000.0], 16: [4000.0, 4000.0]}}, {})


def test_a_server_counts_at_its_best_setting_for_each_number_of_connections() -> None:
    lines = report.summary(
        run(
            point("mosec", "small", 0, 1, 100),
            point("mosec", "large", 0, 1, 50),
            point("mosec", "small", 0, 16, 200),
            point("mosec", "large", 0, 16, 900),
        )
    )
    assert [(line.connections, line.setting, line.per_second) for line in lines] == [
        (1, "small", 100),
        (16, "large", 900),
    ]


def test_a_server_is_compared_with_what_this_one_gave_just_before_and_the_median_is_shown() -> None:
    rates = ((400, 200), (100, 100), (900, 300))
    points = [
        each
        for number, (ours, theirs) in enumerate(rates)
        for each in (
            point(report.OURS, "as it is", number, 1, ours),
            point("mosec", "small", number, 1, theirs, ours=ours),
        )
    ]
    ours, theirs = report.summary(run(*points))
    assert (ours.server, ours.per_second, ours.least, ours.greatest) == (report.OURS, 400, 100, 900)
    assert theirs.ours == (2.0, 1.0, 3.0)
    # Of the median of the limits before and after, 2000.
    assert (ours.of_limit, theirs.of_limit) == (0.2, 0.1)


def test_the_engine_alone_is_shown_at_its_best_and_a_row_at_a_time() -> None:
    table = report.table(run(point(report.OURS, "as it is", 0, 16, 50)))
    assert "| 1 | *ONNX Runtime alone* | 2,000 (1,000 to 9,000) | | 1.00 | | | |" in table
    assert (
        "| 16 | this server | 50.0 (50.0 to 50.0) | 3.00 (3.00 to 3.00) | 0.01 | 0.25 (0.25 to 0.25) |"
        in table
    )


def test_the_99th_percentile_is_shown_with_its_range_over_the_rounds() -> None:
    rounds = [point("mosec", "small", number, 1, 100) for number in range(3)]
    slower = [
        replace(each, result=replace(each.result, p99=p99))
        for each, p99 in zip(rounds, (7.5, 2.25, 1005), strict=True)
    ]
    assert "| 7.50 (2.25 to 1,005.00) |" in report.table(run(*slower))


def test_failed_requests_are_no_throughput_and_are_shown() -> None:
    measured = run(point("mosec", "small", 0, 1, 100, failed=7))
    [line] = report.summary(measured)
    assert (line.per_second, line.failed) == (100, 7)
    assert "**7 failed**" in report.table(measured)


def test_a_server_that_was_not_as_its_image_has_it_is_said_to_be() -> None:
    measured = run(point(report.OURS, "as it is", 0, 1, 100))
    assert "without its image's compiled modules" not in report.table(measured)
    measured.machine["compiled"] = False
    assert "without its image's compiled modules" in report.table(measured)


def test_what_was_measured_is_json_and_a_plot() -> None:
    measured = run(point(report.OURS, "as it is", 0, 1, 100), point("mosec", "small", 0, 1, 50))
    assert json.loads(json.dumps(measured.document()))["summary"][0]["server"] == report.OURS
    assert report.plot(measured).count("<rect") == 3


def test_a_model_is_the_same_every_time_and_answers_rows_as_it_answers_them_alone(tmp_path: Path) -> None:
    first, second = models.made("mlp", tmp_path / "a"), models.made("mlp", tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    inputs, outputs = signature(first)
    arrays = models.request(inputs, 128)
    session = onnxruntime.InferenceSession(str(first))
    [one] = session.run([spec.name for spec in outputs], arrays)
    [many] = session.run(None, {name: np.repeat(array, 8, axis=0) for name, array in arrays.items()})
    np.testing.assert_allclose(many, np.repeat(one, 8, axis=0), rtol=1e-5, atol=1e-6)


def test_texts_are_not_made_up() -> None:
    from inference_runtime.manifest import TensorSpec

    with pytest.raises(ValueError, match="'text' is of BYTES"):
        models.request([TensorSpec("text", "BYTES", (-1,))], 128)
