#!/usr/bin/env python3
"""Make test/golden/llava_tiny: a tiny LLaVA with random weights, and what transformers computes.

  make_llava_case.py OUT             write the case into the new folder OUT
  make_llava_case.py --compare CASE  compute an existing case again and print the differences

Everything in the case is made here: the tokenizer is trained on the text below, the chat template,
the pictures and the weights come from formulas and seeds. So the case may be shipped.

Needs, from PyPI: torch transformers==5.17.0 tokenizers safetensors pillow numpy, e.g.
  python3 -m venv venv && venv/bin/pip install torch torchvision transformers==5.17.0 pillow
(torch brings CUDA packages along; only the CPU is used). About a minute.

The case has the form of the reference data: model/ (a checkpoint folder with hub names), images/,
golden.json and golden.safetensors. Weights are stored in bf16 and were rounded before anything was
computed, in float32 with eager attention and the Pillow image processor. Every greedy choice leads
by more than MARGIN and is an ordinary token, and answers do not repeat themselves: seeds are tried
until that holds for all prompts.
"""
import argparse

import json
import os
import sys

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaConfig
from transformers import LlavaForConditionalGeneration

STEPS, MARGIN, DISTINCT = 16, 0.05, 13
FIRST_SEED = 20240

# Written for this purpose: plain sentences with the letters, digits and signs of the prompts.
TEXT = """\
A picture is a grid of small squares, and every square has a colour. A camera counts the light that
falls on it, a program writes the numbers down, and later another program reads them again.
What do you see in the picture? I see a red boat on a blue lake, two trees, and a white house.
How many windows does the house have? It has four windows and one door, and the door is open.
Which of the two pictures is brighter, the first or the second? The second picture is brighter.
The model looks at the picture in patches. Each patch becomes a row of numbers, and the rows stand
between the words of the question. Then the words that follow are found, one after the other.
Describe the colours from the left to the right: green, yellow, orange, red, violet, blue, black.
Write a short list of three things. 1. A lamp 2. A table 3. A chair. Thank you, that is enough!
It's the user's turn; the assistant doesn't know what they'll ask. "Why?" (nobody can say) ...
In 1987 there were 12 boats, in 2003 there were 45, and by 2016 only 6 of them were left: 12 + 45 = 57.
USER: Is there a dog in the picture? ASSISTANT: No, there is a cat, and the cat sleeps on the chair.
USER: What is the time? ASSISTANT: The clock on the wall shows ten minutes past seven.
for (i = 0; i < n; i++) sum += row[i] * weight[i]; return sum / n; /* a mean */
Der Fluß fließt schnell, où est le café, ¿qué hora es? Wörter wie naïve, œuvre und señor sind selten.
"""

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] != 'system' -%}{{- message['role'] | upper + ': ' -}}{%- endif -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>\\n' -}}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] + ' ' -}}{%- endfor -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}"
)


def text(words):
    return {"type": "text", "text": words}


def picture(file):
    return {"type": "image", "image": file}


