"""Questions about scenes, with their answers; in English, a few in Chinese and Spanish.

Every function that asks takes (scene, rng) and gives (question, answer), or None
where this scene has nothing to ask of the kind.
"""

from collections import Counter

from scenes import COLOURS, SHAPES, SIZES

PLURAL = {s: s + "s" for s in SHAPES} | {"cross": "crosses"}
ZH_COLOUR = dict(zip(
    COLOURS, "红色 橙色 黄色 绿色 青色 蓝色 紫色 粉色 黑色 白色 棕色 灰色 青柠色 蓝绿色".split()))
ZH_SHAPE = dict(zip(SHAPES, "圆形 正方形 三角形 星形 十字形 菱形 心形 六边形 月牙形 箭头".split()))
ES_COLOUR = dict(zip(COLOURS,
    ("rojo naranja amarillo verde celeste azul morado rosa negro blanco marrón gris lima "
     "turquesa").split()))
ES_SHAPE = dict(zip(SHAPES,
    "círculo cuadrado triángulo estrella cruz rombo corazón hexágono luna flecha".split()))
ES_PLURAL = {s: e + ("es" if e[-1] in "nz" else "s") for s, e in ES_SHAPE.items()} | {
    "cross": "cruces", "heart": "corazones"}

DESCRIBE = ("Describe the picture.", "Describe this image.", "What is in the picture?",
            "List everything you see.", "What do you see?", "Describe the scene.",
            "Which objects are in this picture?", "Tell me what this picture shows.")
COUNT = ("How many {} are there?", "Count the {}.", "How many {} do you see?",
         "How many {} are in the picture?", "What is the number of {}?")
COLOUR = ("What colour is the {}?", "Which colour does the {} have?", "What color is the {}?",
          "Name the colour of the {}.", "The {} is drawn in which colour?")
SHAPE = ("What shape is {}?", "Which shape is {}?", "What {} shape is there?",
         "Name the shape that is {}.")
EXISTS = ("Is there a {}?", "Do you see a {}?", "Does the picture show a {}?",
          "Is a {} in the picture?", "Can you find a {}?")
OUTLINE = ("Is the {} filled or hollow?", "Is the {} hollow or filled?",
           "Filled or hollow: what is the {}?", "Is the {} drawn filled or hollow?")
SIZE = ("Is the {} small, medium or large?", "How large is the {}?",
        "What size is the {}?", "What is the size of the {}?")
LARGER = ("Which is larger, the {} or the {}?", "Which one is bigger: the {} or the {}?",
          "What is larger, the {} or the {}?")
SMALLER = ("Which is smaller, the {} or the {}?", "What is smaller, the {} or the {}?")
RELATION = {
    "left": ("What is left of the {}?", "What is directly to the left of the {}?",
             "Name the object left of the {}."),
    "right": ("What is right of the {}?", "What is directly to the right of the {}?",
              "Name the object right of the {}."),
    "above": ("What is above the {}?", "What is directly above the {}?",
              "Name the object above the {}."),
    "below": ("What is below the {}?", "What is directly below the {}?",
              "Name the object below the {}."),
}
READ_WORD = ("What word is written?", "Read the word.", "What does the text say?",
             "Which word do you see?", "What is the word in the picture?")
READ_NUMBER = ("What number is written?", "Read the number.", "Which number do you see?",
               "What is the number in the picture?")


def foreign(rng):
    """0 for English; 1 Chinese or 2 Spanish in a few percent of the questions."""
    return rng.choice((1, 2)) if rng.random() < 0.1 else 0


def shapes_of(scene):
    """The items that are shapes."""
    return [item for item in scene.items if item.kind == "shape"]


def unique_names(scene):
    """Items that a question can name, with the name: shorter names where they suffice."""
    shapes = shapes_of(scene)
    names = Counter(item.name() for item in shapes)
    kinds = Counter(item.shape for item in shapes)
    found = []
    for item in scene.items:
        if item.kind != "shape":
            found.append((item, item.kind))
        elif names[item.name()] == 1:
            found.append((item, item.name()))
            if kinds[item.shape] == 1:
                found.append((item, item.shape))
    return found


def nameable_shapes(scene):
    """unique_names without words and numbers."""
    return [(item, name) for item, name in unique_names(scene) if item.kind == "shape"]


def ask_describe(scene, rng):
    return rng.choice(DESCRIBE), ", ".join(item.describe() for item in scene.items)


def spread(rng, counted):
    """One of (thing, count), each count equally likely, so that guessing gains little."""
    count = rng.choice(sorted({n for _, n in counted}))
    return rng.choice([pair for pair in counted if pair[1] == count])


def count_targets(scene):
    """((colour or None, shape or None), count) for everything that could be counted."""
    shapes = shapes_of(scene)
    targets = [((None, None), len(shapes))]
    targets += [((None, s), sum(i.shape == s for i in shapes)) for s in SHAPES]
    targets += [((c, None), sum(i.colour == c for i in shapes)) for c in COLOURS]
    targets += [((i.colour, i.shape), sum(j.name() == i.name() for j in shapes)) for i in shapes]
    return targets


