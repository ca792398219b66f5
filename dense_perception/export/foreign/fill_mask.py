"""The mask of a padded batch, which an artefact does not ask for: here every pixel counts.

Hugging Face's processors pad pictures of several sizes to one and give ``pixel_mask``, 1 where a
pixel is of the picture and 0 where it was padded. An artefact's pictures are never padded so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MASK = "pixel_mask"
_KINDS = {
    *(TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE),
}
_LEAST_OPSET = 9  # ConstantOfShape


def fill_mask(
    graph: onnx.GraphProto, inputs: Sequence[onnx.ValueInfoProto], opset: int
) -> onnx.ValueInfoProto | None:
    """Have ``graph`` make its mask of ones, as large as the picture, and take the input out.

    Returns the picture, the one other of ``inputs``; ``None``, and nothing is changed, unless the
    mask goes by its usual name, has its usual sides (N, H, W), and those are the picture's.
    """
    masks = [value for value in inputs if value.name == MASK]
    pictures = [value for value in inputs if value.name != MASK]
    if len(masks) != 1 or len(pictures) != 1 or opset < _LEAST_OPSET:
        return None
    (mask,), (picture,) = masks, pictures
    kind = mask.type.tensor_type.elem_type
    sides, wanted = _sides(picture), _sides(mask)
    if kind not in _KINDS or len(sides) != 4 or len(wanted) != 3:
        return None
    # Where neither side tells channels, they come second, as everywhere in an import.
    is_nhwc = sides[3] in (1, 3) and sides[1] not in (1, 3)
    axes = [0, 1, 2] if is_nhwc else [0, 2, 3]
    pairs = [(sides[axis], want) for axis, want in zip(axes, wanted, strict=True)]
    if any(side != want for side, want in pairs if side and want):
        return None
    one = numpy_helper.from_array(np.ones(1, helper.tensor_dtype_to_np_dtype(kind)))
    own = f"{MASK}/"
    graph.initializer.append(helper.make_tensor(f"{own}axes", TensorProto.INT64, [3], axes))
    made = [
        helper.make_node("Shape", [picture.name], [f"{own}shape"]),
        helper.make_node("Gather", [f"{own}shape", f"{own}axes"], [f"{own}sides"], axis=0),
        helper.make_node("ConstantOfShape", [f"{own}sides"], [MASK], value=one),
    ]
    nodes = [*made, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [value for value in graph.input if value.name != MASK]
    del graph.input[:]
    graph.input.extend(kept)
    return picture


def _sides(value: onnx.ValueInfoProto) -> list[int]:
    """0 where one is free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]