PROMPTS = [
    ("one_image", [("user", [picture("images/rings.jpg"), text("What colours does the picture have, and how many rings?")])]),
    (
        "two_images",
        [
            (
                "user",
                [
                    text("Compare "),
                    picture("images/waves.png"),
                    text(" with "),
                    picture("images/steps.png"),
                    text(": which one is brighter? 2016 naïve café 你好 😀"),
                ],
            )
        ],
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


# ---- the parts of the checkpoint ---------------------------------------------------------------


def make_tokenizer():
    """A BPE over "▁" words with byte fallback, as SentencePiece models become in tokenizer.json."""
    special = ["<unk>", "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 256 + 190,
        special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    # The bytes are ordinary tokens of the vocabulary; only the first three are special.
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    content["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<image>", "<pad>"])
    return tokenizer


def make_config(tokenizer):
    size = tokenizer.get_vocab_size()
    return LlavaConfig(
        vision_config=dict(
            model_type="clip_vision_model",
            hidden_size=48,
            intermediate_size=100,
            num_hidden_layers=3,
            num_attention_heads=3,
            image_size=42,
            patch_size=14,
            projection_dim=32,
            hidden_act="quick_gelu",
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=(size + 7) // 8 * 8,
            hidden_size=96,
            num_attention_heads=6,
            num_key_value_heads=2,
            intermediate_size=112,
            num_hidden_layers=3,
            max_position_embeddings=512,
            rms_norm_eps=1e-5,
        ),
        image_token_index=tokenizer.token_to_id("<image>"),
        pad_token_id=tokenizer.token_to_id("<pad>"),
        image_seq_length=9,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
    )


def randomise(model, seed):
    """Every parameter, norms and biases too; rounded to bf16."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name or "layrnorm" in name:
            value = 0.1 * noise if name.endswith("bias") else 1 + 0.2 * noise
        elif name.endswith("bias"):
            value = 0.1 * noise
        elif "embed" in name:
            value = 1.0 * noise
        else:
            fan_in = parameter[0].numel()
            value = noise * (8.0 if name == "lm_head.weight" else 1.6) / fan_in**0.5
        parameter.data.copy_(value.to(torch.bfloat16).float())


def hub_name(name):
    """The hub's spelling of a transformers 5 parameter name."""
    name = name.removeprefix("model.")
    if name.startswith("language_model."):
        return name.replace("language_model.", "language_model.model.", 1)
    if name.startswith("vision_tower.") and ".vision_model." not in name:
        return name.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return "language_model." + name if name.startswith("lm_head.") else name


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=1)
        file.write("\n")


def write_model(folder, model, config, tokenizer):
    os.makedirs(folder)
    tensors = {hub_name(n): p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()}
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    text_config = {k: getattr(config.text_config, k) for k in (
        "model_type", "vocab_size", "hidden_size", "num_attention_heads", "num_key_value_heads",
        "intermediate_size", "num_hidden_layers", "max_position_embeddings", "rms_norm_eps")}
    vision = {k: getattr(config.vision_config, k) for k in (
        "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "image_size", "patch_size", "projection_dim")}
    # As the hub's files: what is not said is a default (theta 10000, silu, quick_gelu, eps 1e-5).
    write_json(f"{folder}/config.json", {
        "architectures": ["LlavaForConditionalGeneration"],
        "ignore_index": -100,
        "image_token_index": config.image_token_index,
        "model_type": "llava",
        "pad_token_id": config.pad_token_id,
        "projector_hidden_act": "gelu",
        "text_config": text_config | {"torch_dtype": "bfloat16"},
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vision_config": vision,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    })
    write_json(f"{folder}/generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": config.pad_token_id})
    size = config.vision_config.image_size
    write_json(f"{folder}/preprocessor_config.json", {
        "crop_size": {"height": size, "width": size},
        "do_center_crop": True, "do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "LlavaProcessor",
        "resample": 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": size},
    })
    write_json(f"{folder}/processor_config.json", {
        "image_token": "<image>", "num_additional_image_tokens": 1, "patch_size": 14,
        "processor_class": "LlavaProcessor", "vision_feature_select_strategy": "default",
    })
    write_json(f"{folder}/chat_template.json", {"chat_template": CHAT_TEMPLATE})
    tokenizer.save(f"{folder}/tokenizer.json")
    special = {str(i): {"content": c, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
               for i, c in ((tokenizer.token_to_id(c), c) for c in ("<unk>", "<s>", "</s>", "<image>", "<pad>"))}
    write_json(f"{folder}/tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": special,
        "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>",
        "extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>",
        "legacy": False, "model_max_length": 512, "pad_token": "<pad>", "padding_side": "left",
        "processor_class": "LlavaProcessor", "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>",
    })


def make_pictures(folder):
    """Three pictures by formula: a wide colour JPEG, an RGBA PNG and a tall grey PNG."""
    os.makedirs(folder)

    def grid(width, height):
        return np.meshgrid(np.arange(width), np.arange(height))

    def levels(*channels):
        return np.clip(np.rint(np.stack(channels, -1)), 0, 255).astype(np.uint8)

    x, y = grid(97, 70)
    r = np.hypot(x - 40, y - 33)
    rings = levels(127 + 120 * np.cos(r / 4), 127 + 100 * np.sin(r / 6 + 1), 30 + 2 * x)
    Image.fromarray(rings, "RGB").save(f"{folder}/rings.jpg", quality=90)
    x, y = grid(53, 40)
    waves = levels(128 + 90 * np.sin(x / 5), 128 + 90 * np.sin(y / 4 + x / 9), 255 - 3 * y, 255 - 4 * x)
    Image.fromarray(waves, "RGBA").save(f"{folder}/waves.png", optimize=True)
    x, y = grid(31, 47)
    Image.fromarray(levels(40 * (x // 8) + 2 * y)[..., 0], "L").save(f"{folder}/steps.png", optimize=True)


# ---- the reference run ---------------------------------------------------------------------------


def messages_of(prompt):
    return [{"role": role, "content": parts} for role, parts in prompt]


def pictures_of(messages):
    return [part["image"] for m in messages for part in m["content"] if part["type"] == "image"]


def hook_hidden(model, tensors):
    """Keep what the modules of the layout put out; returns the hooks."""
    def keep(name):
        def hook(_, __, output):
            value = output[0] if isinstance(output, tuple) else output
            tensors[f"p0.hidden.{name}"] = value.detach().squeeze(0).float().clone()
        return hook

    wanted = ("multi_modal_projector", "vision_tower.pre_layrnorm", "language_model.norm")
    hooks = []
    for name, module in model.named_modules():
        name = name.removeprefix("model.")
        block = name.split(".")[-2:-1] == ["layers"] and name.split(".")[-1].isdigit()
        if name in wanted or block:
            hooks.append(module.register_forward_hook(keep(name)))

    def embeds(_, __, kwargs):
        tensors["p0.hidden.inputs_embeds"] = kwargs["inputs_embeds"].detach()[0].float().clone()
    hooks.append(model.model.language_model.register_forward_pre_hook(embeds, with_kwargs=True))
    return hooks


class Unclear(Exception):
    """A greedy choice that another implementation may make otherwise, or of a special token."""


def greedy(model, inputs):
    """STEPS tokens with a cache, the logits that chose them, and the same logits without a cache."""
    rows, ids, cache = [], [], None
    step = dict(inputs)
    for _ in range(STEPS):
        output = model(**step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        rows.append(output.logits[0, -1].float())
        best, second = rows[-1].topk(2).values.tolist()
        ids.append(int(rows[-1].argmax()))
        if best - second <= MARGIN or not 3 <= ids[-1] < model.config.image_token_id:
            raise Unclear
        step = {"input_ids": torch.tensor([[ids[-1]]])}
    logits = torch.stack(rows)
    whole = dict(inputs, input_ids=torch.cat([inputs["input_ids"], torch.tensor([ids[:-1]])], 1))
    whole.pop("attention_mask", None)
    again = model(**whole, use_cache=False).logits[0, -STEPS:].float()
    return ids, logits, float((again - logits).abs().max())


def run_prompt(k, name, messages, model, processor, case, tensors):
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [Image.open(f"{case}/{file}") for file in pictures_of(messages)]
    inputs = dict(processor(text=rendered, images=images or None, return_tensors="pt"))
    tensors_of_prompt = {}
    hooks = hook_hidden(model, tensors_of_prompt) if k == 0 else []
    prefill = model(**inputs, use_cache=False).logits[0, -1].float()
    for hook in hooks:
        hook.remove()
    tensors.update(tensors_of_prompt)
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
    if images:
        pixels = inputs["pixel_values"]
        # Tiles that only fill up a batch are all zeros; those of LLaVA-NeXT are kept without them.
        kept = pixels[pixels.flatten(2).any(-1)] if pixels.dim() == 5 else pixels
        tensors[f"p{k}.pixel_values"] = kept.float()
        entry["pixel_values_shape"] = list(pixels.shape)
        sizes = {key: inputs[key] for key in ("image_sizes",) if key in inputs}  # LLaVA-NeXT's
        features = model.model.get_image_features(pixel_values=pixels, **sizes)
        features = getattr(features, "pooler_output", features)
        tensors[f"p{k}.vision_out"] = torch.cat(list(features)).reshape(-1, features[0].shape[-1]).float()
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
    messages = messages_of(PROMPTS[0][1])
    images = [Image.open(f"{case}/{file}") for file in pictures_of(messages)]
    inputs = processor(text=processor.apply_chat_template(messages, add_generation_prompt=True), images=images, return_tensors="pt")
    with torch.enable_grad():
        (model(**inputs, use_cache=False).logits ** 2).sum().backward()
    names = [hub_name(n) for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    model.zero_grad(set_to_none=True)
    return names


def influence_of_picture(model, processor, case):
    """How far the last logits of the first prompt move when its pixels are negated."""
    messages = messages_of(PROMPTS[0][1])
    images = [Image.open(f"{case}/{file}") for file in pictures_of(messages)]
    inputs = processor(text=processor.apply_chat_template(messages, add_generation_prompt=True), images=images, return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits[0, -1]
        inputs["pixel_values"] = -inputs["pixel_values"]
        return float((model(**inputs).logits[0, -1] - before).abs().max())


def open_case(case):
    processor = AutoProcessor.from_pretrained(f"{case}/model", backend="pil")
    model = AutoModelForImageTextToText.from_pretrained(f"{case}/model", dtype=torch.float32, attn_implementation="eager")
    return processor, model.eval()


def check_ids(entry, model_folder, image_token, rows):
    """The tokenizers library alone gives the same ids, once pictures take their rows."""
    ids = Tokenizer.from_file(f"{model_folder}/tokenizer.json").encode(entry["rendered"]).ids
    expanded = [i for id_ in ids for i in ([id_] * rows if id_ == image_token else [id_])]
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


def search_seed(model, case, config, tokenizer, prompts, write=write_model, first=FIRST_SEED):
    """Write the model with the first seed whose greedy answers are clear-cut."""
    for seed in range(first, first + 4000):
        randomise(model, seed)
        if os.path.isdir(f"{case}/model"):
            save_file({hub_name(n): p.detach().to(torch.bfloat16).contiguous() for n, p in model.named_parameters()},
                      f"{case}/model/model.safetensors", metadata={"format": "pt"})
        else:
            write(f"{case}/model", model, config, tokenizer)
        try:
            processor, loaded, entries, tensors = reference(case, prompts)
        except Unclear:
            continue
        if all(len(set(entry["new_ids"])) >= DISTINCT for entry in entries):
            return seed, processor, loaded, entries, tensors
    sys.exit("no seed gives clear-cut answers")


def make(case):
    os.makedirs(case)
    make_pictures(f"{case}/images")
    tokenizer = make_tokenizer()
    config = make_config(tokenizer)
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    prompts = [(name, messages_of(prompt)) for name, prompt in PROMPTS]
    seed, processor, loaded, entries, tensors = search_seed(model, case, config, tokenizer, prompts)
    for entry in entries:
        check_ids(entry, f"{case}/model", config.image_token_index, config.image_seq_length)
    finish(case, "llava", "LLaVA", __file__, seed, processor, loaded, entries, tensors)


def finish(case, model_type, title, script, seed, processor, loaded, entries, tensors):
    """Write what was computed and what the case is."""
    count = sum(p.numel() for p in loaded.parameters())
    save_file({n: t.contiguous() for n, t in sorted(tensors.items())}, f"{case}/golden.safetensors")
    write_json(f"{case}/golden.json", {
        "case": os.path.basename(os.path.normpath(case)),
        "model_type": model_type,
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, CPU float32, eager, "
                     f"PIL image processor (Pillow {PIL.__version__})",
        "tensors": "golden.safetensors",
        "steps": STEPS,
        "layout": "pK.logits[i] = logits that choose new_ids[i]; row 0 = last prompt position; hidden.* only for p0: output of "
                  "each vision block, of each text layer, of the final norm (module names without a leading model.); "
                  "vision_out = rows put at the picture positions",
        "weights_seed": seed,
        "parameters": count,
        "stored_dtype": "bfloat16",
        "parameters_without_influence": without_influence(loaded, processor, case),
        "prompts": entries,
    })
    with open(f"{case}/README.txt", "w", encoding="utf-8") as file:
        file.write(
            f"A tiny {title} of {count:,} random parameters (seed {seed}), stored in bf16, and what transformers computes with it.\n"
            f"Made by test/tools/{os.path.basename(script)}, tokenizer, template and pictures included; MIT licence as the repository.\n"
            f"Smallest lead of a greedy choice: {min(e['min_gap'] for e in entries):.3f}; "
            f"negated pixels move the last logits by {influence_of_picture(loaded, processor, case):.2f}.\n"
        )
    for folder, _, files in os.walk(case):
        for name in files:
            os.chmod(f"{folder}/{name}", 0o644)
    print(f"seed {seed}: " + "; ".join(f"{e['name']} {e['text']!r} gap {e['min_gap']}" for e in entries))


def compare(case, reference):
    """Differences between a case's golden files and what `reference` computes from its model."""
    with open(f"{case}/golden.json", encoding="utf-8") as file:
        golden = json.load(file)
    prompts = [(p["name"], p["messages"]) for p in golden["prompts"]]
    _, _, entries, tensors = reference(case, prompts)
    stored = load_file(f"{case}/golden.safetensors")
    print("tensors only there:", sorted(set(stored) - set(tensors)), "only here:", sorted(set(tensors) - set(stored)))
    for name in sorted(set(stored) & set(tensors)):
        a, b = stored[name], tensors[name]
        print(name, tuple(a.shape), "differs in shape" if a.shape != b.shape else float((a - b).abs().max()))
    for old, new in zip(golden["prompts"], entries):
        keys = [k for k in sorted(set(old) | set(new)) if not k.startswith("check") and old.get(k) != new.get(k)]
        print(old["name"], "differs in", keys)


def main(description, make, reference):
    """The command line of a script that makes a case."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the folder to make, or the case to compare")
    parser.add_argument("--compare", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if arguments.compare:
        compare(arguments.out, reference)
    else:
        make(arguments.out)


if __name__ == "__main__":
    main(__doc__, make, reference)
