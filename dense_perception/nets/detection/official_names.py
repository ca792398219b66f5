"""How MMDetection's checkpoints, and those of ViT-CoMer's authors, call the parts of detectors.

Tables as in :mod:`dense_perception.nets.official_names`.
"""

from __future__ import annotations

from torch import nn

from dense_perception.nets import official_names
from dense_perception.nets.detection.dense_heads import DenseDetector
from dense_perception.nets.detection.mask_rcnn import RegionDetector
from dense_perception.nets.detection.simple_pyramid import PlainViT
from dense_perception.nets.official_names import Table
from dense_perception.nets.swin import SwinTransformer
from dense_perception.nets.vit_comer import ViTCoMer

_ANY = r"([^.]+)"


def table(module: RegionDetector | DenseDetector) -> Table:
    """The names of a whole detector; empty for a backbone that nobody published."""
    body = _backbone(module.backbone)
    if not body:
        return []
    heads = _regions(module) if isinstance(module, RegionDetector) else _dense(module)
    return [*body, *_neck(len(module.neck.lateral)), *heads]


def _backbone(backbone: nn.Module) -> Table:
    if isinstance(backbone, ViTCoMer):
        return official_names.vit_comer(backbone.config, r"backbone\.", "backbone.")
    if isinstance(backbone, SwinTransformer):
        return official_names.swin(r"backbone\.", "backbone.")
    return _plain_vit(r"backbone\.", "backbone.") if isinstance(backbone, PlainViT) else []


def _plain_vit(theirs: str, ours: str) -> Table:
    table: list[tuple[str, str | None]] = [
        (rf"{theirs}cls_token", None),
        (rf"{theirs}pos_embed", f"{ours}vit.position.table_1nc"),
        (rf"{theirs}patch_embed\.proj\.{_ANY}", rf"{ours}vit.patch_embed.\1"),
        *official_names.comer_blocks(theirs, ours),
    ]
    for index in range(4):
        table.append((rf"{theirs}norm{index + 1}\.{_ANY}", rf"{ours}norms.{index}.\1"))
    table.append((rf"{theirs}up1\.(\d)\.{_ANY}", rf"{ours}scale.0.\1.\2"))
    table.append((rf"{theirs}up2\.{_ANY}", rf"{ours}scale.1.\1"))
    return table


def _neck(levels: int) -> Table:
    """Further levels are numbered on behind those of the backbone's maps."""
    table: list[tuple[str, str | None]] = [
        (rf"neck\.lateral_convs\.(\d)\.conv\.{_ANY}", r"neck.lateral.\1.\2")
    ]
    for index in range(levels):
        table.append((rf"neck\.fpn_convs\.{index}\.conv\.{_ANY}", rf"neck.smooth.{index}.\1"))
    for index in range(levels, 9):
        ours = rf"neck.extra.{index - levels}.\1"
        table.append((rf"neck\.fpn_convs\.{index}\.conv\.{_ANY}", ours))
    return table


def _regions(module: RegionDetector) -> Table:
    table: list[tuple[str, str | None]] = [
        (rf"rpn_head\.rpn_conv\.{_ANY}", r"rpn.conv.\1"),
        (rf"rpn_head\.rpn_cls\.{_ANY}", r"rpn.classify.\1"),
        (rf"rpn_head\.rpn_reg\.{_ANY}", r"rpn.regress.\1"),
    ]
    for stage in range(len(module.box_heads)):
        number = rf"{stage}\." if module.config.cascade else ""
        box, ours = rf"roi_head\.bbox_head\.{number}", f"box_heads.{stage}."
        for index in range(module.config.box_convs):
            conv = rf"{box}shared_convs\.{index}\."
            # Convolution, norm and ReLU, one after the other.
            table.append((rf"{conv}conv\.weight", f"{ours}convs.{3 * index}.weight"))
            table.append((rf"{conv}bn\.{_ANY}", rf"{ours}convs.{3 * index + 1}.\1"))
        table.append((rf"{box}shared_fcs\.(\d)\.{_ANY}", rf"{ours}fcs.\1.\2"))
        table.append((rf"{box}fc_cls\.{_ANY}", rf"{ours}classify.\1"))
        table.append((rf"{box}fc_reg\.{_ANY}", rf"{ours}regress.\1"))
        mask, ours = rf"roi_head\.mask_head\.{number}", f"mask_heads.{stage}."
        table.append((rf"{mask}convs\.(\d)\.conv\.{_ANY}", rf"{ours}convs.\1.\2"))
        table.append((rf"{mask}upsample\.{_ANY}", rf"{ours}upsample.\1"))
        table.append((rf"{mask}conv_logits\.{_ANY}", rf"{ours}classify.\1"))
    return table


def _dense(module: DenseDetector) -> Table:
    kind = "gfl" if module.config.bins else "atss"
    table: list[tuple[str, str | None]] = [
        (rf"bbox_head\.{kind}_cls\.{_ANY}", r"head.classify.\1"),
        (rf"bbox_head\.{kind}_reg\.{_ANY}", r"head.regress.\1"),
        (rf"bbox_head\.{kind}_centerness\.{_ANY}", r"head.centerness.\1"),
        (r"bbox_head\.scales\.(\d)\.scale", r"head.scales.\1"),
        (r"bbox_head\.integral\.project", None),
    ]
    for theirs, ours in (("cls_convs", "class_tower"), ("reg_convs", "box_tower")):
        for index in range(module.config.convs):
            conv = rf"bbox_head\.{theirs}\.{index}\."
            table.append((rf"{conv}conv\.weight", f"head.{ours}.{3 * index}.weight"))
            table.append((rf"{conv}gn\.{_ANY}", rf"head.{ours}.{3 * index + 1}.\1"))
    return table
