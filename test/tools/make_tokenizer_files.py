#!/usr/bin/env python3
"""Write test/golden/tokenizers: tokenizers that are no tokenizer.json, and their vectors.

usage: make_tokenizer_files.py FOLDER

Small SentencePiece models, trained on the words below, and rank files in the
manner of tiktoken and of Mistral's tekken. NAME/ holds the files as a model
folder has them, NAME.json what the strings give. SentencePiece's ids are those
of its library (pip install sentencepiece; 0.2.3 made the committed files), text
between special tokens by itself; what they decode to is what the decoder that
transformers gives such models makes of them (pip install tokenizers; 0.23.3).
Ranks are merged by the tiktoken library (0.14.0).
"""
import base64
import io
import json
import os
import re
import sys

import sentencepiece
import tiktoken
from tokenizers import decoders

WORDS = """the picture shows a dog that runs on the grass and there is another dog there
what is in this picture describe the photograph of the man and the women in the water
two of them were running, three were reading; nobody had seen the water rise before
na\u00efve caf\u00e9 d\u00e9j\u00e0 vu fine print final office \u4f60\u597d \u4e16\u754c \u4f60\u597d \u4e2d\u6587 12 345 1999 the end""".split("\n")

STRINGS = [
    "", " ", "a", "the", " the", "the dog", "the  dog", "  the   dog  ", "The DOG", "there's another",
    "I'm they're we'll HE'D it's 'tis", "12 345 6.7 1234567", "x\u00b2\u2167\u0663", "\n", "\n\n", " \n \n x", "a\tb\r\nc",
    "x\u00a0y\u3000z", "na\u00efve", "caf\u00e9", "\u4f60\u597d", "\u4f60\u597d the \u4e16\u754c", "\U0001F600", "e\u0301 cafe\u0301", "\u2581the",
    "\ufb01nal of\ufb01ce", "\uff21\uff22", "the\u200bdog", "\u200b", "a \u3000 b", "\ufffd", "\x00a\x7f", "runs,runs;runs!?...",
    "<img>", "<img>the dog", "the <img> dog", "<img><img>", "a<img", "<s>", "</s>the dog", "the</s> dog</s>",
    "<unk>", "<ctl>x<ctl>", "<|endoftext|>", "<|im_start|>user\nwhat<|im_end|>\n", "<|begin_of_text|>the<|eot_id|>",
    "[INST]the[/INST]", "<SPECIAL_7>", "<ref>the dog</ref>", "<|extra_12|>", "<0x0A>", "aaaaaaaaaaaaaaaaaaaa", "dogdogdogdog",
    "describe the photograph of the man", "\u0915\u093c \u0958", "    four", "a\u0301\u0316 q\u0323\u0307", "\u1100\u1161\u11a8",
]

# code points and what becomes of them
RULES = "FB01\t66 69\nFF21\t41\n3000\t20\nA0\t20\n9\t20\nA\t20\n65 301\tE9\n200B\t\n2167\t56 49 49 49\n"


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb" if isinstance(data, bytes) else "w") as file:
        file.write(data)


def write_vectors(folder, name, vectors):
    write(os.path.join(folder, name + ".json"),
          json.dumps({"tokenizer": name, "strings": vectors}, indent=0) + "\n")


def vector(text, ids, special, decoded, skipped):
    return {"text": text, "ids": ids, "ids_special": special, "decoded": decoded,
            "decoded_skip_special": skipped}


# ---- SentencePiece ----

def train(rules_path, **settings):
    model = io.BytesIO()
    if settings.pop("rules", False):
        settings["normalization_rule_tsv"] = rules_path
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 3), model_writer=model, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, control_symbols=["<ctl>"], **settings)
    return model.getvalue()


def llama_decoder(dummy_prefix):
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(parts + ([decoders.Strip(" ", 1, 0)] if dummy_prefix else []))


def sentencepiece_vectors(data, dummy_prefix):
    model = sentencepiece.SentencePieceProcessor(model_proto=data)
    special = [i for i in range(len(model)) if model.is_control(i) or model.is_unknown(i)]
    by_text = {model.id_to_piece(i): i for i in special}
    cut = re.compile("(" + "|".join(re.escape(t) for t in by_text) + ")")
    decoder = llama_decoder(dummy_prefix)

    def encode(text):
        ids = []
        for part in cut.split(text):
            ids += [by_text[part]] if part in by_text else model.encode(part)
        return ids

    def decode(ids):
        return decoder.decode([model.id_to_piece(i) for i in ids])

    def drop(ids):
        return [i for i in ids if i not in special]

    return [vector(text, encode(text), [1] + encode(text), decode(encode(text)),
                   decode(drop([1] + encode(text)))) for text in STRINGS]