def count_attribute(shapes, rng):
    """(words before "shapes", count) of one size, or of the hollow or filled ones."""
    attribute = rng.choice((*SIZES, "hollow", "filled"))
    if attribute in SIZES:
        return attribute, sum(i.size == attribute for i in shapes)
    return attribute, sum(i.hollow == (attribute == "hollow") for i in shapes)


def ask_count(scene, rng):
    shapes = shapes_of(scene)
    if shapes and rng.random() < 0.25:
        attribute, count = count_attribute(shapes, rng)
        return rng.choice(COUNT).format(f"{attribute} shapes"), str(count)
    targets = [t for t in count_targets(scene) if t[1] > 0 or rng.random() < 0.08]
    if not targets:
        return None
    (colour, shape), count = spread(rng, targets)
    language = foreign(rng)
    if language == 1:
        thing = (ZH_COLOUR[colour] + "的" if colour else "") + (ZH_SHAPE[shape] if shape else "图形")
        return rng.choice(("有几个{}？", "图中有多少个{}？", "数一数{}。")).format(thing), str(count)
    if language == 2 and not (colour and shape):
        thing = f"figuras de color {ES_COLOUR[colour]}" if colour else \
            ES_PLURAL[shape] if shape else "figuras"
        return rng.choice(("¿Cuántas {} hay?", "Cuenta: {}.") if not shape
                          else ("Cuenta: {}.", "Número de {}:")).format(thing), str(count)
    thing = f"{colour} " if colour else ""
    thing += PLURAL[shape] if shape else "shapes"
    return rng.choice(COUNT).format(thing), str(count)


def ask_colour(scene, rng):
    shapes = shapes_of(scene)
    kinds = Counter(item.shape for item in shapes)
    items = [item for item in shapes if kinds[item.shape] == 1]
    if not items:
        return None
    item = rng.choice(items)
    language = foreign(rng)
    if language == 1:
        question = rng.choice(("{}是什么颜色？", "{}的颜色是什么？"))
        return question.format(ZH_SHAPE[item.shape]), ZH_COLOUR[item.colour]
    if language == 2:
        question = rng.choice(("¿De qué color es: {}?", "¿Qué color tiene la figura {}?"))
        return question.format(ES_SHAPE[item.shape]), ES_COLOUR[item.colour]
    return rng.choice(COLOUR).format(item.shape), item.colour


def ask_shape(scene, rng):
    shapes = shapes_of(scene)
    colours = Counter(item.colour for item in shapes)
    items = [item for item in shapes if colours[item.colour] == 1]
    if not items:
        return None
    item = rng.choice(items)
    language = foreign(rng)
    if language == 1:
        return f"{ZH_COLOUR[item.colour]}的是什么图形？", ZH_SHAPE[item.shape]
    if language == 2:
        return f"¿Qué figura es de color {ES_COLOUR[item.colour]}?", ES_SHAPE[item.shape]
    return rng.choice(SHAPE).format(item.colour), item.shape


def absent_thing(scene, rng):
    """A colour and shape that are not together in the scene, often each of them there."""
    shapes = shapes_of(scene)
    names = {item.name() for item in shapes}
    for _ in range(20):
        colour = rng.choice([i.colour for i in shapes]) if rng.random() < 0.5 else \
            rng.choice(list(COLOURS))
        shape = rng.choice([i.shape for i in shapes]) if rng.random() < 0.5 else rng.choice(SHAPES)
        if f"{colour} {shape}" not in names:
            return colour, shape
    return None


def ask_exists(scene, rng):
    shapes = shapes_of(scene)
    if not shapes:
        return None
    present = rng.random() < 0.5
    item = rng.choice(shapes)
    colour, shape = (item.colour, item.shape) if present else absent_thing(scene, rng) or (0, 0)
    if not colour:
        return None
    if rng.random() < 0.35:  # the shape alone
        colour = None
        present = any(i.shape == shape for i in shapes)
    language = foreign(rng)
    if language == 1:
        thing = (ZH_COLOUR[colour] + "的" if colour else "") + ZH_SHAPE[shape]
        return rng.choice(("有{}吗？", "图中有没有{}？")).format(thing), "有" if present else "没有"
    if language == 2:
        thing = ES_SHAPE[shape] + (f" de color {ES_COLOUR[colour]}" if colour else "")
        return rng.choice(("¿Hay: {}?", "¿Se ve: {}?")).format(thing), "sí" if present else "no"
    thing = f"{colour} {shape}" if colour else shape
    question = rng.choice(EXISTS).format(thing).replace(" a orange", " an orange")
    return question, "yes" if present else "no"


