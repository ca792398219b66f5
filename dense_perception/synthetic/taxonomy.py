"""Furniture names and sizes -> semantic class and the way an object is placed in a room."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLASSES = (
    "void",
    "wall",
    "floor",
    "ceiling",
    "door",
    "window",
    "picture",
    "bed",
    "sofa",
    "chair",
    "table",
    "cabinet",
    "shelf",
    "lamp",
    "plant",
    "person",
    "animal",
    "appliance",
    "sanitary",
    "screen",
    "textile",
    "box",
    "rug",
    "column",
    "small_object",
    "other_furniture",
)
"""Class names; a label image holds indices into this tuple. 0 is void."""

CLASS_ID = {name: index for index, name in enumerate(CLASSES)}

PLACEMENTS = (
    "door",
    "window",
    "wall",  # hung on a wall at its own elevation
    "ceiling",
    "rug",
    "along_wall",  # stands with its back to a wall
    "table",  # may stand free, carries chairs and small objects
    "seat",  # stands at a table, else free
    "free",  # stands anywhere
    "small",  # lies on a surface or on the floor
)

_EXCLUDED = re.compile(
    r"truck|bus$|city bus|car$|sedan|beetle|seat leon|peugeot|renault|suv|chevrolet|van$|smart|"
    r"ford|fork lift|swimming|pool lounge|jacuzzi|sandpit|rail|arrow|parking|barnum|goal|hedge|"
    r"bush|acacia|pine|coconut|beech|cypress|maple|poplar|palm|peach|sycamore|tent|rowboat|"
    r"fountain|snowman|horse|chicken|trampoline|diving|sidewalk|column|lamppost|street l|"
    r"park light|children game|child hut|child swing|seesaw|shipping|staircase|"
    r"escalator|elevator|garage|"
    r"hammock|umbrella|basketball net|garden|flipper.*hut|dog house|mower|crossing|doormat|"
    r"lying down|sitting|boxing|cartoon|pedestrian|hydrant|chimney|sandbox|porch|outdoor|"
    r"contemporary living room|entry|letters box|external unit|ring$|bill |watch|high hedge"
)

# First match wins; patterns meet the lower-case name.
_LABEL_RULES = (
    ("shutter|blind|window", "window"),
    (
        "shower door|shower stall|shower head|urinal|toilet(s)? unit|bidet|bath$|bathtub|washbasin|"
        "vanity|lavatory|basin|sink",
        "sanitary",
    ),
    ("door cabinet", "cabinet"),
    ("door$|door with|^door|french", "door"),
    ("frame|calendar|white board|dart", "picture"),
    (
        "bedside|cabinet|wardrobe|cupboard|dresser|chest$|drawers|island|safe|locked locker|buffet|"
        "dressing table|tv stand|television|changing table",
        "cabinet",
    ),
    ("bunk|mezzanine|bed$|bed bz|crib|futon$|mattress|sleeping", "bed"),
    ("sofa|couch|futon couch|day bed", "sofa"),
    ("table lamp|lamp|light|lantern|candle|spot|chandelier", "lamp"),
    ("chair|armchair|stool|bench|seat|puff|bank$", "chair"),
    ("table(?! tennis b| fan)|desk", "table"),
    ("bookcase|shel(f|ves)|clothes rack", "shelf"),
    ("plant|ficus|yucca|orchid|tulip|lily|flower|bonsai|cactus|bamboo|spathi|tree", "plant"),
    ("male|female|^boy|^girl|mannequin", "person"),
    ("(?<!hot )dog|^cat|bulldog|siamese|rabbit", "animal"),
    (
        "fridge|refrigerator|oven|stove|washing|dryer|freezer|hood|microwave|boiler|water heater|"
        "radiator|furnace|conditioning|cooker$|cooktop|fireplace|water cooler",
        "appliance",
    ),
    ("tv$|tv 16|flat tv|imac|ibook|laptop|screen", "screen"),
    ("rug|carpet|tatami|bathmat|mat$", "rug"),
    ("curtain|towel$|clothes|dress|short|trousers|jacket|skirt|suit$", "textile"),
    ("box|crate|suitcase|trunck|barrel|basket|bin$|trash", "box"),
)

_SURFACES = re.compile(
    r"table|desk|cabinet|dresser|chest|shel(f|ves)|island|bench|tv stand|television|drawers|"
    r"bedside|cupboard|workbench|freezer|washing|dryer"
)
_ALONG_WALL = re.compile(
    r"bed|sofa|couch|wardrobe|cabinet|cupboard|dresser|bookcase|shel(f|ves)|piano|radiator|fridge|"
    r"refrigerator|oven|stove|washing|dryer|freezer|sink|toilet|bidet|bath|washbasin|vanity|shower|"
    r"fireplace|tv stand|television|island|safe|urinal|locker|chest|water cooler|heater|desk|"
    r"bench|white board|clothes rack|dressing|changing|water|hanging clothes|furnace|workbench"
)


@dataclass(frozen=True)
class Kind:
    """What an object is and how it is placed.

    ``label`` is one of :data:`CLASSES`, ``placement`` one of :data:`PLACEMENTS`.
    """

    label: str
    placement: str
    is_surface: bool


def classify(
    name: str, category: str, size_m: tuple[float, float, float], elevation_m: float
) -> Kind | None:
    """Class and placement of one catalogue entry; None when it has no place in a room.

    ``size_m`` is width, depth, height in metres; ``elevation_m`` the height of its underside.
    """
    lower = name.lower()
    width, depth, height = size_m
    if category == "Vehicles" and not re.search("bike|bicycle|scooter|stroller|skate|tric", lower):
        return None
    if _EXCLUDED.search(lower) or category == "Staircases":
        return None
    if max(width, depth) > 3.2 or height > 2.5 or max(size_m) < 0.03:
        return None
    label = next((label for pattern, label in _LABEL_RULES if re.search(pattern, lower)), "")
    if category == "Doors and windows" and label not in ("door", "window"):
        label = "window"
    if not label:
        label = "small_object" if max(size_m) < 0.5 else "other_furniture"
    placement = _placement(lower, label, size_m, elevation_m)
    surface = bool(_SURFACES.search(lower)) and placement in ("along_wall", "table", "free")
    return Kind(label, placement, surface and 0.25 < height < 1.25)


def _placement(
    lower: str, label: str, size_m: tuple[float, float, float], elevation_m: float
) -> str:
    width, depth, height = size_m
    if label == "door":
        return "door"
    if label == "window" and "blind" not in lower and "shutter" not in lower:
        return "window"
    if re.search("hanging light|pendant|ceiling|chandelier|fluorescent light|smoke", lower):
        return "ceiling"
    if label == "picture" and "white board" not in lower:
        return "wall" if elevation_m > 0.3 else "small"
    if elevation_m > 0.18 and label not in ("sanitary",):
        return "wall"
    if label == "lamp":
        return "small" if height < 0.8 else "free"
    if label == "sanitary":
        return "wall" if elevation_m > 0.6 else "along_wall"
    if label == "rug" or (height < 0.04 and max(width, depth) > 0.55):
        return "rug"
    if label == "table" and "dressing" not in lower:
        return "table"
    if _ALONG_WALL.search(lower) and height > 0.3:
        return "along_wall"
    if label == "chair" and height > 0.4:
        return "seat"
    if max(width, depth) < 0.5 and height < 0.55:
        return "small"
    return "free"
