#!/usr/bin/env python3
"""Write test/sized/SIZE.json: what a checkpoint of that size holds, from transformers' own classes.

  make_sized_tables.py OUT      (needs torch and transformers)

Each table has the configs as the hub spells them and the tensors by name and shape, from the class
built on the meta device, renamed to the names on disk; "parameters" is what the class counts.
make_sized_checkpoint.py makes checkpoints of the tables and needs neither library.
"""
import copy
import json
import os
import re
import sys

import torch
import transformers
from transformers import AutoConfig, AutoModelForImageTextToText, CLIPConfig, CLIPModel

CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
RESCALE = 0.00392156862745098

# ---- the Qwen line -----------------------------------------------------------------------------

QWEN_SPECIAL = {
    "<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<|vision_start|>": 151652,
    "<|vision_end|>": 151653, "<|vision_pad|>": 151654, "<|image_pad|>": 151655, "<|video_pad|>": 151656,
}
QWEN_TEMPLATE = (
    "{%- for m in messages -%}{{- '<|im_start|>' + m['role'] + '\\n' -}}"
    "{%- if m['content'] is string -%}{{- m['content'] -}}{%- else -%}{%- for c in m['content'] -%}"
    "{%- if c['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in c -%}{{- c['text'] -}}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
QWEN_GENERATION = {"bos_token_id": 151643, "eos_token_id": [151645, 151643], "pad_token_id": 151643}
QWEN_IDS = {
    "bos_token_id": 151643, "eos_token_id": 151645, "vision_start_token_id": 151652,
    "vision_end_token_id": 151653, "vision_token_id": 151654, "image_token_id": 151655, "video_token_id": 151656,
}
QWEN_TEXT = {
    "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "sliding_window": 32768, "use_sliding_window": False, "use_cache": True, "torch_dtype": "bfloat16",
}
QWEN_2B = dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
               num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True, max_window_layers=28)
QWEN_3B = dict(hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16,
               num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True, max_window_layers=70)
QWEN_7B = dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
               num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False, max_window_layers=28)


def qwen_preprocessor(processor, patch, **bounds):
    own = patch == 16
    return {
        "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.5] * 3 if own else CLIP_MEAN, "image_std": [0.5] * 3 if own else CLIP_STD,
        "image_processor_type": "Qwen2VLImageProcessorFast" if own else "Qwen2VLImageProcessor",
        "merge_size": 2, "patch_size": patch, "processor_class": processor, "resample": 3,
        "rescale_factor": RESCALE, "temporal_patch_size": 2, **bounds,
    }


def qwen_names(name):
    return re.sub(r"^model\.visual\.", "visual.", re.sub(r"^model\.language_model\.", "model.", name))


def qwen2(text, positions, bounds):
    vision = {
        "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3,
        "hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
        "temporal_patch_size": 2,
    }
    config = {"architectures": ["Qwen2VLForConditionalGeneration"], "model_type": "qwen2_vl", **QWEN_IDS,
              **QWEN_TEXT, **text, "max_position_embeddings": positions, "vision_config": vision}
    return qwen(config, qwen_names, qwen_preprocessor("Qwen2VLProcessor", 14, **bounds))


def qwen2_5(text):
    vision = {
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
        "in_chans": 3, "out_hidden_size": text["hidden_size"], "patch_size": 14, "spatial_merge_size": 2,
        "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2, "temporal_patch_size": 2,
    }
    config = {"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", **QWEN_IDS,
              **QWEN_TEXT, **text, "max_position_embeddings": 128000, "vision_config": vision}
    bounds = {"min_pixels": 3136, "max_pixels": 12845056}
    return qwen(config, qwen_names, qwen_preprocessor("Qwen2_5_VLProcessor", 14, **bounds))


