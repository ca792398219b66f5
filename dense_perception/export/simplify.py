"""A traced graph loses what says nothing: constants are computed, neighbours that cancel go.

The exporter's own clean-up has the same steps. Its rule that finds two slices to be one split
compares every slice with every node, which in a network of several thousand nodes takes longer than
all the other rules; no runtime needs it. Rules of whole-number convolutions find nothing in fp32.
"""

from __future__ import annotations

import onnx_ir
from onnx_ir.passes import common as steps
from onnxscript import optimizer
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules import common as rules

_ROUNDS = 2
_OWN = "network."
"""How the names of a network's own parameters begin."""
_RULES = (
    *rules.mul_by_1_rule.commute(),
    *rules.add_0_rule.commute(),
    rules.sub_0_rule,
    rules.div_by_1_rule,
    rules.dropout_zero_rule,
    rules.dropout_inference_rule,
    rules.two_reshapes_matmul_reshape_rule,
    rules.one_reshape_matmul_reshape_rule,
    rules.cast_constant_of_shape_rule,
    rules.cast_constant_of_shape_without_value_rule,
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.min_min_rule,
    rules.max_max_rule,
    rules.min_max_rule,
    rules.max_min_rule,
    rules.successive_clip_relu_rule,
    rules.successive_relu_clip_rule,
    rules.successive_relu_rule,
    rules.successive_clip_rule,
    rules.cast_cast_rule,
    rules.no_op_cast_rule,
    rules.no_op_expand_rule,
    rules.reshape_reshape_rule,
    rules.no_op_transpose_rule,
    rules.transpose_transpose_rule,
    rules.unsqueeze_unsqueeze_rule,
    rules.squeeze_reshape_1d_rule,
    rules.no_op_dynamic_scatter_nd_rule,
    rules.no_op_static_scatter_nd_rule,
    rules.normalize_pad_format_conv_rule,
    rules.fuse_pad_into_conv_rule,
    rules.fuse_batchnorm_into_conv_rule,
    rules.fuse_batchnorm_into_conv_transpose_rule,
    rules.fuse_batchnorm_into_gemm_rule,
    rules.remove_optional_bias_from_conv_rule,
    rules.remove_optional_bias_from_conv_transpose_rule,
    rules.remove_optional_bias_from_gemm_rule,
)


def simplify(model: onnx_ir.Model) -> None:
    """In place; the graph computes the same."""
    steps.InlinePass()(model)
    for _ in range(_ROUNDS):
        folded = optimizer.fold_constants_ir(model, onnx_shape_inference=True)
        rewritten = RewritePass(_RULES)(model)
        steps.RemoveUnusedNodesPass()(model)
        steps.RemoveUnusedFunctionsPass()(model)
        steps.RemoveUnusedOpsetsPass()(model)
        if not (folded.modified or rewritten.modified):
            break
    steps.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    steps.LiftSubgraphInitializersToMainGraphPass()(model)
    _merge_constants(model)
    steps.CommonSubexpressionEliminationPass()(model)
    steps.OutputFixPass()(model)
    steps.NameFixPass()(model)


def _merge_constants(model: onnx_ir.Model) -> None:
    """One of several equal constants stays, but every parameter: the file is a checkpoint, too."""
    initializers = model.graph.initializers
    own = {name: value for name, value in initializers.items() if name.startswith(_OWN)}
    for name in own:
        del initializers[name]
    steps.DeduplicateInitializersPass()(model)
    initializers.update(own)
