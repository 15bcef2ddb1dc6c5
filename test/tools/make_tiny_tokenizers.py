#!/usr/bin/env python3
"""Write test/unit/data/tokenizer_{bytes,pieces,scores,spelled,cut}.json and tokenizer_vectors.json.

usage: make_tiny_tokenizers.py FOLDER

Tokenizers of our own, small enough to read: one byte-level, one in the
SentencePiece manner with bytes to fall back on, two Unigrams, and one of all
that a Split can do. What the strings below give
is computed by the tokenizers library (pip install tokenizers; 0.23.3 made
the committed file).
"""
import json
import os
import sys

from tokenizers import Tokenizer

WORDS = """the picture shows a dog that runs on the grass and there is another dog there
what is in this picture describe the photograph of the man and the women in the water""".split()

STRINGS = [
    "", " ", "a", "the", " the", "the dog", "the  dog", "  the dog  ", "The DOG", "there's another",
    "I'm they're we'll he'd it's 'tis 's ''s", "12 345 6.7", "x\u00b2\u2167\u0663", "\n", "\n\n", " \n \n x", "a\tb\r\nc",
    "x\u00a0y\u3000z", "na\u00efve", "caf\u00e9", "\u4f60\u597d", "\u4f60\u597d the dog", "\U0001F600", "e\u0301",
    "<image>", "<image>the dog", "the <image> dog", "<image><image>", " <image> ", "<pad>x",
    "<imag", "<0x0A>", "\u2581the", "\ufffd", "\x00a\x7f", "the\u200bdog", "runs,runs;runs!?...",
    "a<mask>b", "a <mask> b", "a  <mask>  b", "a<word>b", "a <word> b", "<word>", "_<word>",
    "describe the photograph of the man", "aaaaaaaaaaaaaaaaaaaa", "dogdogdogdog", "\u0915\u093c",
    "\ufb01x \u2460\u00bd\ufdfa", "\u0130I\u03a3 \u1e9b\u0323", "q\u0307\u0323 \uac01\u11a8",
    "the1dog22,;33..44o oo, ;x", "  \u2581 \u2581x ", "zzz zz\u4f60z", "thethedogathe", "<mask>  the",
]


def added(token_id, content, special=True, **flags):
    token = {"id": token_id, "content": content, "single_word": False, "lstrip": False,
             "rstrip": False, "normalized": False, "special": special}
    token.update(flags)
    return token


def byte_letters():
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in printable]
    letters = {b: chr(b) for b in printable}
    letters.update({b: chr(256 + i) for i, b in enumerate(others)})
    return letters


def grow(vocab, words):
    """Merges that build every word from the left, and their tokens."""
    merges = []
    for word in words:
        left = word[0]
        for letter in word[1:]:
            if [left, letter] not in merges:
                merges.append([left, letter])
            left += letter
            vocab.setdefault(left, len(vocab))
    return merges


def model(vocab, merges, **settings):
    result = {"type": "BPE", "dropout": None, "unk_token": None,
              "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
              "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}
    result.update(settings)
    return result


def more_added(n):
    return [added(n, "<image>"), added(n + 1, "<pad>"),
            added(n + 2, "<mask>", special=False, lstrip=True, rstrip=True),
            added(n + 3, "<word>", special=False, single_word=True)]


def make_bytes():
    letters = byte_letters()
    vocab = {"<|end|>": 0}
    for byte in range(256):
        vocab[letters[byte]] = len(vocab)
    words = ["aa"] + ["\u0120" + w for w in WORDS] + WORDS
    merges = grow(vocab, words)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added(0, "<|end|>")] + more_added(len(vocab)),
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True}, level]},
            "post_processor": level, "decoder": level,
            "model": model(vocab, [" ".join(m) for m in merges])}