def qwen3():
    text = {
        "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643, "dtype": "bfloat16",
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560,
        "initializer_range": 0.02, "intermediate_size": 9728, "max_position_embeddings": 262144,
        "model_type": "qwen3_vl_text", "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "rms_norm_eps": 1e-06,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
        "rope_theta": 5000000, "tie_word_embeddings": True, "use_cache": True, "vocab_size": 151936,
    }
    vision = {
        "deepstack_visual_indexes": [5, 11, 17], "depth": 24, "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024, "in_channels": 3, "initializer_range": 0.02, "intermediate_size": 4096,
        "model_type": "qwen3_vl", "num_heads": 16, "num_position_embeddings": 2304, "out_hidden_size": 2560,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }
    config = {"architectures": ["Qwen3VLForConditionalGeneration"], "image_token_id": 151655,
              "model_type": "qwen3_vl", "text_config": text, "tie_word_embeddings": True,
              "video_token_id": 151656, "vision_config": vision, "vision_end_token_id": 151653,
              "vision_start_token_id": 151652}
    bounds = {"size": {"shortest_edge": 65536, "longest_edge": 16777216}}
    return qwen(config, lambda name: name, qwen_preprocessor("Qwen3VLProcessor", 16, **bounds))


def qwen(config, rename, preprocessor):
    return {
        "config": config, "generation_config": QWEN_GENERATION, "preprocessor_config": preprocessor,
        "chat_template": QWEN_TEMPLATE, "special_tokens": QWEN_SPECIAL, "real_tokenizer": "qwen2_5",
        "dtype": "BF16", **count(config, rename),
    }


# ---- the LLaVA line ----------------------------------------------------------------------------

LLAMA_SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 32000, "<pad>": 32001}
LLAVA_TEMPLATE = (
    "{%- for m in messages -%}{{- m['role'] | upper + ': ' -}}"
    "{%- for c in m['content'] if c['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for c in m['content'] if c['type'] == 'text' -%}{{- c['text'] + ' ' -}}{%- endfor -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)
MISTRAL_TEMPLATE = (
    "{%- for m in messages -%}{{- '[INST] ' -}}"
    "{%- for c in m['content'] if c['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for c in m['content'] if c['type'] == 'text' -%}{{- c['text'] -}}{%- endfor -%}{{- ' [/INST]' -}}{%- endfor -%}"
)
CLIP_VISION = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
    "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
}
CLIP_PREPROCESSOR = {
    "crop_size": {"height": 336, "width": 336}, "do_center_crop": True, "do_convert_rgb": True,
    "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": CLIP_MEAN,
    "image_processor_type": "CLIPImageProcessor", "image_std": CLIP_STD, "resample": 3,
    "rescale_factor": RESCALE, "size": {"shortest_edge": 336},
}
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def llava_names(name):
    name = re.sub(r"^model\.language_model\.", "language_model.model.", name)
    name = re.sub(r"^lm_head\.", "language_model.lm_head.", name)
    name = re.sub(r"^model\.(multi_modal_projector\.|image_newline)", r"\1", name)
    return re.sub(r"^model\.vision_tower\.(vision_model\.)?", "vision_tower.vision_model.", name)


def llava(model_type, text, template, preprocessor, **more):
    config = {
        "architectures": ["LlavaForConditionalGeneration" if model_type == "llava" else "LlavaNextForConditionalGeneration"],
        "ignore_index": -100, "image_token_index": 32000, "model_type": model_type, "pad_token_id": 32001,
        "projector_hidden_act": "gelu", "text_config": text, "tie_word_embeddings": False,
        "torch_dtype": "float16", "vision_config": CLIP_VISION, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default", **more,
    }
    return {
        "config": config, "generation_config": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 32001},
        "preprocessor_config": preprocessor,
        "processor_config": {"num_additional_image_tokens": 1, "patch_size": 14,
                             "vision_feature_select_strategy": "default"},
        "chat_template": template, "special_tokens": LLAMA_SPECIAL, "dtype": "F16", **count(config, llava_names),
    }


def llava_1_5():
    text = {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05,
            "torch_dtype": "float16", "vocab_size": 32064}
    return llava("llava", text, LLAVA_TEMPLATE, {**CLIP_PREPROCESSOR, "processor_class": "LlavaProcessor"})


