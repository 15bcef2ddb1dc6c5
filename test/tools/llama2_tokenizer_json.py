#!/usr/bin/env python3
"""Write the tokenizer.json of LLaVA-1.5 from a Llama-2 tokenizer.model.

usage: llama2_tokenizer_json.py SOURCE OUT

SOURCE is a SentencePiece model, or a tar file that holds one as
tokenizers/llama2/tokenizer.model. The vocabulary and the merges come out as
transformers derives them, normalizer, decoder, post-processor and added
tokens as the hub's file has them. Python's standard library alone.
"""
import json
import os
import struct
import sys
import tarfile

MEMBER = "tokenizers/llama2/tokenizer.model"


def read_model(path):
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            return tar.extractfile(MEMBER).read()
    with open(path, "rb") as file:
        return file.read()


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(number, value) of a protobuf message; bytes for what has a length."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 1:
            value, at = data[at:at + 8], at + 8
        elif kind == 2:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        elif kind == 5:
            value, at = data[at:at + 4], at + 4
        else:
            raise ValueError("wire type %d" % kind)
        yield tag >> 3, value


def read_pieces(model):
    """[(text, score)] in order of id: ModelProto.pieces (1) of text (1) and score (2)."""
    pieces = []
    for number, value in fields(model):
        if number == 1:
            piece = dict(fields(value))
            pieces.append((piece[1].decode("utf-8"), struct.unpack("<f", piece[2])[0]))
    return pieces


def make_merges(pieces):
    """Every split of a piece in two pieces, the best pieces first."""
    ids = {text: i for i, (text, _) in enumerate(pieces)}
    merges = []
    for text, score in pieces:
        splits = [(text[:i], text[i:]) for i in range(1, len(text))]
        splits = [s for s in splits if s[0] in ids and s[1] in ids]
        splits.sort(key=lambda s: (ids[s[0]], ids[s[1]]))
        merges.extend((score, left, right) for left, right in splits)
    merges.sort(key=lambda m: m[0], reverse=True)  # keeps the order of equals
    return [[left, right] for _, left, right in merges]


def added(token_id, content):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True}


def special(token, type_id):
    return {"SpecialToken": {"id": token, "type_id": type_id}}


def sequence(name, type_id):
    return {"Sequence": {"id": name, "type_id": type_id}}


def make_tokenizer(pieces):
    n = len(pieces)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>"),
                         added(n, "<image>"), added(n + 1, "<pad>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("<s>", 0), sequence("A", 0)],
            "pair": [special("<s>", 0), sequence("A", 0), special("<s>", 1), sequence("B", 1)],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>",
            "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {text: i for i, (text, _) in enumerate(pieces)},
            "merges": make_merges(pieces)},
    }


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = sys.argv[1:]
    tokenizer = make_tokenizer(read_pieces(read_model(source)))
    os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
    with open(out + ".part", "w", encoding="utf-8") as file:
        json.dump(tokenizer, file, ensure_ascii=False, indent=2)
    os.replace(out + ".part", out)


if __name__ == "__main__":
    main()
