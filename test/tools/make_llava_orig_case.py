#!/usr/bin/env python3
"""Make test/golden/llava_orig_tiny: a tiny LLaVA in its authors' form, and what transformers computes.

  make_llava_orig_case.py OUT             write the case into the new folder OUT
  make_llava_orig_case.py --compare CASE  compute an existing case again and print the differences

As make_llava_case.py, whose pictures, text and rules it shares (see there for what it needs); it needs sentencepiece and
protobuf, too. model/ has original names in two float16 shards of torch.save and a tokenizer.model trained here; its CLIP
tower is the folder clip-tiny beside it, float32, with parts to leave out. No class of transformers reads this form, so
the weights are read back from the files into Hugging Face's LLaVA; the prompt is what conversation.py's vicuna_v1 and
tokenizer_image_token make of the messages (there is no template in the folder, as in the authors'), with one number for
each row of a picture, the size of the vocabulary.
"""
import collections
import io
import json
import os
import sys

import PIL
import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from make_llava_case import (
    DISTINCT, PROMPTS, STEPS, TEXT, Unclear, hub_name, influence_of_picture, main, make_pictures, messages_of, randomise,
    run_prompt, text, without_influence, write_json,
)

FIRST_SEED = 52000
TOWER = "clip-tiny"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
    "polite answers to the user's questions. "
)
OWN_PROMPTS = PROMPTS[:2] + [
    (
        "turns",
        [
            ("user", [text("Write a short   list:\n1. lamp\n2. table")]),
            ("assistant", [text("1. A lamp, 2. a table.")]),
            ("user", [text("And the third? It's sum += row[i] * 3 -- œuvre")]),
        ],
    ),
]


# ---- the parts of the checkpoint ---------------------------------------------------------------


def make_tokenizer(path):
    """A BPE with byte fallback, set as Llama's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()), model_writer=model, model_type="bpe", vocab_size=3 + 256 + 90,
        byte_fallback=True, split_digits=True, add_dummy_prefix=True, remove_extra_whitespaces=False,
        normalization_rule_name="identity", allow_whitespace_only_pieces=True, hard_vocab_limit=False, num_threads=1,
        minloglevel=2,
    )
    with open(path, "wb") as file:
        file.write(model.getvalue())


class Processor:
    """What the authors' code does with messages and pictures, by the interface that run_prompt() uses."""

    def __init__(self, case, config):
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=f"{case}/model/tokenizer.model")
        spec = sentencepiece_model_pb2.ModelProto.FromString(self.pieces.serialized_model_proto())
        spec.normalizer_spec.add_dummy_prefix = False
        self.plain = sentencepiece.SentencePieceProcessor(model_proto=spec.SerializeToString())
        self.images = LlavaImageProcessorPil.from_pretrained(f"{case}/{TOWER}", do_pad=True)
        self.image_token, self.rows = config.image_token_index, config.image_seq_length
        self.tokenizer = self
        self.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )

    def decode(self, ids, skip_special_tokens=False):
        """As the tokenizer.json of Hugging Face's form, whose bytes become text run by run."""
        assert all(i > 2 for i in ids)
        return self.decoder.decode([self.pieces.id_to_piece(i) for i in ids])

    @staticmethod
    def apply_chat_template(messages, add_generation_prompt):
        assert add_generation_prompt
        rendered = SYSTEM
        for message in messages:
            parts = message["content"]
            words = "<image>\n" * sum(p["type"] == "image" for p in parts)
            words += "".join(p["text"] for p in parts if p["type"] == "text")
            rendered += f"USER: {words} " if message["role"] == "user" else f"ASSISTANT: {words}</s>"
        return rendered + "ASSISTANT:"

    def encode(self, words):
        """Llama's slow tokenizer with legacy=false: only what begins a text gets a space before it."""
        ids = []
        for k, part in enumerate(words.split("</s>")):
            ids += [2] * (k > 0) + (self.plain.encode(("▁" if k == 0 else "") + part) if part else [])
        return ids

    def __call__(self, text, images, return_tensors):
        ids = [1]
        for k, words in enumerate(text.split("<image>")):
            ids += [self.image_token] * (self.rows if k > 0 else 0) + self.encode(words)
        inputs = {"input_ids": torch.tensor([ids])}
        if images:
            inputs["pixel_values"] = self.images(images, return_tensors=return_tensors)["pixel_values"]
        return inputs


