"""Spread the channels of a model folder over powers of two; it computes the same as before.

    spread.py MODEL OUT [--seed 1] [--most 2]

The gains of every norm are multiplied by powers of two and the columns that read
those channels divided by them, and likewise the rows of `up` and the columns of
`down`. Powers of two are exact in bf16, so answers stay as they were; but rows now
mix large and small weights, as large models' rows do, whose few strong channels
are what four bits are too coarse for.
"""

import argparse
import os
import shutil

import torch
from safetensors.torch import load_file, save_file


class Spreader:
    """Draws factors and applies them to weights, a dict of tensors, in place."""

    def __init__(self, weights, seed, most):
        self.weights, self.most = weights, most
        self.generator = torch.Generator().manual_seed(seed)

    def factors(self, n):
        """n powers of two, 2 ** -most to 2 ** most, the middle ones likelier."""
        k = torch.randn(n, generator=self.generator) * self.most / 2
        return torch.exp2(k.round().clamp(-self.most, self.most))

    def norm(self, name, readers, repeat=1):
        """Scale what a norm gives out; `readers` see its channels `repeat` times over."""
        factor = self.factors(len(self.weights[name + ".weight"]))
        for end in (".weight", ".bias"):
            if name + end in self.weights:
                self.weights[name + end] *= factor
        for reader in readers:
            self.weights[reader + ".weight"] /= factor.repeat(repeat)

    def rows(self, writer, reader):
        """Scale the rows of a linear without bias; `reader` takes its output."""
        factor = self.factors(len(self.weights[writer + ".weight"]))
        self.weights[writer + ".weight"] *= factor[:, None]
        self.weights[reader + ".weight"] /= factor

    def block(self, name):
        """A block of the tower."""
        self.norm(name + ".norm1", [name + ".attn.qkv"])
        self.norm(name + ".norm2", [name + ".mlp.fc1"])

    def layer(self, name):
        """A layer of the decoder."""
        self.norm(name + ".input_layernorm", [f"{name}.self_attn.{k}_proj" for k in "qkv"])
        self.norm(name + ".post_attention_layernorm",
                  [f"{name}.mlp.{k}_proj" for k in ("gate", "up")])
        self.rows(name + ".mlp.up_proj", name + ".mlp.down_proj")


def spread(weights, seed, most):
    """Tower, merger and decoder, in place."""
    spreader = Spreader(weights, seed, most)
    numbers = sorted({int(name.split(".")[2]) for name in weights if ".blocks." in name})
    for number in numbers:
        spreader.block(f"visual.blocks.{number}")
    spreader.norm("visual.merger.ln_q", ["visual.merger.mlp.0"], 4)
    numbers = sorted({int(name.split(".")[2]) for name in weights if ".layers." in name})
    for number in numbers:
        spreader.layer(f"model.layers.{number}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=int, default=2)
    options = parser.parse_args()
    shutil.copytree(options.model, options.out, dirs_exist_ok=True)
    weights = load_file(os.path.join(options.model, "model.safetensors"))
    spread(weights, options.seed, options.most)
    weights = {name: weight.to(torch.bfloat16) for name, weight in weights.items()}
    save_file(weights, os.path.join(options.out, "model.safetensors"), {"format": "pt"})


if __name__ == "__main__":
    main()