def make_pieces():
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab["<0x%02X>" % byte] = len(vocab)
    words = ["\u2581" + w for w in WORDS] + WORDS
    for letter in ["\u2581"] + sorted(set("".join(WORDS))) + list("ITDOG.,'!?\u00e9"):
        vocab.setdefault(letter, len(vocab))
    merges = grow(vocab, words)
    post = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = post + [{"Sequence": {"id": "B", "type_id": 1}}]
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added(i, t) for i, t in enumerate(["<unk>", "<s>", "</s>"])] +
            more_added(len(vocab)),
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
            "pre_tokenizer": None,
            "post_processor": {"type": "TemplateProcessing", "single": post, "pair": pair,
                               "special_tokens": {
                                   "<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": model(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)}


def make_scores(byte_fallback, sections):
    """Pieces whose scores leave most texts several ways."""
    pieces = [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0]]
    if byte_fallback:
        pieces += [["<0x%02X>" % byte, 0.0] for byte in range(256)]
    texts = sorted(set(["\u2581" + w for w in WORDS] + WORDS + [w[:2] for w in WORDS] +
                       [w[-3:] for w in WORDS] + list("".join(WORDS)) + list("\u2581123.,e\u0301")))
    for i, text in enumerate(texts):
        pieces.append([text, -1.5 - (i * 37 % 101) / 16 - 3 / len(text)])
    result = {"version": "1.0", "truncation": None, "padding": None,
              "added_tokens": [added(i, p[0]) for i, p in enumerate(pieces[:3])] +
              more_added(len(pieces)), "post_processor": None,
              "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces,
                        "byte_fallback": byte_fallback}}
    result.update(sections)
    return result


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def split(pattern, behavior, invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def make_cut():
    """Characters alone are tokens, and pairs of equal ones: where a text was cut can be seen."""
    letters = sorted(set("".join(STRINGS)) - set("<>")) + ["<", ">"]
    vocab = {letter: i for i, letter in enumerate(letters)}
    merges = []
    for left in "123the dog.,;o ":
        for right in "123the dog.,;o ":
            if left + right not in vocab:
                vocab[left + right] = len(vocab)
                merges.append([left, right])
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": more_added(len(vocab)), "normalizer": {"type": "NFKD"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                split({"String": " "}, "MergedWithPrevious"),
                split({"Regex": "\\p{N}"}, "Contiguous"),
                split({"String": "o"}, "MergedWithNext"),
                split({"Regex": "[;!]"}, "Removed"),
                split({"Regex": "[^,]+"}, "Isolated", invert=True)]},
            "post_processor": None, "decoder": None, "model": model(vocab, merges)}


def vectors(tokenizer):
    result = []
    for text in STRINGS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text, add_special_tokens=True).ids
        result.append({"text": text, "ids": ids, "ids_special": special,
                       "decoded": tokenizer.decode(ids, skip_special_tokens=False),
                       "decoded_skip_special": tokenizer.decode(special, skip_special_tokens=True)})
    return result


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    result = {}
    made = (("bytes", make_bytes()), ("pieces", make_pieces()),
            ("scores", make_scores(False, {
                "normalizer": {"type": "Sequence", "normalizers": [
                    {"type": "Lowercase"}, {"type": "NFKC"},
                    {"type": "Strip", "strip_left": False, "strip_right": True}]},
                "pre_tokenizer": metaspace("always", True), "decoder": metaspace("always", True)})),
            ("spelled", make_scores(True, {
                "normalizer": {"type": "NFD"}, "pre_tokenizer": metaspace("first", False),
                "decoder": {"type": "Sequence", "decoders": [
                    {"type": "ByteFallback"}, metaspace("first", False), {"type": "Fuse"}]}})),
            ("cut", make_cut()))
    for name, tokenizer in made:
        text = json.dumps(tokenizer, ensure_ascii=True, indent=1)
        with open(os.path.join(sys.argv[1], "tokenizer_%s.json" % name), "w") as file:
            file.write(text + "\n")
        result[name] = vectors(Tokenizer.from_str(text))
    with open(os.path.join(sys.argv[1], "tokenizer_vectors.json"), "w") as file:
        json.dump(result, file, indent=0)
        file.write("\n")


if __name__ == "__main__":
    main()
