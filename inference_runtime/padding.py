"""Requests of different lengths in one batch: padded to the longest, and the answers cut back.

A manifest allows it by `padding`, the value with which an input may be made longer: zeros for the ids and the
mask of a text encoder. One length runs through such a model: every open axis of these inputs and of the
outputs, but for the first, which is the batch's. That the model answers alike then is seen at its warm-up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from inference_runtime.manifest import Manifest, TensorSpec

if TYPE_CHECKING:
    from inference_runtime.tensors import Array

Arrays = dict[str, "Array"]
#: Tensor -> its axes that have the request's length.
Axes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Padding:
    """How a model's requests are made as long as one another."""

    inputs: Axes
    outputs: Axes
    #: Input -> what it is filled with.
    values: Mapping[str, float]

    @staticmethod
    def of(manifest: Manifest) -> "Padding | None":
        """What the manifest allows; None where that is nothing."""
        values = {spec.name: spec.padding for spec in manifest.inputs if spec.padding is not None}
        inputs = {spec.name: _open(spec) for spec in manifest.inputs if spec.name in values}
        return (
            Padding(inputs, {spec.name: _open(spec) for spec in manifest.outputs}, values) if values else None
        )

    @property
    def cuts(self) -> bool:
        """Whether answers have the request's length."""
        return any(self.outputs.values())

    def length(self, inputs: Arrays) -> int:
        """The request's length, or 0 where its inputs disagree: then it is the model's to refuse."""
        lengths = {inputs[name].shape[axis] for name, axes in self.inputs.items() for axis in axes}
        return lengths.pop() if len(lengths) == 1 else 0

    def key(self, inputs: Arrays) -> object:
        """Requests that have this in common may be joined; None where the request may not.

        Of two such requests none is twice as long as the other, so that no batch is twice what was sent.
        """
        length = self.length(inputs)
        if not length:
            return None
        rest = [
            tuple(
                [
                    size
                    for axis, size in enumerate(array.shape)
                    if axis and axis not in self.inputs.get(name, ())
                ]
            )
            for name, array in inputs.items()
        ]
        return length.bit_length(), *rest

    def join(self, requests: Sequence[Arrays], longest: int) -> Arrays:
        """The requests' rows one after the other, all as long as the longest."""
        joined: Arrays = {}
        for name in requests[0]:
            arrays = [inputs[name] for inputs in requests]
            if name in self.inputs:
                arrays = [self._longer(name, array, longest) for array in arrays]
            joined[name] = np.concatenate(arrays)
        return joined

    def cut(self, outputs: Arrays, start: int, end: int, length: int, longest: int) -> Arrays:
        """The rows of one request, as long as it is, of the outputs of a batch.

        Raises:
            ValueError: an output's length is not the batch's.
        """
        for name, array in outputs.items():
            if any(array.shape[axis] != longest for axis in self.outputs[name]):
                raise ValueError(f"output {name!r} has another length than the inputs")
        return {name: _part(array[start:end], self.outputs[name], length) for name, array in outputs.items()}

    def shorter(self, inputs: Arrays, length: int) -> Arrays:
        """The beginning of a request."""
        return {name: _part(array, self.inputs.get(name, ()), length) for name, array in inputs.items()}

    def _longer(self, name: str, array: "Array", length: int) -> "Array":
        axes = self.inputs[name]
        if array.shape[axes[0]] == length:
            return array
        shape = [length if axis in axes else size for axis, size in enumerate(array.shape)]
        longer = np.full(shape, self.values[name], array.dtype)
        longer[tuple([slice(size) for size in array.shape])] = array
        return longer


def _part(array: "Array", axes: Sequence[int], length: int) -> "Array":
    return array[tuple([slice(length) if axis in axes else slice(None) for axis in range(array.ndim)])]


def _open(spec: TensorSpec) -> tuple[int, ...]:
    """The axes that the client chooses, but for the batch's."""
    return tuple(axis for axis, length in enumerate(spec.shape) if axis and length == -1)
