"""Make tokenizer.json and tokenizer_config.json: byte-level BPE as Qwen2's, of about 2,000 tokens.

    make_tokenizer.py OUT

It is trained on questions and answers, and on the words in small letters. Words in
pictures are capitals and stay single letters, so that the model has to read them.
"""

import argparse
import json
import os
import random

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import questions
from scenes import compose, choose_background
from words import WORDS

VOCABULARY = 2000
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
           r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>",
           "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|quad_start|>",
           "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}")


def corpus(n_scenes=4000):
    """Questions and answers of many scenes, without the words that pictures show."""
    for _ in range(9):
        yield from ("user\n", "assistant\n", "system\nYou are a helpful assistant.")
        yield from ("Which picture shows more shapes?", "In which picture are there more?")
    for word in WORDS:
        yield f"{word.lower()} {word.lower()}s {word.title()} {word.title()}s {word.lower()}"
    for index in range(n_scenes):
        rng = random.Random(f"tokenizer:{index}")
        scene = compose(rng, choose_background(rng))
        for item in scene.items:
            if item.kind == "word":
                item.text = ""
        for kind in questions.KINDS:
            yield from questions.KINDS[kind][0](scene, rng) or ()


def build():
    """The tokenizer with its specials at the end of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL), min_frequency=1, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def configuration(tokenizer):
    """What tokenizer_config.json says, laid out as the hub's."""
    added = {str(tokenizer.token_to_id(token)): {
        "content": token, "lstrip": False, "normalized": False, "rstrip": False,
        "single_word": False, "special": True} for token in SPECIAL}
    return {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
            "additional_special_tokens": SPECIAL[1:], "bos_token": None,
            "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 2048,
            "pad_token": "<|endoftext|>", "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}


def write(folder):
    """Write the tokenizer's files into the folder; gives the tokenizer."""
    os.makedirs(folder, exist_ok=True)
    tokenizer = build()
    tokenizer.save(os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(configuration(tokenizer), file, ensure_ascii=False, indent=2)
        file.write("\n")
    with open(os.path.join(folder, "chat_template.json"), "w", encoding="utf-8") as file:
        json.dump({"chat_template": CHAT_TEMPLATE}, file, ensure_ascii=False, indent=2)
        file.write("\n")
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    tokenizer = write(parser.parse_args().folder)
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
