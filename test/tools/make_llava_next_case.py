#!/usr/bin/env python3
"""Make test/golden/llava_next_tiny: a tiny LLaVA-NeXT with random weights, and what transformers computes.

  make_llava_next_case.py OUT             write the case into the new folder OUT
  make_llava_next_case.py --compare CASE  compute an existing case again and print the differences

As make_llava_case.py, whose tokenizer, template and rules it shares (see there for what it needs).
The pictures are cut into tiles in three ways: 2 x 2 with lines dropped, 2 x 2 with columns dropped,
and three beside each other. The text is a Mistral.
"""
import json
import os

import numpy as np
from PIL import Image
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

import make_llava_case as base
from make_llava_case import main, messages_of, picture, reference, search_seed, text, write_json

FIRST_SEED = 50100
SIDE, PATCH = 24, 6
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]

PROMPTS = [
    ("one_image", [("user", [picture("images/rings.jpg"), text("What colours does the picture have, and how many rings?")])]),
    (
        "two_images",
        [
            (
                "user",
                [
                    text("Compare "),
                    picture("images/ribbon.png"),
                    text(" with "),
                    picture("images/steps.png"),
                    text(": which one is brighter? 2016 naïve café 你好 😀"),
                ],
            )
        ],
    ),
    base.PROMPTS[2],
]


def make_config(tokenizer):
    size = tokenizer.get_vocab_size()
    return LlavaNextConfig(
        vision_config=dict(
            model_type="clip_vision_model",
            hidden_size=24,
            intermediate_size=52,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=SIDE,
            patch_size=PATCH,
            projection_dim=32,
            hidden_act="quick_gelu",
        ),
        text_config=dict(
            model_type="mistral",
            vocab_size=(size + 7) // 8 * 8,
            hidden_size=48,
            num_attention_heads=6,
            num_key_value_heads=2,
            intermediate_size=60,
            num_hidden_layers=2,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
            sliding_window=None,
            rope_parameters=dict(rope_type="default", rope_theta=1e6),
        ),
        image_token_index=tokenizer.token_to_id("<image>"),
        pad_token_id=tokenizer.token_to_id("<pad>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )


def change_json(path, changes):
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    write_json(path, content | changes(content))


def write_model(folder, model, config, tokenizer):
    """As LLaVA's, and what the hub's files of LLaVA-NeXT say beside."""
    base.write_model(folder, model, config, tokenizer)
    change_json(f"{folder}/config.json", lambda content: {
        "architectures": ["LlavaNextForConditionalGeneration"],
        "image_grid_pinpoints": PINPOINTS,
        "model_type": "llava_next",
        "text_config": content["text_config"] | {"rope_theta": 1000000.0, "sliding_window": None},
        "use_image_newline_parameter": True,
    })
    change_json(f"{folder}/preprocessor_config.json", lambda _: {
        "aspect_ratio_setting": "anyres",
        "do_pad": True,
        "image_grid_pinpoints": PINPOINTS,
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
    })
    for name in ("processor_config", "tokenizer_config"):
        change_json(f"{folder}/{name}.json", lambda content: {"processor_class": "LlavaNextProcessor"}
                    | ({"patch_size": PATCH} if "patch_size" in content else {}))


def make_pictures(folder):
    base.make_pictures(folder)
    os.remove(f"{folder}/waves.png")
    x, y = np.meshgrid(np.arange(131), np.arange(24))
    ribbon = np.stack([2 * x - 10, 128 + 100 * np.sin(x / 7 + y / 5), 10 * y], -1)
    Image.fromarray(np.clip(np.rint(ribbon), 0, 255).astype(np.uint8), "RGB").save(f"{folder}/ribbon.png", optimize=True)


def make(case):
    os.makedirs(case)
    make_pictures(f"{case}/images")
    tokenizer = base.make_tokenizer()
    config = make_config(tokenizer)
    model = LlavaNextForConditionalGeneration._from_config(config, attn_implementation="eager")
    prompts = [(name, messages_of(prompt)) for name, prompt in PROMPTS]
    found = search_seed(model, case, config, tokenizer, prompts, write=write_model, first=FIRST_SEED)
    seed, processor, loaded, entries, tensors = found
    base.finish(case, "llava_next", "LLaVA-NeXT", __file__, seed, processor, loaded, entries, tensors)


if __name__ == "__main__":
    main(__doc__, make, reference)