def llava_1_6():
    text = {
        "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mistral",
        "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "sliding_window": None,
        "torch_dtype": "float16", "vocab_size": 32064,
    }
    preprocessor = {**CLIP_PREPROCESSOR, "aspect_ratio_setting": "anyres", "do_pad": True,
                    "image_grid_pinpoints": PINPOINTS, "image_processor_type": "LlavaNextImageProcessor",
                    "processor_class": "LlavaNextProcessor"}
    return llava("llava_next", text, MISTRAL_TEMPLATE, preprocessor, image_grid_pinpoints=PINPOINTS,
                 use_image_newline_parameter=True, vocab_size=32064)


def llava_original():
    """The same weights under the names of their authors, the rows that only padding needs left out,
    and the tower in a folder of its own, as its authors made it."""
    table = llava_1_5()
    renamed = [("language_model.", ""), ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
               ("multi_modal_projector.linear_2.", "model.mm_projector.2.")]
    tensors = []
    for name, shape in expand(table["tensors"]):
        for old, new in renamed:
            if name.startswith(old):
                tensors.append((new + name[len(old):], [32000 if n == 32064 else n for n in shape]))
    tensors += [(f"model.layers.{i}.self_attn.rotary_emb.inv_freq", [64], "F32") for i in range(32)]
    clip = {
        "architectures": ["CLIPModel"], "initializer_factor": 1.0, "logit_scale_init_value": 2.6592,
        "model_type": "clip", "projection_dim": 768, "vision_config": CLIP_VISION,
        "text_config": {"hidden_size": 768, "intermediate_size": 3072, "model_type": "clip_text_model",
                        "num_attention_heads": 12, "num_hidden_layers": 12, "projection_dim": 768},
    }
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(**{k: v for k, v in clip.items() if k != "architectures"}))
    tower = [(name, list(p.shape)) for name, p in model.named_parameters()]
    tower += [("text_model.embeddings.position_ids", [1, 77], "I64"),
              ("vision_model.embeddings.position_ids", [1, 577], "I64")]
    config = {
        "architectures": ["LlavaLlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
        "freeze_mm_mlp_adapter": False, "hidden_act": "silu", "hidden_size": 4096, "image_aspect_ratio": "pad",
        "initializer_range": 0.02, "intermediate_size": 11008, "max_length": 4096,
        "max_position_embeddings": 4096, "mm_hidden_size": 1024, "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None, "mm_use_im_patch_token": False, "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
        "mm_vision_tower": "openai/clip-vit-large-patch14-336", "model_type": "llava",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "pad_token_id": 0,
        "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": None, "tie_word_embeddings": False,
        "torch_dtype": "float16", "transformers_version": "4.31.0", "use_cache": True, "use_mm_proj": True,
        "vocab_size": 32000,
    }
    return {
        "config": config, "generation_config": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
        "chat_template": LLAVA_TEMPLATE, "real_tokenizer": "llama2",
        "special_tokens": {"<unk>": 0, "<s>": 1, "</s>": 2}, "dtype": "F16", "container": "zip",
        "parameters": table["parameters"] - 2 * 64 * 4096, "tensors": fold(tensors),
        "beside": {"clip-vit-large-patch14-336": {
            "config": clip, "preprocessor_config": CLIP_PREPROCESSOR, "dtype": "F32", "container": "zip",
            "tensors": fold(tower)}},
    }


# ---- SmolVLM and Idefics3 ----------------------------------------------------------------------

SMOL_TEMPLATE = (
    "{{- '<|im_start|>' -}}{%- for m in messages -%}{{- m['role'] | capitalize -}}"
    "{%- if m['content'][0]['type'] == 'image' -%}{{- ':' -}}{%- else -%}{{- ': ' -}}{%- endif -%}"
    "{%- for c in m['content'] -%}{%- if c['type'] == 'text' -%}{{- c['text'] -}}"
    "{%- elif c['type'] == 'image' -%}{{- '<image>' -}}{%- endif -%}{%- endfor -%}"
    "{{- '<end_of_utterance>\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
SMOL_SPECIAL = {
    "<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<global-img>": 49152,
    **{f"<row_{r}_col_{c}>": 49153 + 6 * (r - 1) + c - 1 for r in range(1, 7) for c in range(1, 7)},
    "<fake_token_around_image>": 49189, "<image>": 49190, "<end_of_utterance>": 49279,
}
IDEFICS_SPECIAL = {
    "<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|finetune_right_pad_id|>": 128002,
    "<fake_token_around_image>": 128256, "<image>": 128257, "<end_of_utterance>": 128258,
}


def idefics(kind, text, vision, scale, ids, special):
    name = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}[kind]
    side = vision["image_size"]
    rows = (side // vision["patch_size"] // scale) ** 2
    config = {
        "architectures": [f"{name}ForConditionalGeneration"], "image_seq_len": rows, "image_token_id": ids["image"],
        "model_type": kind, "pad_token_id": ids["pad"], "scale_factor": scale, "text_config": text,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True,
        "vision_config": {"max_image_size": {"longest_edge": side}, "model_type": f"{kind}_vision", **vision},
        "vocab_size": text["vocab_size"],
    }
    return {
        "config": config,
        "generation_config": {"bos_token_id": ids["bos"], "eos_token_id": [ids["end"]], "pad_token_id": ids["pad"]},
        "preprocessor_config": {
            "do_convert_rgb": True, "do_image_splitting": True, "do_normalize": True, "do_pad": True,
            "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
            "image_processor_type": f"{name}ImageProcessor", "image_std": [0.5] * 3,
            "max_image_size": {"longest_edge": side}, "processor_class": f"{name}Processor", "resample": 1,
            "rescale_factor": RESCALE, "size": {"longest_edge": 4 * side},
        },
        "processor_config": {"image_seq_len": rows, "processor_class": f"{name}Processor"},
        "chat_template": SMOL_TEMPLATE.replace("<|im_start|>", next(k for k, v in special.items() if v == ids["bos"])),
        "special_tokens": special, "dtype": "BF16", **count(config, lambda n: n),
    }


def smolvlm(kind, hidden, inner, layers, heads, kv_heads):
    text = {
        "architectures": ["VLlama3ForCausalLM"], "bos_token_id": 1, "eos_token_id": 49279, "head_dim": 64,
        "hidden_size": hidden, "intermediate_size": inner, "is_llama_config": True,
        "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": heads,
        "num_hidden_layers": layers, "num_key_value_heads": kv_heads, "pad_token_id": 2,
        "qk_layer_norms": False, "rms_norm_eps": 1e-05, "rope_interleaved": False, "rope_theta": 100000,
        "torch_dtype": "bfloat16", "use_resampler": False, "tie_word_embeddings": False, "vocab_size": 49280,
    }
    vision = {
        "hidden_size": 768, "image_size": 512, "intermediate_size": 3072, "num_attention_heads": 12,
        "num_hidden_layers": 12, "patch_size": 16, "size": {"longest_edge": 2048},
        "tie_word_embeddings": False, "use_base_siglip": True,
    }
    ids = {"bos": 1, "pad": 2, "end": 49279, "image": 49190}
    return idefics(kind, text, vision, 4, ids, SMOL_SPECIAL)


def idefics3_8b():
    text = {
        "bos_token_id": 128000, "eos_token_id": 128001, "hidden_size": 4096, "intermediate_size": 14336,
        "max_position_embeddings": 10240, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "pad_token_id": 128002, "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0, "torch_dtype": "bfloat16", "tie_word_embeddings": False, "vocab_size": 128259,
    }
    vision = {
        "hidden_size": 1152, "image_size": 364, "intermediate_size": 4304, "num_attention_heads": 16,
        "num_hidden_layers": 27, "patch_size": 14, "tie_word_embeddings": False,
    }
    ids = {"bos": 128000, "pad": 128002, "end": 128258, "image": 128257}
    return idefics("idefics3", text, vision, 2, ids, IDEFICS_SPECIAL)


# ---- tensors -----------------------------------------------------------------------------------


def count(config, rename):
    """The parameters of the class, and its tensors as the disk has them (a tied head is not there)."""
    own = {k: v for k, v in copy.deepcopy(config).items() if k not in ("architectures", "torch_dtype", "dtype")}
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(**own))
    if config.get("tie_word_embeddings") or config.get("text_config", {}).get("tie_word_embeddings"):
        model.tie_weights()
    tensors = [(rename(name), list(p.shape)) for name, p in model.named_parameters()]
    return {"parameters": sum(p.numel() for p in model.parameters()), "tensors": fold(tensors)}


LAYER = re.compile(r"^(.*?(?:layers|blocks|deepstack_merger_list)\.)(\d+)\.(.*)$")


def fold(tensors):
    """Rows [name, shape(, type)], and {"repeat", "prefix", "tensors"} for layers that are alike."""
    rows, groups = [], {}
    for name, *rest in tensors:
        match = LAYER.match(name)
        if not match:
            rows.append([name, *rest])
            continue
        prefix, layer, inner = match[1] + "{}.", int(match[2]), [match[3], *rest]
        if prefix not in groups:
            groups[prefix] = {"prefix": prefix, "layers": {}}
            rows.append(groups[prefix])
        groups[prefix]["layers"].setdefault(layer, []).append(inner)
    for group in groups.values():
        layers = group.pop("layers")
        assert sorted(layers) == list(range(len(layers))) and all(layers[i] == layers[0] for i in layers), group
        group.update(repeat=len(layers), tensors=layers[0])
    return rows


def expand(rows):
    for row in rows:
        if isinstance(row, list):
            yield tuple(row)
        else:
            for i in range(row["repeat"]):
                for name, *rest in row["tensors"]:
                    yield (row["prefix"].format(i) + name, *rest)


BASE_BOUNDS = {"min_pixels": 3136, "max_pixels": 12845056}
SIZES = {
    "qwen2-vl-2b": lambda: qwen2(QWEN_2B, 32768, BASE_BOUNDS),
    "qwen2-vl-7b": lambda: qwen2(QWEN_7B, 32768, BASE_BOUNDS),
    "qwen2.5-vl-3b": lambda: qwen2_5(QWEN_3B),
    "qwen2.5-vl-7b": lambda: qwen2_5(QWEN_7B),
    "qwen3-vl-4b": qwen3,
    "llava-1.5-7b": llava_1_5,
    "llava-1.5-7b-original": llava_original,
    "llava-1.6-mistral-7b": llava_1_6,
    "smolvlm-256m": lambda: smolvlm("idefics3", 576, 1536, 30, 9, 3),
    "smolvlm-500m": lambda: smolvlm("idefics3", 960, 2560, 32, 15, 5),
    "smolvlm2-500m": lambda: smolvlm("smolvlm", 960, 2560, 32, 15, 5),
    "idefics3-8b": idefics3_8b,
}


def write(path, table):
    """One line a tensor: short, and a change shows in a diff."""
    text = json.dumps(table, indent=1)
    text = re.sub(r"\[\s+(\"[^\"]*\"|-?[\d.]+)(,\s+[^\[\]{}]*?)?\s+\]",
                  lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text)
    text = re.sub(r"\[\s+(\"[^\"]*\"),\s+(\[[^\[\]]*\])(,\s+\"\w+\")?\s+\]",
                  lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text)
    assert json.loads(text) == table
    with open(path, "w") as file:
        file.write(text + "\n")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    os.makedirs(sys.argv[1], exist_ok=True)
    for size, make in SIZES.items():
        table = {"size": size, "made_with": f"transformers {transformers.__version__}", **make()}
        write(os.path.join(sys.argv[1], size + ".json"), table)
        print(f"{size:24} {table['parameters']:>14,}")


if __name__ == "__main__":
    main()
