"""Pictures and questions as arrays for training: many questions after one picture.

A packed row is the prompt's beginning with the picture in segment 0, then
question after question, each with its answer, in segments 1, 2, ... that do not
see each other; every one stands at the positions it would have alone. So one
row trains what that many separate prompts would.
"""

import io
import math
import random

import numpy as np
from PIL import Image

import questions
from scenes import COLOURS, SHAPES, SIZES, make_scene

PATCH, MERGE = 8, 2
MIN_PIXELS, MAX_PIXELS = 16 * 256, 80 * 256
N_PATCHES = 320  # MAX_PIXELS in patches
LENGTH, N_CHOSEN = 256, 64
PAIR_LENGTH, PAIR_CHOSEN = 256, 16
CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
N_CLASSES = (3 + len(SHAPES), 1 + len(COLOURS), 1 + 2 * len(SIZES), 1 + len(CHARACTERS))
KIND_NAMES = [*questions.KINDS, questions.TWO_PICTURES]

# name: (dtype, shape of one picture's entry)
PICTURE_FIELDS = {
    "patches": (np.uint8, (N_PATCHES, 3 * PATCH * PATCH)),
    "labels": (np.uint8, (N_PATCHES, 4)),
    "where": (np.uint8, (N_PATCHES, 2)),
    "n_patches": (np.int16, ()),
}


def row_fields(length, chosen):
    """name: (dtype, shape) of a packed row."""
    return {
        "ids": (np.int16, (length,)), "row_of": (np.int16, (length,)),
        "segments": (np.int8, (length,)), "positions": (np.int16, (3, length)),
        "chosen": (np.int16, (chosen,)), "targets": (np.int16, (chosen,)),
        "question": (np.int8, (chosen,)), "kind": (np.int8, (chosen,)),
    }


SINGLE_FIELDS = row_fields(LENGTH, N_CHOSEN)
PAIR_FIELDS = row_fields(PAIR_LENGTH, PAIR_CHOSEN)


def smart_resize(height, width):
    """As the family's: multiples of 16, between MIN_PIXELS and MAX_PIXELS."""
    factor = PATCH * MERGE
    h, w = (round(v / factor) * factor for v in (height, width))
    if h * w > MAX_PIXELS:
        beta = math.sqrt(height * width / MAX_PIXELS)
        h, w = (max(factor, math.floor(v / beta / factor) * factor) for v in (height, width))
    elif h * w < MIN_PIXELS:
        beta = math.sqrt(MIN_PIXELS / (height * width))
        h, w = (math.ceil(v * beta / factor) * factor for v in (height, width))
    return h, w


def blocks(array, size):
    """[H, W, C] as rows of size x size pixels, in the order the tower wants its patches."""
    height, width, depth = array.shape
    array = array.reshape(height // (MERGE * size), MERGE, size,
                          width // (MERGE * size), MERGE, size, depth)
    return array.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, depth * size * size)


def part_labels(scene):
    """[parts + 1, 4]: class, colour, size with outline, and character of each part."""
    labels = [(0, 0, 0, 0)]
    colours = list(COLOURS)
    for item, character in scene.parts:
        colour = 1 + colours.index(item.colour)
        if item.kind == "shape":
            form = 1 + 2 * list(SIZES).index(item.size) + item.hollow
            labels.append((1 + SHAPES.index(item.shape), colour, form, 0))
        else:
            what = len(SHAPES) + (1 if item.kind == "word" else 2)
            labels.append((what, colour, 0, 1 + CHARACTERS.index(character)))
    return np.array(labels, np.uint8)


def pack_picture(scene, file, entry):
    """Fill the entry's PICTURE_FIELDS; gives the merged grid (rows, columns)."""
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    height, width = smart_resize(picture.height, picture.width)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    grid = height // PATCH, width // PATCH
    n = grid[0] * grid[1]
    entry["patches"][:n] = blocks(np.asarray(picture), PATCH)
    owner = scene.owner.resize((grid[1], grid[0]), Image.Resampling.NEAREST)
    entry["labels"][:n] = part_labels(scene)[blocks(np.asarray(owner)[:, :, None], 1)[:, 0]]
    entry["where"][:n] = blocks(np.indices(grid).transpose(1, 2, 0), 1)
    entry["n_patches"][...] = n
    return grid[0] // MERGE, grid[1] // MERGE


