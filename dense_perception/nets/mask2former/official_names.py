"""How published Mask2Former files call what our modules hold: detectron2's and Hugging Face's.

Tables as in :mod:`dense_perception.nets.official_names`.
"""

from __future__ import annotations

from dense_perception.nets.official_names import Table, swin

_LEAF = r"(weight|bias)"
_DEFORMABLE = r"(sampling_offsets|attention_weights|value_proj|output_proj)"


def detectron2_swin() -> Table:
    """The authors' files of a network on Swin; the weights of their loss are not used."""
    return [*swin(r"backbone\.", "backbone."), *_DETECTRON2]


def hugging_face_swin() -> Table:
    """The same networks converted for ``transformers``."""
    return [*_hf_swin(r"model\.pixel_level_module\.encoder\.", "backbone."), *_HUGGING_FACE]


_D2_PIXEL, _D2_QUERY = r"sem_seg_head\.pixel_decoder\.", r"sem_seg_head\.predictor\."
_D2_LAYER = rf"{_D2_PIXEL}transformer\.encoder\.layers\.(\d+)\."
_OUR_LAYER = r"pixel_decoder.layers.\1."
_DETECTRON2: Table = [
    (r"criterion\.empty_weight", None),
    (r"pixel_(mean|std)", None),
    (rf"{_D2_PIXEL}input_proj\.(\d)\.([01])\.{_LEAF}", r"pixel_decoder.project.\1.\2.\3"),
    (rf"{_D2_PIXEL}transformer\.level_embed", "pixel_decoder.level_embed_3c"),
    (rf"{_D2_LAYER}self_attn\.{_DEFORMABLE}\.{_LEAF}", rf"{_OUR_LAYER}attention.\2.\3"),
    (rf"{_D2_LAYER}norm1\.{_LEAF}", rf"{_OUR_LAYER}norm.\2"),
    (rf"{_D2_LAYER}linear([12])\.{_LEAF}", rf"{_OUR_LAYER}feed_forward.fc\2.\3"),
    (rf"{_D2_LAYER}norm2\.{_LEAF}", rf"{_OUR_LAYER}feed_forward.norm.\2"),
    (rf"{_D2_PIXEL}adapter_1\.weight", "pixel_decoder.lateral.0.weight"),
    (rf"{_D2_PIXEL}adapter_1\.norm\.{_LEAF}", r"pixel_decoder.lateral.1.\1"),
    (rf"{_D2_PIXEL}layer_1\.weight", "pixel_decoder.smooth.0.weight"),
    (rf"{_D2_PIXEL}layer_1\.norm\.{_LEAF}", r"pixel_decoder.smooth.1.\1"),
    (rf"{_D2_PIXEL}mask_features\.{_LEAF}", r"pixel_decoder.embed.\1"),
    # The first files call the queries static.
    (rf"{_D2_QUERY}(?:query_feat|static_query)\.weight", "decoder.query_qc"),
    (rf"{_D2_QUERY}query_embed\.weight", "decoder.query_position_qc"),
    (rf"{_D2_QUERY}level_embed\.weight", "decoder.level_embed_3c"),
    *(
        entry
        for theirs, name, ours in (
            ("cross", "multihead_attn", "cross"),
            ("self", "self_attn", "self"),
        )
        for entry in (
            (
                rf"{_D2_QUERY}transformer_{theirs}_attention_layers\.(\d+)\.{name}\.in_proj_{_LEAF}",
                rf"decoder.layers.\1.{ours}_attention.qkv.\2",
            ),
            (
                rf"{_D2_QUERY}transformer_{theirs}_attention_layers\.(\d+)\.{name}\.out_proj\.{_LEAF}",
                rf"decoder.layers.\1.{ours}_attention.project.\2",
            ),
            (
                rf"{_D2_QUERY}transformer_{theirs}_attention_layers\.(\d+)\.norm\.{_LEAF}",
                rf"decoder.layers.\1.{ours}_norm.\2",
            ),
        )
    ),
    (
        rf"{_D2_QUERY}transformer_ffn_layers\.(\d+)\.linear([12])\.{_LEAF}",
        r"decoder.layers.\1.feed_forward.fc\2.\3",
    ),
    (
        rf"{_D2_QUERY}transformer_ffn_layers\.(\d+)\.norm\.{_LEAF}",
        r"decoder.layers.\1.feed_forward.norm.\2",
    ),
    (rf"{_D2_QUERY}decoder_norm\.{_LEAF}", r"decoder.norm.\1"),
    (rf"{_D2_QUERY}class_embed\.{_LEAF}", r"decoder.classify.\1"),
    *(
        (rf"{_D2_QUERY}mask_embed\.layers\.{index}\.{_LEAF}", rf"decoder.embed.{2 * index}.\1")
        for index in range(3)
    ),
]

