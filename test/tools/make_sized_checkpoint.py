#!/usr/bin/env python3
"""Make a checkpoint of real size with random weights from a table of test/sized.

  make_sized_checkpoint.py SIZE OUT [--sparse] [--layers N] [--shard-bytes N] [--tokenizer FILE]

SIZE is a table (test/sized/qwen2-vl-2b.json) or its name. OUT becomes a folder as the hub has it:
configs, a tokenizer, and safetensors or torch's zip files, in shards. What a table has "beside" it
(the tower of the original LLaVA) becomes a folder beside OUT.

  --sparse         weights of zeros that are holes: for what needs names and shapes alone
  --layers N       keep the first N layers of tower and decoder each
  --shard-bytes N  the most that a shard holds (default 5000000000, 9900000000 of zip files)
  --tokenizer FILE a real tokenizer.json; without it, a small one of bytes that has every id

Norms are ones, everything else small random numbers: a block of random bytes, repeated. Written
one tensor at a time; needs Python's own library alone.
"""
import argparse
import json
import os
import pickle
import random
import re
import struct
import sys
import zipfile

BLOCK = 524309  # numbers, a prime: no two rows are alike
PIECE = 1 << 22
ZEROS = bytes(PIECE)
ITEM = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8}
ONE = {"BF16": b"\x80\x3f", "F16": b"\x00\x3c", "F32": b"\x00\x00\x80\x3f"}
LAYERS = ("num_hidden_layers", "depth")


# ---- tensors -----------------------------------------------------------------------------------


def expand(table, layers):
    """(name, shape, type) of every tensor."""
    for row in table["tensors"]:
        if isinstance(row, list):
            yield row[0], row[1], row[2] if len(row) > 2 else table["dtype"]
            continue
        for i in range(min(layers or row["repeat"], row["repeat"])):
            for name, shape, *dtype in row["tensors"]:
                yield row["prefix"].format(i) + name, shape, dtype[0] if dtype else table["dtype"]


def count(shape):
    n = 1
    for side in shape:
        n *= side
    return n


def random_block(dtype):
    """Numbers of magnitude 1/128 to 1/32."""
    source = random.Random(20)
    low, high = source.randbytes(BLOCK), source.randbytes(BLOCK)
    top = {"BF16": 0x3C, "F16": 0x20, "F32": 0x3C}[dtype]
    keep = {"BF16": 0x00, "F16": 0x07, "F32": 0x00}[dtype]
    block = bytearray(ITEM[dtype] * BLOCK)
    block[ITEM[dtype] - 2 :: ITEM[dtype]] = low
    block[ITEM[dtype] - 1 :: ITEM[dtype]] = high.translate(bytes(top | b & keep | b & 0x80 for b in range(256)))
    return bytes(block)


def is_norm(name, shape):
    return len(shape) == 1 and name.endswith(".weight")


class Writer:
    """The bytes of tensors: holes, or ones and random numbers."""

    def __init__(self, sparse):
        self.sparse, self.blocks, self.at = sparse, {}, 0

    def write(self, file, name, shape, dtype):
        left = count(shape) * ITEM[dtype]
        if self.sparse or dtype == "I64":
            fill, at = ZEROS, 0
        elif is_norm(name, shape):
            fill, at = ONE[dtype] * 4096, 0
        else:
            if dtype not in self.blocks:
                self.blocks[dtype] = random_block(dtype)
            fill, at = self.blocks[dtype], self.at
            self.at = (at + left) % len(fill)
        while left > 0:
            size = min(left, len(fill) - at)
            file.write(memoryview(fill)[at : at + size])
            left, at = left - size, 0


