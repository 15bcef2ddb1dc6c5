"""Scenes: pictures of coloured shapes, words and numbers, and what is in them.

A scene is drawn from a seed alone. It holds one to six items, each in a cell of
a grid that the picture does not show, so that "left of" and "above" are never
in doubt. Sizes are in pixels of the picture as made, before the model's own
resizing.
"""

import functools
import io
import math
import os
import random
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from words import WORDS

COLOURS = {
    "red": (215, 30, 35),
    "orange": (245, 135, 20),
    "yellow": (245, 225, 45),
    "green": (35, 150, 55),
    "cyan": (50, 200, 220),
    "blue": (40, 70, 215),
    "purple": (130, 50, 165),
    "pink": (250, 130, 190),
    "black": (18, 18, 20),
    "white": (246, 246, 246),
    "brown": (120, 70, 32),
    "grey": (128, 130, 132),
    "lime": (165, 225, 60),
    "teal": (15, 125, 128),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "heart", "hexagon", "moon",
          "arrow")
SIZES = {"small": (12.5, 15.5), "medium": (19.5, 23), "large": (29, 35)}
CELL = 40
MASK_SCALE = 4  # masks are drawn this much larger, then shrunk
TEXT_SCALE = 2

FONT_FOLDERS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/truetype/freefont",
                "/usr/share/fonts/truetype/liberation", "/usr/share/fonts/truetype/liberation2")
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono-Bold",
    "FreeSans", "FreeSansBold", "FreeSerif", "FreeSerifBold", "FreeMonoBold",
    "LiberationSans-Regular", "LiberationSans-Bold", "LiberationSans-Italic",
    "LiberationSerif-Regular", "LiberationSerif-Bold", "LiberationMono-Bold",
    "LiberationSansNarrow-Bold",
)


@dataclass
class Item:
    """One thing in a scene; `text` is set for words and numbers, `shape` for shapes."""

    kind: str  # "shape", "word" or "number"
    colour: str
    row: int
    columns: tuple  # the cells it takes
    shape: str = ""
    size: str = ""  # one of SIZES
    hollow: bool = False
    text: str = ""
    centre: tuple = (0.0, 0.0)
    extent: float = 0.0  # a shape's width

    def describe(self):
        """The item with all its attributes, as an answer to "describe" lists it."""
        if self.kind != "shape":
            return f"{self.kind} {self.text}"
        return f"{self.size} {'hollow ' if self.hollow else ''}{self.colour} {self.shape}"

    def name(self):
        """A short name, as other answers give it."""
        return f"{self.colour} {self.shape}" if self.kind == "shape" else self.describe()


@dataclass
class Scene:
    """Items in reading order, and the picture once drawn."""

    width: int
    height: int
    rows: int
    columns: int
    items: list = field(default_factory=list)
    picture: Image.Image = None
    owner: Image.Image = None  # "L": index + 1 of the part at each pixel, 0 background
    parts: list = field(default_factory=list)  # (item, character or "") by that index


# ---- what is in a scene -------------------------------------------------------------------


def distance(a, b):
    """How different two colours look, roughly."""
    return math.sqrt(sum(w * (x - y) ** 2 for w, x, y in zip((0.9, 1.6, 0.5), a, b)))


def choose_background(rng):
    """A dull colour: light, dark or in between."""
    level = rng.choice((rng.randint(195, 238), rng.randint(20, 60), rng.randint(95, 150)))
    return tuple(max(0, min(255, level + rng.randint(-14, 14))) for _ in range(3))


def choose_size(rng):
    """Width and height: 1:3 to 3:1."""
    aspect = math.exp(rng.uniform(-math.log(3), math.log(3)))
    area = rng.uniform(15500, 24000)
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def choose_word(rng):
    """Three to five capitals; some are no words, so that they have to be read."""
    if rng.random() < 0.5:
        return rng.choice(WORDS)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return "".join(rng.choice(letters) for _ in range(rng.choice((3, 4, 5))))


