#!/usr/bin/env python3
"""Make a tiny Qwen2-VL, Qwen2.5-VL or Qwen3-VL with random weights, and what transformers computes.

  make_qwen2_vl_case.py OUT             write the case into the new folder OUT, whose name begins with
                                        that of a family: test/golden/qwen2_5_vl_tiny; with "video" in
                                        it, of videos: test/golden/qwen2_vl_video_tiny
  make_qwen2_vl_case.py --compare CASE  compute an existing case again and print the differences

As make_llava_case.py, whose pictures, text and rules it shares (see there for what it needs): the
tokenizer is trained here, template and weights are made here, so the case may be shipped.
"""
import json
import os
import sys

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from make_llava_case import (
    DISTINCT, MARGIN, STEPS, TEXT, Unclear, main, make_pictures, messages_of, picture, pictures_of, text, write_json,
)

PATCH, SQUARE = 8, 16

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# With VIDEO_TEMPLATE in its place, or nothing.
TEMPLATE = (
    "{%- set pictures = namespace(value=0) -%}"
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou look at pictures and answer.<|im_end|>\\n' -}}{%- endif -%}"
    "{{- '<|im_start|>' ~ message['role'] ~ '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' or 'image' in part -%}{%- set pictures.value = pictures.value + 1 -%}"
    "{%- if add_vision_id -%}{{- 'Picture ' ~ pictures.value ~ ': ' -}}{%- endif -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "@VIDEO@{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

VIDEO_TEMPLATE = "{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"


def template_of(with_video):
    return TEMPLATE.replace("@VIDEO@", VIDEO_TEMPLATE if with_video else "")


# The "é" of the second prompt is spelled in two characters: the tokenizer composes it.
PROMPTS = [
    ("one_image", [("user", [picture("images/rings.jpg"), text("What colours does the picture have, and how many rings?")])]),
    (
        "two_images",
        [("user", [text("Compare "), picture("images/waves.png"), text(" with "), picture("images/steps.png"),
                   text(": which one's brighter? 2016 nai\u0308ve cafe\u0301 你好 😀")])],
    ),
    (
        "text_only",
        [
            ("system", [text("Answer in a few words.")]),
            ("user", [text("Write a short   list:\n1. lamp\n2. table")]),
            ("assistant", [text("1. A lamp, 2. a table.")]),
            ("user", [text("And the third? It's sum += row[i] * 3 -- œuvre")]),
        ],
    ),
]


def video(n, fps=None):
    return {"type": "video", "video": [f"images/frame{i}.png" for i in range(n)]} | ({"fps": fps} if fps else {})


# An odd number of frames at no rate; then a picture, and frames so slow that in Qwen2.5-VL the second view is later than all
# the words behind it: the answer then goes on behind the latest position, not behind the last word's.
VIDEO_PROMPTS = [
    ("three_frames", [("user", [video(3), text("What moves, and where does it go?")])]),
    ("picture_and_frames", [("user", [text("First "), picture("images/steps.png"), text(", then "), video(4, 0.05),
                                      text(": which one moves? It's the second, and it goes from the left to the right.")])]),
]
VIDEO_SQUARES = 6
FRAME = (50, 37)  # 3 x 2 squares, once resized


def make_frames(folder):
    """A disk that moves over waves: four frames."""
    x, y = np.meshgrid(np.arange(FRAME[0]), np.arange(FRAME[1]))
    for i in range(4):
        disk = np.hypot(x - 9 - 9 * i, y - 12 - 3 * i) < 7
        waves = [128 + 90 * np.sin(x / (5 + c) + i) * np.cos(y / (7 - c)) for c in range(3)]
        pixels = [np.where(disk, (250, 60, 20)[c], wave) for c, wave in enumerate(waves)]
        Image.fromarray(np.rint(np.stack(pixels, -1)).astype(np.uint8), "RGB").save(f"{folder}/frame{i}.png", optimize=True)


# ---- the parts of the checkpoint ---------------------------------------------------------------


def make_tokenizer():
    """A byte-level BPE with the normaliser and the pattern of Qwen2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    trainer = trainers.BpeTrainer(vocab_size=256 + 140, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def token_ids(tokenizer):
    return {name: tokenizer.token_to_id(f"<|{name}|>") for name in ("endoftext", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")}


def text_settings(tokenizer, **more):
    ids = token_ids(tokenizer)
    return dict(
        vocab_size=(tokenizer.get_vocab_size() + 7) // 8 * 8,
        hidden_size=48,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=56,
        num_hidden_layers=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        bos_token_id=ids["endoftext"],
        eos_token_id=ids["im_end"],
    ) | more


class Qwen2:
    """What tells the families of the line apart."""

    model_type, title, classes, first_seed = "qwen2_vl", "Qwen2-VL", "Qwen2VL", 31100
    min_squares, max_squares = 4, 6
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    hidden = False  # outputs of blocks and layers of the first prompt
    rope = dict(rope_type="default", rope_theta=1e6, mrope_section=[1, 3, 2])
    vision = dict(depth=2, embed_dim=24, num_heads=2, mlp_ratio=3, hidden_size=48, patch_size=PATCH)

    def class_of(self, part):
        return getattr(transformers, self.classes + part)

    def config(self, tokenizer):
        ids = token_ids(tokenizer)
        return self.class_of("Config")(
            text_config=text_settings(tokenizer, rope_parameters=self.rope),
            vision_config=self.vision,
            image_token_id=ids["image_pad"],
            video_token_id=ids["video_pad"],
            vision_start_token_id=ids["vision_start"],
            vision_end_token_id=ids["vision_end"],
            tie_word_embeddings=True,
        )

    def hub_name(self, name):
        """The hub's spelling of a transformers 5 parameter name."""
        return name.replace("model.language_model.", "model.", 1).replace("model.visual.", "visual.", 1)

    def vision_settings(self, v):
        return {"depth": v.depth, "embed_dim": v.embed_dim, "hidden_size": v.hidden_size, "in_chans": 3,
                "mlp_ratio": v.mlp_ratio, "num_heads": v.num_heads, "patch_size": PATCH,
                "spatial_merge_size": 2, "spatial_patch_size": PATCH, "temporal_patch_size": 2}

    def settings(self, config):
        """As the hub's config.json: text keys on top, what is not said is a default (silu, quick_gelu)."""
        t, v = config.text_config, config.vision_config
        return {
            "architectures": [f"{self.classes}ForConditionalGeneration"],
            "bos_token_id": t.bos_token_id, "eos_token_id": t.eos_token_id,
            "vision_start_token_id": config.vision_start_token_id, "vision_end_token_id": config.vision_end_token_id,
            "image_token_id": config.image_token_id, "video_token_id": config.video_token_id,
            "hidden_size": t.hidden_size, "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings, "model_type": self.model_type,
            "num_attention_heads": t.num_attention_heads, "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads, "rms_norm_eps": t.rms_norm_eps, "rope_theta": 1000000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 3, 2]},
            "sliding_window": 512, "use_sliding_window": False, "tie_word_embeddings": True,
            "torch_dtype": "bfloat16", "vocab_size": t.vocab_size,
            "vision_config": self.vision_settings(v),
        }

    def bounds(self):
        return {"min_pixels": self.min_squares * SQUARE ** 2, "max_pixels": self.max_squares * SQUARE ** 2}


class Qwen25(Qwen2):
    """Windows of 2 x 2 squares; the first picture makes 3 x 5 of them, so that windows are ragged."""

    model_type, title, classes, first_seed = "qwen2_5_vl", "Qwen2.5-VL", "Qwen2_5_VL", 31400
    min_squares, max_squares, hidden = 4, 19, True
    vision = dict(depth=3, hidden_size=24, num_heads=2, intermediate_size=40, out_hidden_size=48, patch_size=PATCH,
                  window_size=2 * SQUARE, fullatt_block_indexes=[1], tokens_per_second=2)

    def vision_settings(self, v):
        return {"depth": v.depth, "hidden_size": v.hidden_size, "in_chans": 3, "intermediate_size": v.intermediate_size,
                "num_heads": v.num_heads, "out_hidden_size": v.out_hidden_size, "patch_size": PATCH,
                "spatial_merge_size": 2, "spatial_patch_size": PATCH, "temporal_patch_size": 2,
                "window_size": v.window_size, "fullatt_block_indexes": list(v.fullatt_block_indexes),
                "tokens_per_second": v.tokens_per_second}


class Qwen3(Qwen2):
    """A learned grid of 4 x 4 positions for pictures of 6 x 10 and fewer patches; as many rows of DeepStack as layers."""

    model_type, title, classes, first_seed = "qwen3_vl", "Qwen3-VL", "Qwen3VL", 31300
    min_squares, max_squares, hidden = 4, 19, True
    mean, std = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]
    rope = dict(rope_type="default", rope_theta=5e6, mrope_section=[4, 2, 2], mrope_interleaved=True)
    vision = dict(depth=3, hidden_size=24, num_heads=2, intermediate_size=40, out_hidden_size=48, patch_size=PATCH,
                  num_position_embeddings=16, deepstack_visual_indexes=[0, 1])

    def config(self, tokenizer):
        config = super().config(tokenizer)
        text = text_settings(tokenizer, rope_parameters=self.rope, head_dim=16)
        return self.class_of("Config")(**(config.to_dict() | {"text_config": text}))

    def hub_name(self, name):
        return name

    def settings(self, config):
        t, v = config.text_config, config.vision_config
        rope = {k: value for k, value in self.rope.items() if k != "rope_theta"}
        return {
            "architectures": [f"{self.classes}ForConditionalGeneration"],
            "image_token_id": config.image_token_id, "video_token_id": config.video_token_id,
            "vision_start_token_id": config.vision_start_token_id, "vision_end_token_id": config.vision_end_token_id,
            "model_type": self.model_type, "tie_word_embeddings": True,
            "text_config": {
                "attention_bias": False, "bos_token_id": t.bos_token_id, "dtype": "bfloat16", "eos_token_id": t.eos_token_id,
                "head_dim": t.head_dim, "hidden_size": t.hidden_size, "intermediate_size": t.intermediate_size,
                "max_position_embeddings": t.max_position_embeddings, "model_type": "qwen3_vl_text",
                "num_attention_heads": t.num_attention_heads, "num_hidden_layers": t.num_hidden_layers,
                "num_key_value_heads": t.num_key_value_heads, "rms_norm_eps": t.rms_norm_eps, "rope_scaling": rope,
                "rope_theta": 5000000, "tie_word_embeddings": True, "vocab_size": t.vocab_size,
            },
            "vision_config": {
                "deepstack_visual_indexes": list(v.deepstack_visual_indexes), "depth": v.depth, "hidden_size": v.hidden_size,
                "in_channels": 3, "intermediate_size": v.intermediate_size, "model_type": "qwen3_vl", "num_heads": v.num_heads,
                "num_position_embeddings": v.num_position_embeddings, "out_hidden_size": v.out_hidden_size,
                "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2,
            },
        }

    def bounds(self):
        return {"size": {"shortest_edge": self.min_squares * SQUARE ** 2, "longest_edge": self.max_squares * SQUARE ** 2}}


FAMILIES = {family.model_type: family for family in (Qwen2(), Qwen25(), Qwen3())}


def family_of(case):
    """Of a case that is there."""
    with open(f"{case}/model/config.json", encoding="utf-8") as file:
        return FAMILIES[json.load(file)["model_type"]]


def randomise(model, seed):
    """Every parameter, norms and biases too; rounded to bf16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "q_norm" in name or "k_norm" in name:  # heads of length 1 would attend to all alike
            value = 2 + 0.4 * noise
        elif "norm" in name or "ln_q" in name:
            value = 0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        elif "embed_tokens" in name:
            value = 0.7 * noise
        else:
            value = 1.6 * noise / parameter[0].numel() ** 0.5
        parameter.data.copy_(value.to(torch.bfloat16).float())
    model.tie_weights()


def write_weights(folder, model, family):
    save_file({family.hub_name(n): p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()},
              f"{folder}/model.safetensors", metadata={"format": "pt"})


def write_model(folder, model, config, tokenizer, family, with_video):
    os.makedirs(folder)
    write_weights(folder, model, family)
    t = config.text_config
    write_json(f"{folder}/config.json", family.settings(config))
    write_json(f"{folder}/generation_config.json", {
        "bos_token_id": t.bos_token_id, "eos_token_id": [t.eos_token_id, t.bos_token_id], "pad_token_id": t.bos_token_id})
    write_json(f"{folder}/preprocessor_config.json", {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": f"{family.classes}Processor",
    } | family.bounds() | {
        "patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2,
        "image_mean": family.mean, "image_std": family.std,
    })
    if with_video:
        write_json(f"{folder}/video_preprocessor_config.json", {
            "video_processor_type": "Qwen2VLVideoProcessor", "processor_class": f"{family.classes}Processor",
            "size": {"shortest_edge": 4 * SQUARE ** 2, "longest_edge": VIDEO_SQUARES * SQUARE ** 2},
            "patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2,
            "image_mean": family.mean, "image_std": family.std,
        })
    write_json(f"{folder}/chat_template.json", {"chat_template": template_of(with_video)})
    tokenizer.save(f"{folder}/tokenizer.json")
    added = {str(tokenizer.token_to_id(c)): {"content": c, "lstrip": False, "normalized": False, "rstrip": False,
                                             "single_word": False, "special": True} for c in SPECIAL}
    write_json(f"{folder}/tokenizer_config.json", {
        "add_prefix_space": False, "added_tokens_decoder": added, "bos_token": None, "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 512, "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    })


# ---- the reference run ---------------------------------------------------------------------------


def open_case(case):
    folder, family = f"{case}/model", family_of(case)
    kind = transformers.Qwen3VLVideoProcessor if family.model_type == "qwen3_vl" else transformers.Qwen2VLVideoProcessor
    of_videos = os.path.exists(f"{folder}/video_preprocessor_config.json")
    processor = family.class_of("Processor")(
        image_processor=Qwen2VLImageProcessorPil.from_pretrained(folder), tokenizer=AutoTokenizer.from_pretrained(folder),
        video_processor=kind.from_pretrained(folder) if of_videos else kind(), chat_template=template_of(of_videos))
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return processor, model.eval()


def rope_positions(model, inputs):
    """Positions [3, 1, prompt], and how far those of the answer lie from its places."""
    known = ("image_grid_thw", "video_grid_thw", "second_per_grid_ts", "mm_token_type_ids")
    return model.model.get_rope_index(inputs["input_ids"], **{name: inputs[name] for name in known if name in inputs})


def greedy(model, inputs):
    """STEPS tokens with a cache, the logits that chose them, and the same logits without a cache."""
    rows, ids, cache = [], [], None
    n = inputs["input_ids"].shape[1]
    delta = 0
    step = dict(inputs)
    for _ in range(STEPS):
        output = model(**step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        rows.append(output.logits[0, -1].float())
        best, second = rows[-1].topk(2).values.tolist()
        ids.append(int(rows[-1].argmax()))
        if best - second <= MARGIN or ids[-1] >= model.config.text_config.bos_token_id:
            raise Unclear
        if "image_grid_thw" in inputs or "video_grid_thw" in inputs:  # else the model still has that of the prompt before
            delta = int(model.model.rope_deltas)
        at = n + len(ids) - 1 + delta
        step = {"input_ids": torch.tensor([[ids[-1]]]), "position_ids": torch.full((3, 1, 1), at)}
    logits = torch.stack(rows)
    more = torch.tensor([ids[:-1]])
    whole = dict(inputs, input_ids=torch.cat([inputs["input_ids"], more], 1),
                 mm_token_type_ids=torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(more)], 1))
    whole.pop("attention_mask", None)
    if "image_grid_thw" in inputs or "video_grid_thw" in inputs:
        positions = rope_positions(model, inputs)[0]
        whole["position_ids"] = torch.cat([positions, torch.arange(n + delta, n + delta + STEPS - 1).expand(3, 1, -1)], 2)
    again = model(**whole, use_cache=False).logits[0, -STEPS:].float()
    assert float((again - logits).abs().max()) < 1e-3
    return ids, logits, float((again - logits).abs().max())


def prepare(messages, processor, case):
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [Image.open(f"{case}/{file}") for file in pictures_of(messages)]
    parts = [part for m in messages for part in m["content"] if part["type"] == "video"]
    videos = [[Image.open(f"{case}/{file}") for file in part["video"]] for part in parts]
    more = {}
    if videos:
        more = dict(videos=videos, video_metadata=[
            {"total_num_frames": len(part["video"]), "fps": part.get("fps"), "frames_indices": list(range(len(part["video"])))}
            for part in parts])
    inputs = dict(processor(text=rendered, images=images or None, return_tensors="pt", **more))
    inputs.setdefault("mm_token_type_ids", torch.zeros_like(inputs["input_ids"]))
    return rendered, images, inputs


def hook_hidden(model, tensors):
    """Keep what blocks of the tower and layers of the decoder put out; returns the hooks."""
    def keep(name):
        def hook(_, __, output):
            value = output[0] if isinstance(output, tuple) else output
            tensors[f"p0.hidden.{name}"] = value.detach().squeeze(0).float().clone()
        return hook

    hooks = []
    for name, module in model.named_modules():
        name = name.removeprefix("model.")
        if name.split(".")[-2:-1] in (["layers"], ["blocks"]):
            hooks.append(module.register_forward_hook(keep(name)))
    return hooks


def features_of(model, kind, inputs):
    """Rows of the pictures or the videos of a prompt, one tensor each; and those of DeepStack."""
    if kind == "image":
        features = model.model.get_image_features(pixel_values=inputs["pixel_values"], image_grid_thw=inputs["image_grid_thw"])
    else:
        features = model.model.get_video_features(
            pixel_values_videos=inputs["pixel_values_videos"], video_grid_thw=inputs["video_grid_thw"])
    return list(getattr(features, "pooler_output", features)), getattr(features, "deepstack_features", None) or []


def add_vision(k, entry, messages, inputs, model, tensors):
    """What the tower takes and makes, pictures and videos in the order of the prompt."""
    rows, pixels, grids = {}, {}, {}
    for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if f"{kind}_grid_thw" not in inputs:
            continue
        grids[kind] = inputs[f"{kind}_grid_thw"].tolist()
        rows[kind], deepstack = features_of(model, kind, inputs)
        pixels[kind] = list(inputs[name].split([t * h * w for t, h, w in grids[kind]]))
        for j, features in enumerate(deepstack):
            tensors[f"p{k}.deepstack.{j}"] = features.float()
        entry[f"{kind}_grid_thw"] = list(grids[kind])
    order = [part["type"] for m in messages for part in m["content"] if part["type"] in rows]
    tensors[f"p{k}.pixel_values"] = torch.cat([pixels[kind].pop(0) for kind in order]).float()
    tensors[f"p{k}.vision_out"] = torch.cat([rows[kind].pop(0) for kind in order]).float()
    entry["pixel_values_shape"] = list(tensors[f"p{k}.pixel_values"].shape)
    positions, delta = rope_positions(model, inputs)
    tensors[f"p{k}.position_ids"] = positions[:, 0].float()
    entry["rope_delta"] = int(delta)


def run_prompt(k, name, messages, model, processor, case, tensors):
    rendered, images, inputs = prepare(messages, processor, case)
    hooks = hook_hidden(model, tensors) if k == 0 and family_of(case).hidden else []
    prefill = model(**inputs, use_cache=False).logits[0, -1].float()
    for hook in hooks:
        hook.remove()
    ids, logits, uncached = greedy(model, inputs)
    entry = {
        "name": name,
        "messages": messages,
        "rendered": rendered,
        "add_special_tokens": True,
        "images": [{"file": f, "width": i.width, "height": i.height, "mode": i.mode}
                   for f, i in zip(pictures_of(messages), images)],
        "input_ids": inputs["input_ids"][0].tolist(),
    }
    if "image_grid_thw" in inputs or "video_grid_thw" in inputs:
        add_vision(k, entry, messages, inputs, model, tensors)
    tensors[f"p{k}.logits"] = logits
    top = logits.topk(2).values
    entry |= {
        "new_ids": ids,
        "text": processor.tokenizer.decode(ids),
        "text_skip_special": processor.tokenizer.decode(ids, skip_special_tokens=True),
        "min_gap": round(float((top[:, 0] - top[:, 1]).min()), 5),
        "max_abs_logit": round(float(logits.abs().max()), 3),
        "check_prefill_vs_generate": float((prefill - logits[0]).abs().max()),
        "check_no_cache_vs_cache": uncached,
    }
    return entry


def without_influence(model, processor, case):
    """Parameters that the logits of the first prompt do not depend on."""
    _, _, inputs = prepare(messages_of(PROMPTS[0][1]), processor, case)
    with torch.enable_grad():
        (model(**inputs, use_cache=False).logits ** 2).sum().backward()
    names = [family_of(case).hub_name(n) for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    model.zero_grad(set_to_none=True)
    return names


def influence_of_picture(model, processor, case):
    """How far the last logits of the first prompt move when its pixels are negated."""
    _, _, inputs = prepare(messages_of(PROMPTS[0][1]), processor, case)
    with torch.no_grad():
        before = model(**inputs).logits[0, -1]
        name = "pixel_values" if "pixel_values" in inputs else "pixel_values_videos"
        inputs[name] = -inputs[name]
        return float((model(**inputs).logits[0, -1] - before).abs().max())


def check_ids(entry, model_folder, image_token, video_token):
    """The tokenizers library alone gives the same ids, once pictures take their rows."""
    ids = Tokenizer.from_file(f"{model_folder}/tokenizer.json").encode(entry["rendered"]).ids
    rows = {token: [t * h * w // 4 for t, h, w in entry.get(f"{kind}_grid_thw", [])]
            for kind, token in (("image", image_token), ("video", video_token))}
    expanded = [i for id_ in ids for i in ([id_] * rows[id_].pop(0) if id_ in rows else [id_])]
    assert expanded == entry["input_ids"], (expanded, entry["input_ids"])


def reference(case, prompts):
    """golden.json's prompts and golden.safetensors' tensors for the checkpoint in case/model."""
    processor, model = open_case(case)
    tensors, entries = {}, []
    with torch.no_grad():
        for k, (name, messages) in enumerate(prompts):
            entries.append(run_prompt(k, name, messages, model, processor, case, tensors))
    return processor, model, entries, tensors


# ---- the commands ----------------------------------------------------------------------------------


def search_seed(model, case, config, tokenizer, prompts, family, with_video):
    """Write the model with the first seed whose greedy answers are clear-cut."""
    for seed in range(family.first_seed, family.first_seed + 4000):
        randomise(model, seed)
        if os.path.isdir(f"{case}/model"):
            write_weights(f"{case}/model", model, family)
        else:
            write_model(f"{case}/model", model, config, tokenizer, family, with_video)
        try:
            processor, loaded, entries, tensors = reference(case, prompts)
        except Unclear:
            continue
        if all(len(set(entry["new_ids"])) >= DISTINCT for entry in entries):
            return seed, processor, loaded, entries, tensors
    sys.exit("no seed gives clear-cut answers")


def make(case):
    name = os.path.basename(os.path.normpath(case))
    family = max((f for f in FAMILIES.values() if name.startswith(f.model_type)), key=lambda f: len(f.model_type))
    with_video = "video" in name
    os.makedirs(case)
    make_pictures(f"{case}/images")
    if with_video:
        make_frames(f"{case}/images")
    tokenizer = make_tokenizer()
    config = family.config(tokenizer)
    model = family.class_of("ForConditionalGeneration")._from_config(config, attn_implementation="eager")
    prompts = [(name, messages_of(prompt)) for name, prompt in (VIDEO_PROMPTS if with_video else PROMPTS)]
    seed, processor, loaded, entries, tensors = search_seed(model, case, config, tokenizer, prompts, family, with_video)
    for entry in entries:
        check_ids(entry, f"{case}/model", config.image_token_id, config.video_token_id)
    count = sum(p.numel() for p in loaded.parameters())
    save_file({n: t.contiguous() for n, t in sorted(tensors.items())}, f"{case}/golden.safetensors")
    write_json(f"{case}/golden.json", {
        "case": os.path.basename(os.path.normpath(case)),
        "model_type": family.model_type,
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, CPU float32, eager, "
                     f"PIL image processor (Pillow {PIL.__version__})",
        "tensors": "golden.safetensors",
        "steps": STEPS,
        "layout": "pK.logits[i] = logits that choose new_ids[i]; row 0 = last prompt position; vision_out = rows put at the "
                  "picture positions; position_ids [3, prompt]",
        "weights_seed": seed,
        "parameters": count,
        "stored_dtype": "bfloat16",
        "parameters_without_influence": without_influence(loaded, processor, case),
        "prompts": entries,
    })
    with open(f"{case}/README.txt", "w", encoding="utf-8") as file:
        file.write(
            f"A tiny {family.title} of {count:,} random parameters (seed {seed}), stored in bf16, and what transformers computes with it.\n"
            "Made by test/tools/make_qwen2_vl_case.py, tokenizer, template and pictures included; MIT licence as the repository.\n"
            f"Smallest lead of a greedy choice: {min(e['min_gap'] for e in entries):.3f}; "
            f"negated pixels move the last logits by {influence_of_picture(loaded, processor, case):.2f}.\n"
        )
    for folder, _, files in os.walk(case):
        for name in files:
            os.chmod(f"{folder}/{name}", 0o644)
    print(f"seed {seed}: " + "; ".join(f"{e['name']} {e['text']!r} gap {e['min_gap']}" for e in entries))


if __name__ == "__main__":
    main(__doc__, make, reference)
