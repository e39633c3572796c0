"""Mask colours, and those of well-known data sets."""

from collections.abc import Iterable

from data import schema

IGNORED_NAMES = ("ignore", "void")
"""Names, in any case, that stand for `schema.IGNORE_LABEL` and not for a class."""

IGNORED_VALUE = 65536
"""What an ignored mask colour becomes: a value that no gray mask can hold."""

Color = tuple[int, int, int]
"""Red, green and blue, 0..255."""

ColorValue = tuple[Color, int]
"""A mask colour and its value: the index of the class, or `IGNORED_VALUE`."""


def is_ignored(name: str) -> bool:
    """Tells whether a class of this name is left out of loss and scores."""
    return name.lower() in IGNORED_NAMES


_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car"),
    *("cat", "chair", "cow", "diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)

PALETTES: dict[str, tuple[tuple[str, Color], ...]] = {
    # Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010.
    "voc": (
        *zip(_VOC_NAMES, schema.voc_palette(len(_VOC_NAMES)), strict=True),
        ("void", (224, 224, 192)),  # The outlines of objects: label 255.
    ),
    # Cordts et al., "The Cityscapes Dataset", CVPR 2016: the 19 classes that are
    # scored, and the colours of the rest. Pole groups look like poles and licence
    # plates like cars; only the gray `labelIds` files tell them apart.
    "cityscapes": (
        ("road", (128, 64, 128)),
        ("sidewalk", (244, 35, 232)),
        ("building", (70, 70, 70)),
        ("wall", (102, 102, 156)),
        ("fence", (190, 153, 153)),
        ("pole", (153, 153, 153)),
        ("traffic light", (250, 170, 30)),
        ("traffic sign", (220, 220, 0)),
        ("vegetation", (107, 142, 35)),
        ("terrain", (152, 251, 152)),
        ("sky", (70, 130, 180)),
        ("person", (220, 20, 60)),
        ("rider", (255, 0, 0)),
        ("car", (0, 0, 142)),
        ("truck", (0, 0, 70)),
        ("bus", (0, 60, 100)),
        ("train", (0, 80, 100)),
        ("motorcycle", (0, 0, 230)),
        ("bicycle", (119, 11, 32)),
        ("void", (0, 0, 0)),  # unlabeled, ego vehicle, out of roi, static
        ("void", (111, 74, 0)),  # dynamic
        ("void", (81, 0, 81)),  # ground
        ("void", (250, 170, 160)),  # parking
        ("void", (230, 150, 140)),  # rail track
        ("void", (180, 165, 180)),  # guard rail
        ("void", (150, 100, 100)),  # bridge
        ("void", (150, 120, 90)),  # tunnel
        ("void", (0, 0, 90)),  # caravan
        ("void", (0, 0, 110)),  # trailer
    ),
    # Brostow et al., "Semantic Object Classes in Video", PRL 2009: all 31 classes. The
    # 11 of later papers are a --label_map of these.
    "camvid": (
        ("Animal", (64, 128, 64)),
        ("Archway", (192, 0, 128)),
        ("Bicyclist", (0, 128, 192)),
        ("Bridge", (0, 128, 64)),
        ("Building", (128, 0, 0)),
        ("Car", (64, 0, 128)),
        ("CartLuggagePram", (64, 0, 192)),
        ("Child", (192, 128, 64)),
        ("Column_Pole", (192, 192, 128)),
        ("Fence", (64, 64, 128)),
        ("LaneMkgsDriv", (128, 0, 192)),
        ("LaneMkgsNonDriv", (192, 0, 64)),
        ("Misc_Text", (128, 128, 64)),
        ("MotorcycleScooter", (192, 0, 192)),
        ("OtherMoving", (128, 64, 64)),
        ("ParkingBlock", (64, 192, 128)),
        ("Pedestrian", (64, 64, 0)),
        ("Road", (128, 64, 128)),
        ("RoadShoulder", (128, 128, 192)),
        ("Sidewalk", (0, 0, 192)),
        ("SignSymbol", (192, 128, 128)),
        ("Sky", (128, 128, 128)),
        ("SUVPickupTruck", (64, 128, 192)),
        ("TrafficCone", (0, 0, 64)),
        ("TrafficLight", (0, 64, 64)),
        ("Train", (192, 64, 128)),
        ("Tree", (128, 128, 0)),
        ("Truck_Bus", (192, 128, 192)),
        ("Tunnel", (64, 0, 64)),
        ("VegetationMisc", (192, 192, 0)),
        ("Wall", (64, 192, 0)),
        ("void", (0, 0, 0)),
    ),
}
"""Classes in the order of their labels; one may have several colours."""


def luminance(color: Color) -> int:
    """Returns the gray, 0..255, that Pillow and most tools make of a colour.

    The weights are those of ITU-R 601-2, in units of 2^-16.
    """
    red, green, blue = color
    return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def find_by_colors(colors: Iterable[Color]) -> tuple[str, ...]:
    """Names the known palettes that have all of some colours."""
    colors = set(colors)
    return tuple(
        name
        for name, rows in PALETTES.items()
        if colors <= {color for _, color in rows}
    )


def count_classes(name: str) -> int:
    """Returns the number of classes of a known palette.

    >>> count_classes("voc")
    21
    """
    names = {label for label, _ in PALETTES[name]}
    return sum(not is_ignored(label) for label in names)


def find_by_grays(values: Iterable[int]) -> tuple[str, ...]:
    """Names the known palettes whose colours, turned gray, give all of some values."""
    values = set(values)
    return tuple(
        name
        for name, rows in PALETTES.items()
        if values <= {luminance(color) for _, color in rows}
    )