def choose_number(rng):
    """One to three digits, no leading zero."""
    digits = rng.choice((1, 2, 2, 3))
    return str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10 ** digits - 1))


def free_places(scene, taken, n_cells):
    """Runs of `n_cells` free cells, each (row, columns)."""
    for row in range(scene.rows):
        for column in range(scene.columns - n_cells + 1):
            columns = tuple(range(column, column + n_cells))
            if all((row, c) not in taken for c in columns):
                yield row, columns


def add_item(scene, rng, taken, n_cells, **attributes):
    """Put an item at a random free place; nothing happens where there is none."""
    places = list(free_places(scene, taken, n_cells))
    if not places:
        return
    row, columns = rng.choice(places)
    taken.update((row, c) for c in columns)
    scene.items.append(Item(row=row, columns=columns, **attributes))


def compose(rng, background):
    """Choose size, items and places."""
    width, height = choose_size(rng)
    scene = Scene(width, height, max(1, round(height / CELL)), max(2, round(width / CELL)))
    colours = [c for c in COLOURS if distance(COLOURS[c], background) > 90]
    shapes = list(SHAPES)
    if rng.random() < 0.6:  # few kinds, so that there is something to count
        colours = rng.sample(colours, min(len(colours), rng.choice((2, 3))))
        shapes = rng.sample(shapes, rng.choice((1, 2, 3)))
    strong = [c for c in COLOURS if distance(COLOURS[c], background) > 130]
    taken = set()
    n_items = rng.choice((1, 2, 3, 4, 5, 6, 4, 5, 6))
    if rng.random() < 0.42:
        add_item(scene, rng, taken, 2, kind="word", colour=rng.choice(strong),
                 text=choose_word(rng))
    if rng.random() < 0.36 and len(scene.items) < n_items:
        text = choose_number(rng)
        add_item(scene, rng, taken, 1 if len(text) == 1 else 2, kind="number",
                 colour=rng.choice(strong), text=text)
    while len(scene.items) < n_items:
        before = len(scene.items)
        add_item(scene, rng, taken, 1, kind="shape", colour=rng.choice(colours),
                 shape=rng.choice(shapes), size=rng.choice(list(SIZES)),
                 hollow=rng.random() < 0.3)
        if len(scene.items) == before:
            break
    scene.items.sort(key=lambda item: (item.row, item.columns))
    return scene


# ---- drawing ------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def font_path(name):
    """Where the font of that name is; FONTS_DIR in the environment is looked at first."""
    folders = (os.environ.get("FONTS_DIR", ""),) + FONT_FOLDERS
    for folder in folders:
        path = os.path.join(folder, name + ".ttf")
        if os.path.exists(path):
            return path
    raise FileNotFoundError(f"font {name}.ttf in none of {folders}; see README.md for packages")


@functools.lru_cache(maxsize=256)
def load_font(name, size):
    """Without raqm, whose presence would change the spacing."""
    return ImageFont.truetype(font_path(name), size, layout_engine=ImageFont.Layout.BASIC)


def outline(shape):
    """The shape's corners in a square from -1 to 1."""
    if shape == "circle":
        turns = [2 * math.pi * k / 40 for k in range(40)]
        return [(math.cos(t), math.sin(t)) for t in turns]
    if shape == "square":
        return [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)]
    if shape == "triangle":
        return [(0, -0.95), (1, 0.85), (-1, 0.85)]
    if shape == "star":
        radii = [1.08 if k % 2 == 0 else 0.45 for k in range(10)]
        turns = [math.pi * k / 5 - math.pi / 2 for k in range(10)]
        return [(r * math.cos(t), r * math.sin(t) + 0.06) for r, t in zip(radii, turns)]
    if shape == "cross":
        a = 0.34
        return [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a),
                (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    if shape == "diamond":
        return [(0, -1.05), (0.8, 0), (0, 1.05), (-0.8, 0)]
    if shape == "hexagon":
        turns = [math.pi * k / 3 for k in range(6)]
        return [(1.05 * math.cos(t), 1.05 * math.sin(t)) for t in turns]
    if shape == "moon":
        outer = [math.pi * (0.22 + 1.56 * k / 24) for k in range(25)]
        inner = [math.pi * (1.68 - 1.36 * k / 24) for k in range(25)]
        return [(math.cos(t) + 0.2, math.sin(t)) for t in outer] + \
            [(0.78 * math.cos(t) + 0.55, 0.76 * math.sin(t)) for t in inner]
    if shape == "arrow":
        return [(-1, -0.36), (0.05, -0.36), (0.05, -0.95), (1, 0), (0.05, 0.95),
                (0.05, 0.36), (-1, 0.36)]
    turns = [2 * math.pi * k / 40 for k in range(40)]  # heart
    return [(math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)
                                 - math.cos(4 * t)) / 16.5 - 0.1) for t in turns]