class Packer:
    """Packs with one tokenizer."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.known = {}
        self.image = tokenizer.token_to_id("<|image_pad|>")
        self.head = self.encode("<|im_start|>user\n")
        self.begin, self.end = self.encode("<|vision_start|>"), self.encode("<|vision_end|>")
        self.turn = self.encode("<|im_end|>\n<|im_start|>assistant\n")
        self.stop = self.encode("<|im_end|>")

    def encode(self, text):
        """Token ids; kept, since questions come again and again."""
        if text not in self.known:
            if len(self.known) > 20000:
                self.known.clear()
            self.known[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self.known[text]

    def prefix(self, grids, first_rows):
        """Ids, rows and positions [n, 3] of a prompt up to the question; the next position."""
        ids, rows = list(self.head), [-1] * len(self.head)
        places = [(p, p, p) for p in range(len(ids))]
        at = len(ids)
        for (height, width), first in zip(grids, first_rows):
            ids += self.begin + [self.image] * (height * width) + self.end
            rows += [-1, *range(first, first + height * width), -1]
            places.append((at, at, at))
            at += 1
            places += [(at, at + y, at + x) for y in range(height) for x in range(width)]
            at += max(height, width)
            places.append((at, at, at))
            at += 1
        return ids, rows, places, at

    def pack(self, grids, first_rows, asked, entry):
        """Fill a row's fields with the prefix and as many of `asked` as fit."""
        ids, rows, places, start = self.prefix(grids, first_rows)
        segments = [0] * len(ids)
        chosen = []
        for number, (kind, question, answer) in enumerate(asked, 1):
            prompt, wanted = self.encode(question) + self.turn, self.encode(answer) + self.stop
            new = prompt + wanted[:-1]
            if len(ids) + len(new) > len(entry["ids"]) or \
                    len(chosen) + len(wanted) > len(entry["chosen"]):
                continue
            at = len(ids) + len(prompt) - 1
            code = KIND_NAMES.index(kind)
            chosen += [(at + k, token, number, code) for k, token in enumerate(wanted)]
            ids += new
            places += [(p, p, p) for p in range(start, start + len(new))]
            segments += [number] * len(new)
        n = len(ids)
        entry["ids"][:n] = ids
        entry["row_of"][...] = -1
        entry["row_of"][:len(rows)] = rows
        entry["segments"][...] = -1
        entry["segments"][:n] = segments
        entry["positions"][:, :n] = np.array(places).T
        entry["targets"][...] = -1
        for name, values in zip(("chosen", "targets", "question", "kind"), zip(*chosen)):
            entry[name][:len(values)] = values


def asked_of(scene, rng):
    """"Describe", then other questions; more than fit."""
    asked = [("describe", *questions.ask_describe(scene, rng))]
    others = [kind for kind in questions.KINDS if kind != "describe"]
    for _ in range(16):
        found = questions.ask(scene, rng, others)
        if found and all(found[1] != other[1] for other in asked):
            asked.append(found)
    return asked


def asked_of_two(pair, rng):
    """Questions about two pictures."""
    asked = {}
    for _ in range(8):
        found = questions.ask_two(pair, rng)
        if found:
            asked[found[0]] = (questions.TWO_PICTURES, *found)
    return list(asked.values())


def pack_chunk(packer, seed, first, arrays):
    """Fill `arrays` ("picture", "single", "pair": field to array) with pictures from `first` on."""
    n = len(arrays["picture"]["n_patches"])
    before = None
    for k in range(n):
        name = f"{seed}:{first + k}"
        scene, file = make_scene(name)
        rng = random.Random(name + ":questions")
        entry = {field: array[k] for field, array in arrays["picture"].items()}
        entry["n_patches"] = arrays["picture"]["n_patches"][k:k + 1]
        grid = pack_picture(scene, file, entry)
        entry = {field: array[k] for field, array in arrays["single"].items()}
        packer.pack([grid], [0], asked_of(scene, rng), entry)
        if k % 2:
            entry = {field: array[k // 2] for field, array in arrays["pair"].items()}
            grids, pair = (before[0], grid), (before[1], scene)
            packer.pack(grids, [0, N_PATCHES // 4], asked_of_two(pair, rng), entry)
        before = grid, scene