class Holes:
    """A file whose writes of nothing but zeros become holes."""

    def __init__(self, path, sparse):
        self.file, self.sparse = open(path, "wb"), sparse

    def write(self, data):
        if self.sparse and len(data) >= 4096 and bytes(data) == ZEROS[: len(data)]:
            self.file.seek(len(data), os.SEEK_CUR)
        else:
            self.file.write(data)
        return len(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def close(self):
        end = self.file.tell()
        self.file.truncate(max(end, os.fstat(self.file.fileno()).st_size))
        self.file.close()


# ---- containers --------------------------------------------------------------------------------


def write_safetensors(path, tensors, writer):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, dtype in tensors:
        size = count(shape) * ITEM[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if writer.sparse:
            file.truncate(8 + len(text) + at)
            return
        for tensor in tensors:
            writer.write(file, *tensor)


class Storage:
    """Stands for a torch storage in the pickle."""

    def __init__(self, key, dtype, n):
        self.key, self.dtype, self.n = key, dtype, n




class Global:
    """A name that the pickle shall hold, without the module being there."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Pickler(pickle._Pickler):
    """torch.save()'s pickle of {name: tensor}, protocol 2."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Storage):
            kind = {"F16": "HalfStorage", "BF16": "BFloat16Storage", "F32": "FloatStorage", "I64": "LongStorage"}
            self.save(("storage", Global("torch", kind[obj.dtype]), obj.key, "cpu", obj.n))
            self.write(pickle.BINPERSID)
        elif isinstance(obj, Tensor):
            self.save(Global("torch._utils", "_rebuild_tensor_v2"))
            self.save((obj.storage, 0, tuple(obj.shape), obj.strides(), False, Empty()))
            self.write(pickle.REDUCE)
        elif isinstance(obj, Empty):
            self.save(Global("collections", "OrderedDict"))
            self.write(pickle.EMPTY_TUPLE + pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


class Empty:
    """An empty OrderedDict: a tensor's hooks."""


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, shape

    def strides(self):
        strides, step = [], 1
        for side in reversed(self.shape):
            strides.insert(0, step)
            step *= side
        return tuple(strides)


def write_zip(path, tensors, writer):
    """As torch.save() since 1.6: stored records, each aligned to 64 bytes."""
    stem = os.path.splitext(os.path.basename(path))[0]
    state = {}
    for key, (name, shape, dtype) in enumerate(tensors):
        state[name] = Tensor(Storage(str(key), dtype, count(shape)), shape)
    holes = Holes(path, writer.sparse)

    def record(archive, name):
        info = zipfile.ZipInfo(f"{stem}/{name}", (1980, 0, 0, 0, 0, 0))
        at = holes.tell() + 30 + len(info.filename) + 20 + 4  # local header, zip64 sizes, padding's own head
        info.extra = struct.pack("<2sH", b"FB", -at % 64) + b"Z" * (-at % 64)
        return archive.open(info, "w", force_zip64=True)

    with zipfile.ZipFile(holes, "w", zipfile.ZIP_STORED) as archive:
        with record(archive, "data.pkl") as file:
            Pickler(file, protocol=2).dump(state)
        with record(archive, "byteorder") as file:
            file.write(b"little")
        for key, tensor in enumerate(tensors):
            with record(archive, f"data/{key}") as file:
                writer.write(file, *tensor)
        with record(archive, "version") as file:
            file.write(b"3\n")
    holes.close()


def shards_of(tensors, most):
    shards, size = [[]], 0
    for tensor in tensors:
        bytes_of = count(tensor[1]) * ITEM[tensor[2]]
        if size + bytes_of > most and shards[-1]:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += bytes_of
    return shards


def write_weights(out, table, args):
    zipped = table.get("container") == "zip"
    stem, ending = ("pytorch_model", ".bin") if zipped else ("model", ".safetensors")
    tensors = list(expand(table, args.layers))
    shards = shards_of(tensors, args.shard_bytes or (9_900_000_000 if zipped else 5_000_000_000))
    write = write_zip if zipped else write_safetensors
    writer, places = Writer(args.sparse), {}
    for i, shard in enumerate(shards):
        name = f"{stem}-{i + 1:05}-of-{len(shards):05}{ending}" if len(shards) > 1 else stem + ending
        write(os.path.join(out, name), shard, writer)
        places.update((tensor[0], name) for tensor in shard)
    if len(shards) > 1:
        total = sum(count(shape) * ITEM[dtype] for _, shape, dtype in tensors)
        write_json(out, f"{stem}{ending}.index.json", {"metadata": {"total_size": total}, "weight_map": places})


# ---- the other files ---------------------------------------------------------------------------


def write_json(out, name, value):
    with open(os.path.join(out, name), "w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")


def byte_letters():
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + i) for i in range(256))
    return [chr(b) if b in plain else next(others) for b in range(256)]


def make_tokenizer(special, n_vocab):
    """A byte-level BPE without merges: the bytes take the first ids that are free, words that no
    text makes all others."""
    taken = set(special.values())
    free = (i for i in range(n_vocab) if i not in taken)
    vocab = {letter: next(free) for letter in byte_letters()}
    vocab.update((f"w{i}", i) for i in free)
    added = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for text, i in sorted(special.items(), key=lambda item: item[1])
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {**vocab, **special}, "merges": []},
    }


def fewer_layers(config, layers):
    """Every count of layers in the config, cut; and what names layers beyond."""
    for key, value in config.items():
        if isinstance(value, dict):
            fewer_layers(value, layers)
        elif key in LAYERS:
            config[key] = min(value, layers)
        elif key in ("fullatt_block_indexes", "deepstack_visual_indexes"):
            config[key] = [i for i in value if i < layers]


def write_folder(out, table, args):
    os.makedirs(out)
    if args.layers:
        fewer_layers(table["config"], args.layers)
    for name in ("config", "generation_config", "preprocessor_config", "processor_config"):
        if name in table:
            write_json(out, name + ".json", table[name])
    if "chat_template" in table:
        write_json(out, "chat_template.json", {"chat_template": table["chat_template"]})
    if args.tokenizer and "special_tokens" in table:
        with open(args.tokenizer, "rb") as source, open(os.path.join(out, "tokenizer.json"), "wb") as file:
            file.write(source.read())
    elif "special_tokens" in table:
        text = table["config"].get("text_config", {})
        n_vocab = text.get("vocab_size") or table["config"]["vocab_size"]
        write_json(out, "tokenizer.json", make_tokenizer(table["special_tokens"], n_vocab))
    write_weights(out, table, args)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("size")
    parser.add_argument("out")
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--shard-bytes", type=int, default=0)
    parser.add_argument("--tokenizer")
    args = parser.parse_args()
    here = os.path.dirname(os.path.abspath(__file__))
    path = args.size if os.path.exists(args.size) else os.path.join(here, "..", "sized", args.size + ".json")
    with open(path) as file:
        table = json.load(file)
    write_folder(args.out, table, args)
    for name, beside in table.get("beside", {}).items():
        write_folder(os.path.join(os.path.dirname(os.path.abspath(args.out)), name), beside, args)


if __name__ == "__main__":
    main()