_HF_PIXEL, _HF_QUERY = r"model\.pixel_level_module\.decoder\.", r"model\.transformer_module\."
_HF_ENCODER = rf"{_HF_PIXEL}encoder\.layers\.(\d+)\."
_HF_DECODER, _OUR_DECODER = rf"{_HF_QUERY}decoder\.layers\.(\d+)\.", r"decoder.layers.\1."
_HUGGING_FACE: Table = [
    (r"criterion\.empty_weight", None),
    (rf"{_HF_PIXEL}input_projections\.(\d)\.([01])\.{_LEAF}", r"pixel_decoder.project.\1.\2.\3"),
    (rf"{_HF_PIXEL}level_embed", "pixel_decoder.level_embed_3c"),
    (rf"{_HF_ENCODER}self_attn\.{_DEFORMABLE}\.{_LEAF}", rf"{_OUR_LAYER}attention.\2.\3"),
    (rf"{_HF_ENCODER}self_attn_layer_norm\.{_LEAF}", rf"{_OUR_LAYER}norm.\2"),
    (rf"{_HF_ENCODER}(fc[12])\.{_LEAF}", rf"{_OUR_LAYER}feed_forward.\2.\3"),
    (rf"{_HF_ENCODER}final_layer_norm\.{_LEAF}", rf"{_OUR_LAYER}feed_forward.norm.\2"),
    (rf"{_HF_PIXEL}adapter_1\.([01])\.{_LEAF}", r"pixel_decoder.lateral.\1.\2"),
    (rf"{_HF_PIXEL}layer_1\.([01])\.{_LEAF}", r"pixel_decoder.smooth.\1.\2"),
    (rf"{_HF_PIXEL}mask_projection\.{_LEAF}", r"pixel_decoder.embed.\1"),
    (rf"{_HF_QUERY}queries_features\.weight", "decoder.query_qc"),
    (rf"{_HF_QUERY}queries_embedder\.weight", "decoder.query_position_qc"),
    (rf"{_HF_QUERY}level_embed\.weight", "decoder.level_embed_3c"),
    (rf"{_HF_DECODER}cross_attn\.in_proj_{_LEAF}", rf"{_OUR_DECODER}cross_attention.qkv.\2"),
    (rf"{_HF_DECODER}self_attn\.([qkv])_proj\.{_LEAF}", rf"{_OUR_DECODER}self_attention.qkv.\3#\2"),
    (
        rf"{_HF_DECODER}(cross|self)_attn\.out_proj\.{_LEAF}",
        rf"{_OUR_DECODER}\2_attention.project.\3",
    ),
    (rf"{_HF_DECODER}(cross|self)_attn_layer_norm\.{_LEAF}", rf"{_OUR_DECODER}\2_norm.\3"),
    (rf"{_HF_DECODER}(fc[12])\.{_LEAF}", rf"{_OUR_DECODER}feed_forward.\2.\3"),
    (rf"{_HF_DECODER}final_layer_norm\.{_LEAF}", rf"{_OUR_DECODER}feed_forward.norm.\2"),
    (rf"{_HF_QUERY}decoder\.layernorm\.{_LEAF}", r"decoder.norm.\1"),
    (rf"class_predictor\.{_LEAF}", r"decoder.classify.\1"),
    *(
        (
            rf"{_HF_QUERY}decoder\.mask_predictor\.mask_embedder\.{index}\.0\.{_LEAF}",
            rf"decoder.embed.{2 * index}.\1",
        )
        for index in range(3)
    ),
]


def _hf_swin(theirs: str, ours: str) -> Table:
    """``transformers``' Swin backbone: the names in files, and those of version 5 in memory."""
    theirs = rf"{theirs}(?:swin\.)?"
    block = rf"{theirs}encoder\.layers\.(\d)\.blocks\.(\d+)\."
    target = rf"{ours}stages.\1.blocks.\2."
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}.*relative_position_index", None),
        # Of the whole image's features, which a backbone does not give.
        (rf"{theirs}layernorm\.{_LEAF}", None),
        (
            rf"{theirs}embeddings\.patch_embeddings\.projection\.{_LEAF}",
            rf"{ours}patch_embed.\1",
        ),
        (rf"{theirs}embeddings\.norm\.{_LEAF}", rf"{ours}patch_norm.\1"),
        (
            rf"{block}attention\.(?:self|relative_position_bias)\.relative_position_bias_table",
            rf"{target}attention.bias.table",
        ),
        (rf"{block}attention\.(?:output\.dense|o_proj)\.{_LEAF}", rf"{target}attention.project.\3"),
        (rf"{block}layernorm_before\.{_LEAF}", rf"{target}norm1.\3"),
        (rf"{block}layernorm_after\.{_LEAF}", rf"{target}norm2.\3"),
        (rf"{block}(?:intermediate\.dense|mlp\.fc1)\.{_LEAF}", rf"{target}mlp.fc1.\3"),
        (rf"{block}(?:output\.dense|mlp\.fc2)\.{_LEAF}", rf"{target}mlp.fc2.\3"),
    ]
    for name in ("query", "key", "value"):
        table.append(
            (
                rf"{block}attention\.(?:self\.{name}|{name[0]}_proj)\.{_LEAF}",
                rf"{target}attention.qkv.\3#{name[0]}",
            )
        )
    for stage in range(4):
        table.append(
            (rf"{theirs}hidden_states_norms\.stage{stage + 1}\.{_LEAF}", rf"{ours}norms.{stage}.\1")
        )
    for stage in range(3):
        merge = rf"{theirs}encoder\.layers\.{stage}\.downsample\."
        merged = rf"{ours}stages.{stage + 1}.merge."
        table.append((rf"{merge}norm\.{_LEAF}", rf"{merged}norm.\1"))
        table.append((rf"{merge}reduction\.weight", f"{merged}reduce.weight"))
    return table