SENTENCEPIECE = {
    "sp_bpe": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True,
                   remove_extra_whitespaces=False, vocab_size=420,
                   user_defined_symbols=["<img>", "\u2581\u2581\u2581\u2581", "\n"]),
    "sp_bpe_rules": dict(model_type="bpe", rules=True, vocab_size=150,
                         user_defined_symbols=["<img>"]),
    "sp_unigram": dict(model_type="unigram", rules=True, byte_fallback=True, vocab_size=420,
                       user_defined_symbols=["<img>", "photograph", "\uff21"]),
    "sp_unigram_plain": dict(model_type="unigram", normalization_rule_name="identity",
                             add_dummy_prefix=False, vocab_size=150),
}


def make_sentencepiece(folder):
    rules = os.path.join(folder, "rules.tsv")
    write(rules, RULES)
    for name, settings in SENTENCEPIECE.items():
        data = train(rules, **dict(settings))
        write(os.path.join(folder, name, "tokenizer.model"), data)
        write_vectors(folder, name,
                      sentencepiece_vectors(data, settings.get("add_dummy_prefix", True)))
    os.remove(rules)


# ---- ranks ----

REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + REST
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + REST
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def make_ranks(n):
    """All bytes, then the pair that is most frequent in the words, again and again."""
    ranks = [bytes([b]) for b in range(256)]
    words = [[bytes([b]) for b in (" " + w).encode()] for line in WORDS for w in line.split()]
    while len(ranks) < n:
        counts = {}
        for word in words:
            for pair in zip(word, word[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], pair))
        ranks.append(best[0] + best[1])
        for word in words:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == best:
                    word[at:at + 2] = [best[0] + best[1]]
                at += 1
    return ranks


def rank_vectors(ranks, first, pattern, special, bos, composes=False):
    import unicodedata
    encoding = tiktoken.Encoding("tiny", pat_str=pattern, special_tokens=special,
                                 mergeable_ranks={b: first + i for i, b in enumerate(ranks)})
    cut = re.compile("(" + "|".join(re.escape(t) for t in sorted(special, reverse=True)) + ")")
    ids_special = set(special.values())

    def encode(text):
        parts = cut.split(text)
        if composes:
            parts = [p if p in special else unicodedata.normalize("NFC", p) for p in parts]
        return encoding.encode("".join(parts), allowed_special="all")

    def decode(ids):
        return encoding.decode(ids, errors="replace")

    return [vector(text, encode(text), bos + encode(text), decode(encode(text)),
                   decode([i for i in encode(text) if i not in ids_special])) for text in STRINGS]


def rank_file(ranks):
    return "".join("%s %d\n" % (base64.b64encode(b).decode(), i) for i, b in enumerate(ranks))


def make_qwen(folder):
    ranks = make_ranks(330)
    names = (["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + ["<|extra_%d|>" % i for i in range(205)]
             + ["<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"])
    special = {name: len(ranks) + i for i, name in enumerate(names)}
    write(os.path.join(folder, "qwen", "qwen.tiktoken"), rank_file(ranks))
    write_vectors(folder, "qwen", rank_vectors(ranks, 0, QWEN, special, [], composes=True))


def make_llama3(folder):
    ranks = make_ranks(340)
    names = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 4: "<|finetune_right_pad_id|>",
             6: "<|start_header_id|>", 7: "<|end_header_id|>", 8: "<|eom_id|>", 9: "<|eot_id|>",
             10: "<|python_tag|>"}
    special, reserved = {}, 0
    for i in range(256):
        if i not in names:
            names[i] = "<|reserved_special_token_%d|>" % reserved
            reserved += 1
        special[names[i]] = len(ranks) + i
    write(os.path.join(folder, "llama3", "tokenizer.model"), rank_file(ranks))
    write_vectors(folder, "llama3", rank_vectors(ranks, 0, LLAMA3, special, [len(ranks)]))


def make_tekken(folder, name, n_special, listed):
    """The list of byte strings is longer than the vocabulary, as it is in real files."""
    ranks = make_ranks(360)
    old = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
           "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]",
           "[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
           "[TOOL_CONTENT]"]
    names = old[:7] if listed else old
    special = {name: i for i, name in enumerate(names)}
    special.update({"<SPECIAL_%d>" % i: i for i in range(len(names), n_special)})
    data = {"config": {"pattern": TEKKEN, "num_vocab_tokens": len(ranks),
                       "default_vocab_size": n_special + 350,
                       "default_num_special_tokens": n_special, "version": "v11" if listed else "v3"},
            "vocab": [{"rank": i, "token_bytes": base64.b64encode(b).decode(),
                       "token_str": b.decode() if b.isascii() else None} for i, b in enumerate(ranks)]}
    if listed:
        data["special_tokens"] = [{"rank": i, "token_str": t, "is_control": True}
                                  for i, t in enumerate(names)]
    write(os.path.join(folder, name, "tekken.json"), json.dumps(data, indent=0) + "\n")
    write_vectors(folder, name, rank_vectors(ranks[:350], n_special, TEKKEN, special, [1]))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = sys.argv[1]
    make_sentencepiece(folder)
    make_qwen(folder)
    make_llama3(folder)
    make_tekken(folder, "tekken", 20, listed=False)
    make_tekken(folder, "tekken_listed", 10, listed=True)


if __name__ == "__main__":
    main()
