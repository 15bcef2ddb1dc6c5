"""Compare the training model's logits with transformers' on an exported folder.

    check_export.py TOKENIZER

Random weights; every question of one packed picture and of one packed pair must
give the logits that transformers computes for it alone. Prints the largest
difference and fails above 1e-3.
"""

import argparse
import io
import random
import tempfile

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer

import answer
import export
import pack
from model import Shape
from scenes import make_scene
from train import GROUPS, Trainee


def packed(tokenizer, seed, n):
    """Arrays of n pictures, as training has them."""
    arrays = {group: {name: np.zeros((n // per, *shape), dtype)
                      for name, (dtype, shape) in fields.items()}
              for group, (fields, per) in GROUPS.items()}
    pack.pack_chunk(pack.Packer(tokenizer), seed, 0, arrays)
    return {group: {name: torch.from_numpy(array) for name, array in fields.items()}
            for group, fields in arrays.items()}


def differences(processor, hub, pictures, asked, logits, row):
    """For each question of a packed row, the largest difference of its logits."""
    for number, (kind, question, truth) in enumerate(asked, 1):
        mine = logits[(row["question"] == number) & (row["targets"] >= 0)]
        if not len(mine):
            continue
        entry = {"images": pictures, "question": question}
        text = answer.prompt(processor, entry) + truth
        inputs = processor(text=[text], images=pictures, return_tensors="pt")
        theirs = hub(**inputs).logits[0, -len(mine):]
        yield kind, (mine - theirs).abs().max().item()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", help="folder made by make_tokenizer.py")
    folder = parser.parse_args().tokenizer
    tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
    torch.manual_seed(1)
    trainee = Trainee(Shape(vocab=tokenizer.get_vocab_size()))
    for weight in trainee.parameters():  # gains and biases too; exact in bf16
        weight.add_(0.05 * torch.randn_like(weight)).copy_(weight.bfloat16())
    batch = packed(tokenizer, "export", 2)
    scenes, files = zip(*(make_scene(f"export:{k}") for k in range(2)))
    pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    rngs = [random.Random(f"export:{k}:questions") for k in range(2)]
    asked = [pack.asked_of(scene, rng) for scene, rng in zip(scenes, rngs)]
    rows, _ = trainee.look(batch["picture"])
    logits = trainee.answer(rows, batch["single"])
    two = trainee.answer(rows.flatten(0, 1)[None], batch["pair"])[0]
    with tempfile.TemporaryDirectory() as made:
        export.write(made, trainee.model, folder)
        processor, hub = answer.load(made, "cpu")
    found = []
    for k in range(2):
        row = {name: values[k] for name, values in batch["single"].items()}
        found += differences(processor, hub, pictures[k:k + 1], asked[k], logits[k], row)
    row = {name: values[0] for name, values in batch["pair"].items()}
    found += differences(processor, hub, pictures, pack.asked_of_two(scenes, rngs[1]), two, row)
    print("\n".join(f"{kind}: {most:.2e}" for kind, most in found))
    print(f"scale of the logits {logits.std():.2f}")
    assert max(most for _, most in found) < 1e-3


if __name__ == "__main__":
    main()