def shape_masks(item, rng):
    """The pixels to colour, and those the shape covers (the same unless it is hollow)."""
    side = int(item.extent) + 6
    scale = MASK_SCALE
    radius, middle = item.extent * scale / 2, side * scale / 2
    turn = math.radians(rng.uniform(-9, 9))
    corners = outline(item.shape)

    def polygon(factor):
        c, s = math.cos(turn) * radius * factor, math.sin(turn) * radius * factor
        return [(middle + x * c - y * s, middle + x * s + y * c) for x, y in corners]

    mask = Image.new("L", (side * scale, side * scale), 0)
    draw = ImageDraw.Draw(mask)
    draw.polygon(polygon(1.0), fill=255)
    cover = mask
    if item.hollow:
        cover = mask.copy()
        width = max(1.6, item.extent * rng.uniform(0.1, 0.15))
        mask = Image.new("L", mask.size, 0)
        edge = polygon(1.0 - width / item.extent)
        ImageDraw.Draw(mask).line(edge + edge[:2], fill=255, width=round(width * scale),
                                  joint="curve")
    size = (side, side)
    return mask.resize(size, Image.Resampling.BOX), cover.resize(size, Image.Resampling.BOX)


def paint(scene, item, picture, rng):
    """Draw one shape and note which pixels it owns."""
    mask, cover = shape_masks(item, rng)
    left = round(item.centre[0] - mask.width / 2)
    top = round(item.centre[1] - mask.height / 2)
    colour = tuple(max(0, min(255, v + rng.randint(-10, 10))) for v in COLOURS[item.colour])
    picture.paste(colour, (left, top), mask)
    scene.parts.append((item, ""))
    scene.owner.paste(len(scene.parts), (left, top), cover.point(lambda v: 255 * (v > 127)))


def fit_font(text, room, rng):
    """A font in which the text fits into `room` pixels, at twice that size."""
    name = rng.choice(FONTS)
    size = rng.randint(15, 26)
    while size > 12:
        font = load_font(name, size * TEXT_SCALE)
        if font.getlength(text) <= room[0] * TEXT_SCALE and size * 1.1 < room[1]:
            break
        size -= 1
    return font


