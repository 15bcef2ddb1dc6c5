#!/usr/bin/env python3
"""Make test/golden/preproc_tiny: what transformers' image processors make of small pictures.

  make_preproc_vectors.py OUT                  write the vectors into the new folder OUT
  make_preproc_vectors.py --random SEED N OUT  of N pictures of random sizes and random settings

Needs, from PyPI: torch transformers==5.17.0 safetensors pillow numpy. The Pillow classes are used.
preproc.json has the form of the reference data: pictures; for each processor its class, its settings
and for each picture the shape, the grid, CRC-32 of all values (f32, C order) and of the bytes before
rescaling; samples.safetensors holds every stride-th value.
"""
import argparse
import json
import os
import random
import sys
import zlib

import numpy as np
import PIL
import transformers
from PIL import Image
from safetensors.numpy import save_file

SAMPLES = 128
SIZES = {"rings": (97, 70), "square": (64, 64), "wide": (131, 24), "tall": (9, 150), "dot": (1, 1), "odd": (53, 67)}
COLOURS = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

FAMILIES = {
    "qwen2_vl": ("Qwen2VLImageProcessorPil", {"min_pixels": 3136, "max_pixels": 7056}),
    "qwen3_vl": ("Qwen2VLImageProcessorPil", {"size": {"shortest_edge": 4096, "longest_edge": 9216}, "patch_size": 16, **HALVES}),
    "llava": ("CLIPImageProcessorPil", {"size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}, **COLOURS}),
    "llava_box": ("CLIPImageProcessorPil", {"size": {"height": 30, "width": 50}, "crop_size": {"height": 41, "width": 37}, "resample": 2}),
    "llava_pad": ("LlavaImageProcessorPil", {"do_pad": True, "size": {"shortest_edge": 42}, "crop_size": {"height": 42, "width": 42}}),
    "llava_next": ("LlavaNextImageProcessorPil", {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28},
                   "image_grid_pinpoints": [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]}),
    "llava_next_one": ("LlavaNextImageProcessorPil", {"size": {"height": 28, "width": 28}, "crop_size": {"height": 28, "width": 28},
                       "image_grid_pinpoints": [[28, 28], [84, 84]], "resample": 2}),
    "idefics3": ("Idefics3ImageProcessorPil", {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}),
    "idefics3_odd": ("Idefics3ImageProcessorPil", {"size": {"longest_edge": 75}, "max_image_size": {"longest_edge": 25}, **COLOURS}),
    "idefics3_box": ("Idefics3ImageProcessorPil", {"size": {"height": 30, "width": 61}, "max_image_size": {"longest_edge": 20}}),
    "smolvlm_one": ("SmolVLMImageProcessorPil", {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 64}}),
    "smolvlm_nosplit": ("SmolVLMImageProcessorPil", {"do_image_splitting": False, "size": {"longest_edge": 64},
                        "max_image_size": {"longest_edge": 32}}),
}