def ask_outline(scene, rng):
    named = nameable_shapes(scene)
    if not named:
        return None
    hollow = [pair for pair in named if pair[0].hollow]
    item, name = rng.choice(hollow if hollow and rng.random() < 0.6 else named)
    return rng.choice(OUTLINE).format(name), "hollow" if item.hollow else "filled"


def ask_size(scene, rng):
    named = nameable_shapes(scene)
    if not named:
        return None
    item, name = rng.choice(named)
    return rng.choice(SIZE).format(name), item.size


def ask_larger(scene, rng):
    named = nameable_shapes(scene)
    sizes = list(SIZES)
    choices = [(a, b) for a in named for b in named
               if sizes.index(a[0].size) < sizes.index(b[0].size)]
    if not choices:
        return None
    first, second = rng.choice(choices)
    larger = rng.random() < 0.7
    answer = (second if larger else first)[0].name()
    pair = [first[1], second[1]]
    rng.shuffle(pair)
    return rng.choice(LARGER if larger else SMALLER).format(*pair), answer


def neighbour(scene, item, side):
    """The nearest item on that side in the same row or column; "nothing"; None in doubt."""
    if side in ("left", "right"):
        near = [i for i in scene.items if i.row == item.row and i is not item]
        sign = -1 if side == "left" else 1
        near = [i for i in near if sign * (i.columns[0] - item.columns[0]) > 0]
        return min(near, key=lambda i: abs(i.columns[0] - item.columns[0]), default="nothing")
    sign = -1 if side == "above" else 1
    near = [i for i in scene.items if set(i.columns) & set(item.columns)
            and sign * (i.row - item.row) > 0]
    if not near:
        return "nothing"
    distance = min(abs(i.row - item.row) for i in near)
    near = [i for i in near if abs(i.row - item.row) == distance]
    return near[0] if len(near) == 1 else None


def ask_relation(scene, rng):
    choices = []
    for item, name in unique_names(scene):
        for side in RELATION:
            other = neighbour(scene, item, side)
            if other is not None:
                choices.append((name, side, other))
    some = [choice for choice in choices if choice[2] != "nothing"]
    if some and rng.random() < 0.92:
        choices = some
    elif not choices or rng.random() < 0.5:
        return None
    name, side, other = rng.choice(choices)
    answer = other if other == "nothing" else other.name()
    return rng.choice(RELATION[side]).format(name), answer


def ask_read(scene, rng, kind, wordings, zh, es):
    found = [item for item in scene.items if item.kind == kind]
    if not found:
        return None
    language = foreign(rng)
    return (rng.choice(wordings), zh, es)[language], found[0].text


def ask_read_word(scene, rng):
    return ask_read(scene, rng, "word", READ_WORD, "写着什么单词？", "¿Qué palabra está escrita?")


def ask_read_number(scene, rng):
    return ask_read(scene, rng, "number", READ_NUMBER, "写着什么数字？", "¿Qué número está escrito?")


def ask_two(pair, rng):
    """About two pictures: which has more, or which shows something that the other lacks."""
    shapes = [shapes_of(scene) for scene in pair]
    choices = []
    for thing, test in [("shapes", lambda i: True)] + \
            [(PLURAL[s], lambda i, s=s: i.shape == s) for s in SHAPES] + \
            [(f"{c} shapes", lambda i, c=c: i.colour == c) for c in COLOURS]:
        first, second = (sum(test(i) for i in some) for some in shapes)
        if first != second:
            choices.append((thing, first > second))
    named = [{i.name() for i in some} for some in shapes]
    only = [(n, True) for n in sorted(named[0] - named[1])]
    only += [(n, False) for n in sorted(named[1] - named[0])]
    if only and (not choices or rng.random() < 0.4):
        thing, first = rng.choice(only)
        question = rng.choice(("Which picture shows a {}?", "In which picture is a {}?"))
        question = question.format(thing).replace(" a orange", " an orange")
    elif choices:
        thing, first = rng.choice(choices)
        question = rng.choice(("Which picture has more {}?", "Which picture shows more {}?",
                               "In which picture are there more {}?")).format(thing)
    else:
        return None
    return question, "first" if first else "second"


# kind: (asks, how often it is asked); two_pictures is asked of a pair of scenes
KINDS = {
    "describe": (ask_describe, 15),
    "count": (ask_count, 14),
    "colour": (ask_colour, 8),
    "shape": (ask_shape, 7),
    "exists": (ask_exists, 9),
    "outline": (ask_outline, 5),
    "size": (ask_size, 5),
    "larger": (ask_larger, 14),
    "relation": (ask_relation, 14),
    "read_word": (ask_read_word, 20),
    "read_number": (ask_read_number, 18),
}
TWO_PICTURES = "two_pictures"


def ask(scene, rng, kinds=None):
    """A question of a random kind: (kind, question, answer), or None."""
    kinds = kinds or list(KINDS)
    kind = rng.choices(kinds, [KINDS[k][1] for k in kinds])[0]
    asked = KINDS[kind][0](scene, rng)
    return (kind, *asked) if asked else None