ORIGINAL = {
    "mm_hidden_size": 24, "mm_projector_type": "mlp2x_gelu", "mm_resampler_type": None, "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False, "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2,
    "mm_vision_tower": f"somebody/{TOWER}",
}
TEXT_CONFIG = {
    "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 48, "max_position_embeddings": 512,
    "num_attention_heads": 3, "num_hidden_layers": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
}
VISION_CONFIG = {
    "hidden_size": 24, "image_size": 42, "intermediate_size": 40, "model_type": "clip_vision_model",
    "num_attention_heads": 2, "num_hidden_layers": 2, "patch_size": 14, "projection_dim": 16,
}


def make_config(vocab_size):
    """Hugging Face's, with one row more among the embeddings, for the number that stands for pictures."""
    return LlavaConfig(
        vision_config=dict(VISION_CONFIG, hidden_act="quick_gelu"),
        text_config=dict(TEXT_CONFIG, model_type="llama", vocab_size=vocab_size + 1),
        image_token_index=vocab_size, image_seq_length=9, vision_feature_layer=-2,
        vision_feature_select_strategy="default", projector_hidden_act="gelu", tie_word_embeddings=False,
    )


def make_network(config):
    model = LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")
    model.lm_head = torch.nn.Linear(config.text_config.hidden_size, config.image_token_index, bias=False)
    return model.eval()


def original_name(name):
    name = hub_name(name).removeprefix("language_model.").removeprefix("vision_tower.")
    for theirs, ours in (("linear_1", "0"), ("linear_2", "2")):
        name = name.replace(f"multi_modal_projector.{theirs}.", f"model.mm_projector.{ours}.")
    return name


