#!/usr/bin/env python3
"""Write test/unit/data/resize.bin: what Pillow makes of a picture given by a formula; or torch.

    python3 test/tools/make_resize_vectors.py test/unit/data/resize.bin
    python3 test/tools/make_resize_vectors.py --torch test/unit/data/resize_torch.bin

Needs pillow and numpy; made with Pillow 13.0.0, whose order of the two passes differs from
that of earlier versions. With --torch: torch and torchvision on a processor with AVX2, as
transformers calls them for videos; 16 is added to the number of the filter. A record is five little-endian u16 (width, height, new width, new
height, filter) and the resized picture's RGB bytes.
"""
import struct
import sys

import numpy
from PIL import Image

SHAPES = [  # width, height, new width, new height
    (1, 1, 3, 5), (1, 7, 4, 3), (9, 1, 2, 1), (1, 40, 1, 7), (33, 33, 1, 1),
    (5, 7, 5, 7), (5, 7, 13, 11), (7, 7, 28, 7), (7, 7, 7, 28), (2, 3, 31, 37),
    (17, 13, 6, 5), (16, 16, 8, 8), (40, 30, 39, 31), (64, 48, 21, 16), (200, 150, 19, 23),
    (31, 9, 10, 20), (9, 31, 20, 10), (12, 66, 30, 13), (101, 3, 7, 7), (3, 101, 7, 7),
    (30, 61, 30, 20), (20, 60, 10, 39), (20, 60, 10, 40), (20, 60, 10, 41),
]
FILTERS = (0, 1, 2, 3)


def picture(width, height):
    """The formula of test_resize.c: coarse blocks with hard edges, and a fine texture."""
    y, x, c = numpy.mgrid[0:height, 0:width, 0:3]
    blocks = ((x // 3 + y // 4 + c) % 2) * 170
    texture = (x * x * 7 + y * y * 13 + x * y * 5 + c * 29) % 86
    return (blocks + texture).astype(numpy.uint8)


def by_torch(source, width, height, number):
    import torch
    from torchvision.transforms.v2 import functional

    mode = {2: functional.InterpolationMode.BILINEAR, 3: functional.InterpolationMode.BICUBIC}[number]
    planes = torch.from_numpy(source.transpose(2, 0, 1).copy())
    resized = functional.resize(planes, [height, width], interpolation=mode, antialias=True)
    return resized.numpy().transpose(1, 2, 0).tobytes()


def write_torch(path):
    with open(path, "wb") as out:
        for width, height, new_width, new_height in SHAPES:
            if min(width, height, new_width, new_height) == 1:
                continue  # torch takes a side of 1 for a layout of its own, and fails
            for number in (2, 3):
                out.write(struct.pack("<5H", width, height, new_width, new_height, 16 + number))
                out.write(by_torch(picture(width, height), new_width, new_height, number))


def main():
    if sys.argv[1] == "--torch":
        write_torch(sys.argv[2])
        return
    with open(sys.argv[1], "wb") as out:
        for width, height, new_width, new_height in SHAPES:
            source = Image.fromarray(picture(width, height))
            for number in FILTERS:
                resized = source.resize((new_width, new_height), number)
                out.write(struct.pack("<5H", width, height, new_width, new_height, number))
                out.write(resized.tobytes())


if __name__ == "__main__":
    main()