def write(scene, item, picture, rng):
    """Draw a word or number, each character a part of its own."""
    room = (scene.width / scene.columns * len(item.columns) - 5, scene.height / scene.rows)
    font = fit_font(item.text, room, rng)
    left, top, right, bottom = font.getbbox(item.text)
    pad = 4 * TEXT_SCALE
    size = (right - left + 2 * pad, bottom - top + 2 * pad)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).text((pad - left, pad - top), item.text, fill=255, font=font)
    mask = mask.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC)
    mask = mask.resize((size[0] // TEXT_SCALE, size[1] // TEXT_SCALE), Image.Resampling.BOX)
    x = round(item.centre[0] - mask.width / 2)
    y = round(item.centre[1] - mask.height / 2)
    colour = tuple(max(0, min(255, v + rng.randint(-10, 10))) for v in COLOURS[item.colour])
    picture.paste(colour, (x, y), mask)
    owner = ImageDraw.Draw(scene.owner)
    for k, character in enumerate(item.text):
        begin = x + (pad - left + font.getlength(item.text[:k])) / TEXT_SCALE
        end = x + (pad - left + font.getlength(item.text[:k + 1])) / TEXT_SCALE
        scene.parts.append((item, character))
        owner.rectangle((begin, y + 3, end - 1, y + mask.height - 4), fill=len(scene.parts))


def gradient(width, height, rng):
    """[height, width] from -1 to 1 along a random direction."""
    turn = rng.uniform(0, 2 * math.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    return (x * math.cos(turn) + y * math.sin(turn)) / 1.4


def stripes(width, height, rng):
    """Waves or a checker pattern, from -1 to 1."""
    turn, period = rng.uniform(0, math.pi), rng.uniform(5, 16)
    x = np.arange(width, dtype=np.float32)[None, :] * (2 * math.pi / period)
    y = np.arange(height, dtype=np.float32)[:, None] * (2 * math.pi / period)
    if rng.random() < 0.4:
        return np.sign(np.sin(x) * np.sin(y))
    return np.sin(x * math.cos(turn) + y * math.sin(turn))


def clouds(width, height, noise):
    """Smooth noise."""
    coarse = noise.standard_normal((max(2, height // 12), max(2, width // 12)))
    small = Image.fromarray(coarse.astype(np.float32), "F")
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def draw_background(width, height, base, rng, noise):
    """[height, width, 3] float32: a flat colour, gradient, pattern or clouds."""
    plane = np.zeros((height, width), np.float32)
    kind = rng.choice(("flat", "gradient", "gradient", "stripes", "clouds", "both"))
    if kind in ("gradient", "both"):
        plane = plane + gradient(width, height, rng) * rng.uniform(6, 30)
    if kind == "stripes":
        plane = plane + stripes(width, height, rng) * rng.uniform(3, 14)
    if kind in ("clouds", "both"):
        plane = plane + clouds(width, height, noise) * rng.uniform(3, 12)
    tint = np.array([rng.uniform(0.7, 1.2) for _ in range(3)], np.float32)
    return np.array(base, np.float32) + plane[:, :, None] * tint


def spoil(picture, rng, noise):
    """Mild blur, noise and JPEG artefacts; gives the file's bytes."""
    if rng.random() < 0.45:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9)))
    if rng.random() < 0.6:
        pixels = np.asarray(picture, np.float32)
        grain = noise.standard_normal(pixels.shape, np.float32) * rng.uniform(1, 11)
        picture = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=rng.randint(50, 92))
    return file.getvalue()


def place(scene, item, rng):
    """Centre and size of an item inside its cells."""
    cell_w, cell_h = scene.width / scene.columns, scene.height / scene.rows
    x = cell_w * (item.columns[0] + len(item.columns) / 2)
    y = cell_h * (item.row + 0.5)
    if item.kind == "shape":
        most = min(cell_w, cell_h) - 3
        low, high = SIZES[item.size]
        item.extent = rng.uniform(low, min(high, max(low, most)))
        slack_x = max(0.0, (cell_w - item.extent) / 2 - 2)
        slack_y = max(0.0, (cell_h - item.extent) / 2 - 2)
        x += rng.uniform(-1, 1) * min(6, slack_x)
        y += rng.uniform(-1, 1) * min(6, slack_y)
    else:
        y += rng.uniform(-3, 3)
    item.centre = (x, y)


def make_scene(seed):
    """The scene of that seed (any string), and its picture as the bytes of a JPEG file."""
    rng = random.Random(seed)
    noise = np.random.Generator(np.random.PCG64(rng.getrandbits(64)))
    base = choose_background(rng)
    scene = compose(rng, base)
    pixels = draw_background(scene.width, scene.height, base, rng, noise)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    scene.owner = Image.new("L", picture.size, 0)
    for item in scene.items:
        place(scene, item, rng)
        (paint if item.kind == "shape" else write)(scene, item, picture, rng)
    return scene, spoil(picture, rng, noise)
