"""Write a trained model as a folder with the hub's file names and layout of Qwen2-VL."""

import json
import os
import shutil

import torch
from safetensors.torch import save_file

from model import hub_weights
from pack import MAX_PIXELS, MIN_PIXELS
from tokenizers import Tokenizer

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.json")


def configuration(shape, token):
    """config.json; `token` gives a token's id."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "vision_token_id": token("<|vision_pad|>"),
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.mlp,
        "max_position_embeddings": 2048,
        "max_window_layers": shape.layers,
        "model_type": "qwen2_vl",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": shape.rope_theta,
        "rope_scaling": {"type": "mrope", "mrope_section": list(shape.sections)},
        "sliding_window": 2048,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.41.2",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "depth": shape.vision_layers,
            "embed_dim": shape.vision_width,
            "hidden_size": shape.hidden,
            "in_channels": 3,
            "in_chans": 3,
            "mlp_ratio": shape.vision_mlp,
            "model_type": "qwen2_vl",
            "num_heads": shape.vision_heads,
            "patch_size": shape.patch,
            "spatial_merge_size": shape.merge,
            "spatial_patch_size": shape.patch,
            "temporal_patch_size": 2,
        },
        "vocab_size": shape.vocab,
    }


def preprocessing(shape):
    """preprocessor_config.json."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "Qwen2VLImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "max_pixels": MAX_PIXELS,
        "merge_size": shape.merge,
        "min_pixels": MIN_PIXELS,
        "patch_size": shape.patch,
        "processor_class": "Qwen2VLProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "temporal_patch_size": 2,
    }


def generation(token):
    """generation_config.json: greedy."""
    return {"bos_token_id": token("<|endoftext|>"), "do_sample": False,
            "eos_token_id": [token("<|im_end|>"), token("<|endoftext|>")],
            "max_new_tokens": 64, "pad_token_id": token("<|endoftext|>")}


def write(folder, model, tokenizer_folder):
    """The whole folder; weights in bf16."""
    os.makedirs(folder, exist_ok=True)
    for name in TOKENIZER_FILES:
        if os.path.abspath(folder) != os.path.abspath(tokenizer_folder):
            shutil.copyfile(os.path.join(tokenizer_folder, name), os.path.join(folder, name))
    token = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")).token_to_id
    files = {"config.json": configuration(model.shape, token),
             "preprocessor_config.json": preprocessing(model.shape),
             "generation_config.json": generation(token)}
    for name, content in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")
    weights = {name: weight.detach().cpu().to(torch.bfloat16)
               for name, weight in hub_weights(model).items()}
    save_file(weights, os.path.join(folder, "model.safetensors"), {"format": "pt"})
