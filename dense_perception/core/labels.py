"""What the numbers of a label map mean: the label sets the published models were trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

VOID = 255
"""The label of pixels without a class, in every set."""


@dataclass(frozen=True)
class LabelSet:
    """Names by label, from 0; ``palette`` replaces the generated colours."""

    name: str
    labels: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...] = ()

    def colors(self) -> np.ndarray:
        """(256, 3) ``uint8`` RGB by label, distinct and stable; unused labels are black.

        Labels above 255 have no colour here.
        """
        table = np.zeros((256, 3), np.uint8)
        if self.palette:
            table[: len(self.palette)] = self.palette
            return table
        # The PASCAL VOC scheme: each label's bits are spread over the channels, highest first.
        for label in range(1, min(len(self.labels), 256) + 1):
            rest = label
            for bit in range(7, -1, -1):
                for channel in range(3):
                    table[label - 1, channel] |= ((rest >> channel) & 1) << bit
                rest >>= 3
        return table


def folded(names: Iterable[str]) -> tuple[str, ...]:
    """Class names as they are compared: whatever their case."""
    return tuple(name.casefold() for name in names)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.replace("\n", " ").split(","))


# The scene parsing benchmark's 150 classes; published label files count from 1 and have 0 for none.
_ADE20K = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade
machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman, bottle,
buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything, swimming
pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food, step,
tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket, sculpture,
hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor, bulletin
board, shower, radiator, glass, clock, flag
"""

_CITYSCAPES = """
road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, vegetation, terrain,
sky, person, rider, car, truck, bus, train, motorcycle, bicycle
"""

# 59 classes after the background.
_PASCAL_CONTEXT = """
background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, table, dog,
horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor, bag, bed, bench, book,
building, cabinet, ceiling, cloth, computer, cup, door, fence, floor, flower, food, grass,
ground, keyboard, light, mountain, mouse, curtain, platform, sign, plate, road, rock, shelves,
sidewalk, sky, snow, bedclothes, track, tree, truck, wall, water, window, wood
"""

# The 80 things, in the order networks number them.
_COCO = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports
ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine
glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot
dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop,
mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock,
vase, scissors, teddy bear, hair drier, toothbrush
"""

# After the things, the 53 kinds of stuff of COCO's panoptic benchmark, in its order.
_COCO_STUFF = """
banner, blanket, bridge, cardboard, counter, curtain, door-stuff, floor-wood, flower, fruit,
gravel, house, light, mirror-stuff, net, pillow, platform, playingfield, railroad, river, road,
roof, sand, sea, shelf, snow, stairs, tent, towel, wall-brick, wall-stone, wall-tile, wall-wood,
water-other, window-blind, window-other, tree-merged, fence-merged, ceiling-merged,
sky-other-merged, cabinet-merged, table-merged, floor-other-merged, pavement-merged,
mountain-merged, grass-merged, dirt-merged, paper-merged, food-other-merged,
building-other-merged, rock-merged, wall-other-merged, rug-merged
"""

# The benchmark's own colours, which people know by heart.
_CITYSCAPES_PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70),
    (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip

# What the generated rooms are made of; their corpora count from 1 and have 0 for none.
_GENERATED_ROOMS = """
wall, floor, ceiling, door, window, picture, bed, sofa, chair, table, cabinet, shelf, lamp,
plant, person, animal, appliance, sanitary, screen, textile, box, rug, column, small_object,
other_furniture
"""

LABEL_SETS = {
    "ade20k": LabelSet("ade20k", _names(_ADE20K)),
    "cityscapes": LabelSet("cityscapes", _names(_CITYSCAPES), _CITYSCAPES_PALETTE),
    "pascal_context": LabelSet("pascal_context", _names(_PASCAL_CONTEXT)),
    "coco": LabelSet("coco", _names(_COCO)),
    "coco_panoptic": LabelSet("coco_panoptic", _names(_COCO) + _names(_COCO_STUFF)),
    "generated_rooms": LabelSet("generated_rooms", _names(_GENERATED_ROOMS)),
}
"""Label sets by the name a card gives."""