def write_weights(case, model, vocab_size):
    tensors, tower = collections.OrderedDict(), collections.OrderedDict()
    for name, parameter in model.named_parameters():
        name, value = original_name(name), parameter.detach()
        if name.startswith("vision_model."):
            tower[name] = value.float().clone()
        else:
            tensors[name] = (value[:vocab_size] if name.endswith("embed_tokens.weight") else value).half().clone()
    frequencies = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    for layer in range(TEXT_CONFIG["num_hidden_layers"]):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies.clone()
    tower["logit_scale"] = torch.tensor(2.6592)
    tower["text_model.embeddings.position_ids"] = torch.arange(7)[None]
    tower["text_model.final_layer_norm.weight"] = torch.ones(16)
    tower["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    tower["visual_projection.weight"] = torch.ones(16, 24)
    torch.save(tower, f"{case}/{TOWER}/pytorch_model.bin")
    names, files = sorted(tensors), {}
    for k, part in enumerate((names[: len(names) // 2], names[len(names) // 2:])):
        file = f"pytorch_model-0000{k + 1}-of-00002.bin"
        files |= {name: file for name in part}
        torch.save({name: tensors[name] for name in part}, f"{case}/model/{file}")
    write_json(f"{case}/model/pytorch_model.bin.index.json", {
        "metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())}, "weight_map": files,
    })


def write_files(case, vocab_size):
    write_json(f"{case}/model/config.json", ORIGINAL | TEXT_CONFIG | {
        "architectures": ["LlavaLlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "image_aspect_ratio": "pad",
        "model_type": "llava", "pad_token_id": 0, "tie_word_embeddings": False, "torch_dtype": "float16",
        "transformers_version": "4.31.0", "vocab_size": vocab_size,
    })
    write_json(f"{case}/model/generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0})
    write_json(f"{case}/model/special_tokens_map.json", {
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>", "unk_token": "<unk>"})
    write_json(f"{case}/model/tokenizer_config.json", {
        "add_bos_token": True, "add_eos_token": False, "bos_token": "<s>", "clean_up_tokenization_spaces": False,
        "eos_token": "</s>", "legacy": False, "model_max_length": 512, "pad_token": None, "padding_side": "right",
        "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"})
    write_json(f"{case}/{TOWER}/config.json", {
        "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 16,
        "text_config": {"model_type": "clip_text_model", "num_hidden_layers": 0}, "vision_config": VISION_CONFIG})
    write_json(f"{case}/{TOWER}/preprocessor_config.json", {
        "crop_size": 42, "do_center_crop": True, "do_normalize": True, "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 42})


# ---- the reference run ---------------------------------------------------------------------------


def read_weights(case):
    with open(f"{case}/model/pytorch_model.bin.index.json", encoding="utf-8") as file:
        files = sorted(set(json.load(file)["weight_map"].values()))
    tensors = torch.load(f"{case}/{TOWER}/pytorch_model.bin", weights_only=True)
    for file in files:
        tensors |= torch.load(f"{case}/model/{file}", weights_only=True)
    return tensors


def open_case(case):
    with open(f"{case}/model/config.json", encoding="utf-8") as file:
        config = make_config(json.load(file)["vocab_size"])
    model, tensors = make_network(config), read_weights(case)
    for name, parameter in model.named_parameters():
        value = tensors[original_name(name)].float()
        parameter.data.zero_()
        parameter.data[: len(value)] = value
    return Processor(case, config), model


def reference(case, prompts):
    """golden.json's prompts and golden.safetensors' tensors for the checkpoint in the case."""
    processor, model = open_case(case)
    tensors, entries = {}, []
    with torch.no_grad():
        for k, (name, messages) in enumerate(prompts):
            entries.append(run_prompt(k, name, messages, model, processor, case, tensors))
    return processor, model, entries, tensors


def search_seed(model, case, vocab_size, prompts):
    """Write the model with the first seed whose greedy answers are clear-cut."""
    for seed in range(FIRST_SEED, FIRST_SEED + 4000):
        randomise(model, seed)
        model.lm_head.weight.data[3:259] /= 4  # bytes are few among the answers
        write_weights(case, model, vocab_size)
        try:
            processor, loaded, entries, tensors = reference(case, prompts)
        except Unclear:
            continue
        if all(len(set(entry["new_ids"])) >= DISTINCT for entry in entries):
            return seed, processor, loaded, entries, tensors
    sys.exit("no seed gives clear-cut answers")


def make(case):
    os.makedirs(f"{case}/model")
    os.makedirs(f"{case}/{TOWER}")
    make_pictures(f"{case}/images")
    make_tokenizer(f"{case}/model/tokenizer.model")
    vocab_size = sentencepiece.SentencePieceProcessor(model_file=f"{case}/model/tokenizer.model").vocab_size()
    write_files(case, vocab_size)
    prompts = [(name, messages_of(prompt)) for name, prompt in OWN_PROMPTS]
    model = make_network(make_config(vocab_size))
    seed, processor, loaded, entries, tensors = search_seed(model, case, vocab_size, prompts)
    count = sum(p.numel() for p in loaded.parameters()) - TEXT_CONFIG["hidden_size"]
    save_file({n: t.contiguous() for n, t in sorted(tensors.items())}, f"{case}/golden.safetensors")
    write_json(f"{case}/golden.json", {
        "case": os.path.basename(os.path.normpath(case)),
        "model_type": "llava",
        "reference": f"transformers {transformers.__version__}, torch {torch.__version__}, CPU float32, eager, "
                     f"PIL image processor (Pillow {PIL.__version__}), sentencepiece {sentencepiece.__version__}",
        "tensors": "golden.safetensors",
        "steps": STEPS,
        "layout": "as llava_tiny; input_ids have vocab_size for each row of a picture",
        "weights_seed": seed,
        "parameters": count,
        "stored_dtype": "float16, the tower float32",
        "parameters_without_influence": without_influence(loaded, processor, case),
        "prompts": entries,
    })
    with open(f"{case}/README.txt", "w", encoding="utf-8") as file:
        file.write(
            f"A tiny LLaVA of {count:,} random parameters (seed {seed}) in its authors' form, and what transformers computes with it.\n"
            "Made by test/tools/make_llava_orig_case.py, tokenizer and pictures included; MIT licence as the repository.\n"
            f"Smallest lead of a greedy choice: {min(e['min_gap'] for e in entries):.3f}; "
            f"negated pixels move the last logits by {influence_of_picture(loaded, processor, case):.2f}.\n"
        )
    for folder, _, files in os.walk(case):
        for name in files:
            os.chmod(f"{folder}/{name}", 0o644)
    print(f"seed {seed}: " + "; ".join(f"{e['name']} {e['text']!r} gap {e['min_gap']}" for e in entries))


if __name__ == "__main__":
    main(__doc__, make, reference)