def random_families(rng):
    """Settings that are valid, of any proportion."""
    side, tile = rng.randint(8, 60), rng.choice([8, 16, 20, 27, 32])
    pinpoints = [[tile * rng.randint(1, 5), tile * rng.randint(1, 5)] for _ in range(rng.randint(1, 7))]
    least = rng.randint(1, 20000)
    square = {"size": {"shortest_edge": tile}, "crop_size": {"height": tile, "width": tile}}
    return {
        "qwen2_vl": ("Qwen2VLImageProcessorPil", {"min_pixels": least, "max_pixels": least + rng.randint(0, 30000),
                     "patch_size": rng.choice([7, 14, 16]), "merge_size": rng.choice([1, 2, 3])}),
        "llava": ("CLIPImageProcessorPil", {"size": {"shortest_edge": side}, "crop_size": {"height": rng.randint(1, 70),
                  "width": rng.randint(1, 70)}, "resample": rng.randint(0, 3)}),
        "llava_pad": ("LlavaImageProcessorPil", {"do_pad": True, "size": {"shortest_edge": side},
                      "crop_size": {"height": side, "width": side}, "resample": rng.randint(0, 3),
                      "image_mean": [rng.random() for _ in range(3)]}),
        "llava_next": ("LlavaNextImageProcessorPil", {**square, "image_grid_pinpoints": pinpoints, "resample": rng.randint(0, 3)}),
        "idefics3": ("Idefics3ImageProcessorPil", {"size": {"longest_edge": rng.randint(tile // 2, 8 * tile)},
                     "max_image_size": {"longest_edge": tile}, "resample": rng.randint(0, 3)}),
        "smolvlm_nosplit": ("SmolVLMImageProcessorPil", {"do_image_splitting": False,
                            "size": {"longest_edge": rng.randint(1, 200)}, "max_image_size": {"longest_edge": tile}}),
    }


def make_picture(width, height):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    r = np.hypot(x - 0.4 * width, y - 0.45 * height)
    levels = np.stack([127 + 120 * np.cos(r / 4), 127 + 100 * np.sin(r / 6 + 1), (30 + 2 * x + 5 * y) % 256], -1)
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8), "RGB")


def crc32(values):
    return f"{zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"


def run(cls, settings, image, **more):
    processor = getattr(transformers, cls)(**json.loads(json.dumps(settings)))
    if "Idefics3" in cls or "SmolVLM" in cls:
        more["return_row_col_info"] = True
    return processor(images=[image], return_tensors="np", **more)



def vectors(cls, settings, image):
    """What is written of one picture, and the samples; None where the reference refuses it."""
    try:
        output = run(cls, settings, image)
    except ValueError as error:
        print(f"{cls} {image.size}: {error}", file=sys.stderr)
        return None
    values = np.asarray(output["pixel_values"], dtype=np.float32)
    raw = np.asarray(run(cls, settings, image, do_rescale=False, do_normalize=False)["pixel_values"])
    stride = max(1, values.size // SAMPLES)
    result = {"shape": list(values.shape), "crc32": crc32(values), "crc32_u8": crc32(raw.astype(np.uint8))}
    for key in ("image_grid_thw", "image_sizes", "rows", "cols"):
        if key in output:
            result[key] = np.asarray(output[key]).tolist()
    result["stride"] = stride
    return result, values.reshape(-1)[::stride][:4096]


def write(folder, sizes, families):
    os.makedirs(folder)
    index = {"reference": f"transformers {transformers.__version__} PIL classes, Pillow {PIL.__version__}", "pictures": {}, "families": {}}
    samples, images = {}, {}
    for name, (width, height) in sizes.items():
        images[name] = make_picture(width, height)
        images[name].save(f"{folder}/{name}.png", optimize=True)
        index["pictures"][name] = {"file": f"{name}.png", "size": [width, height]}
    for family, (cls, settings) in families.items():
        results = {}
        for name, image in images.items():
            found = vectors(cls, settings, image)
            if found:
                results[name], samples[f"{family}/{name}"] = found
        index["families"][family] = {"cls": cls, "settings": settings, "results": results}
    save_file({k: np.ascontiguousarray(v) for k, v in sorted(samples.items())}, f"{folder}/samples.safetensors")
    with open(f"{folder}/preproc.json", "w", encoding="utf-8") as file:
        json.dump(index, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--random", nargs=2, type=int, metavar=("SEED", "N"))
    arguments = parser.parse_args()
    if not arguments.random:
        return write(arguments.out, SIZES, FAMILIES)
    seed, n = arguments.random
    rng = random.Random(seed)
    sizes = {f"p{i}": (int(2 ** rng.uniform(0, 8)), int(2 ** rng.uniform(0, 8))) for i in range(n)}
    families = {f"{name}_{k}": value for k in range(4) for name, value in random_families(rng).items()}
    return write(arguments.out, sizes, families)


if __name__ == "__main__":
    main()
