"""Products of an OpenVINO graph in integers of eight bits: about twice as fast as bf16 where a processor has instructions for them.

A weight is one of 255 steps that lie evenly about zero, with a step of its own for every output channel; what a layer is given is
one of 256 steps between the least and the most that it was given over a number of photos. Both are fixed in the graph, so that a
photo's score depends on no other photo. Only layers large enough to gain by it are so run, and two kinds of them not, which take
little time and move scores much: the queries of the cross-attention, which the score hangs on, and the projection in front of the
attention.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST = 64  # channels in and out of a layer that gains by it
STEPS = 255  # between the least and the most of eight bits
WEIGHT_STEPS = 127  # to either side of zero
_KEPT = ("attn2.to_q", "proj_in")


def to_integers(model: Any, inputs: Iterable[npt.NDArray[np.float32]], core: Any) -> int:
    """Have the large products of a model in integers, in place.

    Args:
        model: An `openvino.Model` of one input, in single precision.
        inputs: Of photos like those that it is to score, each what one call is given.
        core: An `openvino.Core`.

    Returns:
        How many products that are.
    """
    import openvino as ov
    from openvino import opset13 as op

    layers = _large_products(model)
    reached = _ranges([layer.input_value(0) for layer in layers], model, inputs, core)
    rounded: dict[tuple[str, int], Any] = {}
    for layer in layers:
        given = layer.input_value(0)
        if (name := _name(given)) not in rounded:
            low, high = _with_zero(*reached[name])
            rounded[name] = op.fake_quantize(given, low, high, low, high, STEPS + 1)
        layer.input(0).replace_source_output(rounded[name].output(0))
        weight: npt.NDArray[np.float32] = layer.input_value(1).get_node().data
        most = np.abs(weight).max(tuple(range(1, weight.ndim)), keepdims=True)
        step = (np.maximum(most, np.finfo(np.float32).tiny * STEPS) / WEIGHT_STEPS).astype(np.float32)
        whole = op.convert(op.constant(np.rint(weight / step).astype(np.int8)), ov.Type.f32)
        layer.input(1).replace_source_output(op.multiply(whole, op.constant(step)).output(0))
    model.validate_nodes_and_infer_types()
    return len(layers)


def adds_exactly(core: Any) -> bool:
    """Whether this processor adds up products of eight-bit integers as they are.

    One without instructions for that (VNNI on x86) adds two of them in 16 bits, where large ones are cut off, and every score is
    another.
    """
    import openvino as ov
    from openvino import opset13 as op

    side = LEAST
    given = op.parameter([1, side], ov.Type.f32)
    zero, one = np.float32(0), np.float32(1)
    weight = op.multiply(op.convert(op.constant(np.full((side, side), WEIGHT_STEPS, np.int8)), ov.Type.f32),
                         op.constant(np.full((side, 1), 1 / WEIGHT_STEPS, np.float32)))  # fmt: skip
    product = op.matmul(op.fake_quantize(given, zero, one, zero, one, STEPS + 1), weight, False, True)
    found = core.compile_model(ov.Model([op.result(product)], [given]), "CPU")(np.ones((1, side), np.float32))[0]
    return bool(np.allclose(found, side, rtol=0.02))


def _large_products(model: Any) -> list[Any]:
    """Convolutions and matrix products with the weights of a layer, over positions of an image."""
    found = []
    for node in model.get_ordered_ops():
        kind = node.get_type_name()
        if kind not in ("Convolution", "MatMul") or node.input_value(1).get_node().get_type_name() != "Constant":
            continue
        shape = list(node.input_value(1).get_shape())
        if kind == "MatMul" and not (len(shape) == 2 and node.get_attributes()["transpose_b"]):
            continue  # the keys and values of the prompts
        if len(node.input_value(0).get_partial_shape()) < 3:
            continue  # of an image, not of its positions: the embedding of the timestep
        if min(shape[:2]) >= LEAST and not any(name in node.get_friendly_name() for name in _KEPT):
            found.append(node)
    return found


def _ranges(outputs: list[Any], model: Any, inputs: Iterable[npt.NDArray[np.float32]],
            core: Any) -> dict[tuple[str, int], tuple[float, float]]:  # fmt: skip
    """The least and the most that each has been over the inputs."""
    from openvino import opset13 as op

    each = {_name(output): output for output in outputs}
    added = []
    for output in each.values():
        axes = op.constant(np.arange(len(output.get_partial_shape()), dtype=np.int64))
        added += [op.result(op.reduce_min(output, axes, False)), op.result(op.reduce_max(output, axes, False))]
    first = len(model.outputs)
    model.add_results(added)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = []
    for one in inputs:
        done = compiled(one)
        found.append([float(done[number]) for number in range(first, first + len(added))])
    for result in added:
        model.remove_result(result)
    least, most = np.min(found, 0), np.max(found, 0)
    return {name: (least[2 * number], most[2 * number + 1]) for number, name in enumerate(each)}


def _with_zero(low: float, high: float) -> tuple[np.float32, np.float32]:
    """A range about as wide of which zero is one of the steps: what a convolution pads with has to be exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = max(high - low, 1e-6) / STEPS
    below = round(-low / step)
    return np.float32(-below * step), np.float32((STEPS - below) * step)


def _name(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()
