"""Train the model of examples/models/scenes from nothing but a seed.

    train.py OUT --tokenizer FOLDER --steps 6000

Worker processes draw pictures for as long as training lasts; which pictures a
step may use depends on its number alone, so a run can be repeated.
"""

import argparse
import mmap
import multiprocessing
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import export
import pack
from model import Model, Shape

CHUNK = 256  # pictures drawn at a time
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
GROUPS = {"picture": (pack.PICTURE_FIELDS, 1), "single": (pack.SINGLE_FIELDS, 1),
          "pair": (pack.PAIR_FIELDS, 2)}  # fields, and pictures per entry


# ---- pictures, drawn by other processes ---------------------------------------------------


class Pool:
    """Pictures in memory that the drawing processes share, and their copy on the device."""

    def __init__(self, tokenizer, seed, n_chunks, n_workers, device):
        self.tokenizer, self.seed, self.device = tokenizer, seed, device
        self.n_chunks, self.n_workers = n_chunks, n_workers
        self.done = np.frombuffer(mmap.mmap(-1, n_chunks), np.uint8)
        self.arrays = {group: {name: self.share(dtype, shape, per)
                               for name, (dtype, shape) in fields.items()}
                       for group, (fields, per) in GROUPS.items()}
        self.ready = 0
        self.waited = 0.0
        self.on_device = None
        self.workers = [multiprocessing.get_context("fork").Process(
            target=self.work, args=(w,), daemon=True) for w in range(n_workers)]
        for worker in self.workers:
            worker.start()

    def share(self, dtype, shape, per):
        """Zeroed memory that forked processes write and this one reads."""
        shape = (self.n_chunks * CHUNK // per, *shape)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)

    def work(self, worker):
        """Draw every n_workers-th chunk."""
        os.nice(10)
        packer = pack.Packer(Tokenizer.from_file(self.tokenizer))
        for chunk in range(worker, self.n_chunks, self.n_workers):
            part = {group: {name: array[chunk * CHUNK // per:(chunk + 1) * CHUNK // per]
                            for name, array in self.arrays[group].items()}
                    for group, (_, per) in GROUPS.items()}
            pack.pack_chunk(packer, self.seed, chunk * CHUNK, part)
            self.done[chunk] = 1

    def reserve(self):
        """Take the device's memory; after the fork, which must come before CUDA."""
        self.on_device = {group: {
            name: torch.empty(array.shape, dtype=getattr(torch, str(array.dtype)),
                              device=self.device) for name, array in arrays.items()}
            for group, arrays in self.arrays.items()}

    def reach(self, n_chunks):
        """Copy chunks over until there are that many, waiting where they are not drawn yet."""
        while self.ready < min(n_chunks, self.n_chunks):
            start = time.time()
            while not self.done[self.ready]:
                time.sleep(0.01)
            self.waited += time.time() - start
            for group, (_, per) in GROUPS.items():
                part = slice(self.ready * CHUNK // per, (self.ready + 1) * CHUNK // per)
                for name, array in self.arrays[group].items():
                    self.on_device[group][name][part].copy_(torch.from_numpy(array[part]))
            self.ready += 1

    def batch(self, pairs, n_pair_rows):
        """What a step reads: the pictures of the pairs (indices on the device), packed rows."""
        index = torch.stack((2 * pairs, 2 * pairs + 1), 1).flatten()
        take = {"picture": index, "single": index, "pair": pairs[:n_pair_rows]}
        return {group: {name: array[take[group]] for name, array in arrays.items()}
                for group, arrays in self.on_device.items()}


# ---- the loss -----------------------------------------------------------------------------


class Trainee(torch.nn.Module):
    """The model, and linear heads that tell what each patch shows; those only help at first."""

    def __init__(self, shape):
        super().__init__()
        self.model = Model(shape)
        self.helper = torch.nn.Linear(shape.vision_width, sum(pack.N_CLASSES))
        mean = torch.tensor(MEAN).repeat_interleave(shape.patch ** 2)
        std = torch.tensor(STD).repeat_interleave(shape.patch ** 2)
        self.register_buffer("mean", mean * 255)
        self.register_buffer("scale", 1 / (std * 255))

    def look(self, picture):
        """Rows and features of a batch of pictures."""
        patches = (picture["patches"].float() - self.mean) * self.scale
        return self.model.visual(patches, picture["where"], picture["n_patches"])

    def answer(self, rows, row):
        """Logits of the chosen positions."""
        return self.model.decode(rows, row["ids"].int(), row["row_of"].long(), row["segments"],
                                 row["positions"], row["chosen"].long())

    def helper_loss(self, features, picture):
        """Cross-entropy of what each patch shows; background counts less."""
        n = torch.arange(features.shape[1], device=features.device)[None]
        there = (n < picture["n_patches"][:, None]).float()
        labels = picture["labels"].long()
        weight = there * torch.where(labels[..., 0] > 0, 1.0, 0.15)
        loss = 0.0
        for k, logits in enumerate(self.helper(features).float().split(pack.N_CLASSES, -1)):
            each = F.cross_entropy(logits.flatten(0, 1), labels[..., k].flatten(),
                                   reduction="none").view_as(weight)
            loss = loss + (each * weight).sum() / weight.sum()
        return loss

    def forward(self, batch, helper_weight):
        """The loss, then its parts: of answers, of answers to pairs, of the helper."""
        rows, features = self.look(batch["picture"])
        single = token_loss(self.answer(rows, batch["single"]), batch["single"]["targets"])
        n_pairs = batch["pair"]["ids"].shape[0]
        two = rows.unflatten(0, (-1, 2))[:n_pairs].flatten(1, 2)
        pair = token_loss(self.answer(two, batch["pair"]), batch["pair"]["targets"])
        helper = self.helper_loss(features, batch["picture"])
        loss = single + 0.1 * pair + helper_weight * helper
        return loss, torch.stack((single, pair, helper)).detach()


def token_loss(logits, targets):
    """Mean cross-entropy over the targets that are there."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.long().flatten(),
                           ignore_index=-1)


# ---- the optimizer ------------------------------------------------------------------------


def orthogonal(g):
    """Newton-Schulz: matrices [n, rows, columns] with their singular values near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    flip = x.shape[1] > x.shape[2]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if flip else x).float()


class Muon:
    """Momentum made orthogonal, for matrices inside blocks; those of one shape go together."""

    def __init__(self, weights, momentum=0.95, decay=0.05):
        self.momentum, self.decay = momentum, decay
        views = []
        for weight, pieces in weights:  # a fused q, k, v is three matrices
            views += [(weight, k, pieces) for k in range(pieces)]
        self.groups = {}
        for weight, k, pieces in views:
            shape = (weight.shape[0] // pieces, weight.shape[1])
            self.groups.setdefault(shape, []).append((weight, k, pieces))
        self.buffers = {shape: torch.zeros(len(group), *shape, device=group[0][0].device)
                        for shape, group in self.groups.items()}

    @torch.no_grad()
    def step(self, rate):
        for shape, group in self.groups.items():
            grads = torch.stack([w.grad.chunk(n)[k] for w, k, n in group])
            buffer = self.buffers[shape]
            buffer.lerp_(grads, 1 - self.momentum)
            update = orthogonal(grads.lerp(buffer, self.momentum))
            update *= -rate * max(1.0, shape[0] / shape[1]) ** 0.5
            parts = [w.detach().chunk(n)[k] for w, k, n in group]
            torch._foreach_mul_(parts, 1 - rate * self.decay)
            torch._foreach_add_(parts, list(update.unbind()))


def optimizers(trainee, rate):
    """Muon for the matrices of blocks and merger, AdamW for the rest."""
    matrices, others = [], []
    for name, weight in trainee.named_parameters():
        if weight.dim() == 2 and ("blocks" in name or "layers" in name or "merger" in name):
            matrices.append((weight, 3 if "qkv" in name else 1))
        else:
            others.append(weight)
    fused = others[0].is_cuda
    return Muon(matrices), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.95), eps=1e-10,
                                             weight_decay=0.01, fused=fused)


def schedule(step, steps):
    """Factor of the learning rates: a short rise, a plateau, a line down to nothing."""
    return min(1.0, (step + 1) / 150, (steps - step) / (0.65 * steps))


# ---- training -----------------------------------------------------------------------------


@torch.no_grad()
def accuracy(trainee, pool, size):
    """Kind to share of questions whose every token is the likeliest, over a pool."""
    right, total = {}, {}
    for first in range(0, pool.ready * CHUNK // 2, size // 2):
        pairs = torch.arange(first, first + size // 2, device=pool.device)
        batch = pool.batch(pairs, size // 2)
        rows, _ = trainee.look(batch["picture"])
        for rows, row in ((rows, batch["single"]), (rows.unflatten(0, (-1, 2)).flatten(1, 2),
                                                    batch["pair"])):
            guess = trainee.answer(rows, row).argmax(-1)
            wrong = (guess != row["targets"]) & (row["targets"] >= 0)
            count_right(wrong.cpu(), row, right, total)
    return {k: right[k] / total[k] for k in total}


def count_right(wrong, row, right, total):
    """Add a batch's questions to the counts, by kind."""
    there = (row["targets"] >= 0).cpu()
    number = torch.arange(len(wrong))[:, None] * 64 + row["question"].cpu()
    kinds = row["kind"].cpu()
    for code, name in enumerate(pack.KIND_NAMES):
        asked = number[there & (kinds == code)].unique()
        if len(asked):
            missed = number[wrong & (kinds == code)].unique()
            total[name] = total.get(name, 0) + len(asked)
            right[name] = right.get(name, 0) + len(asked) - len(missed)


def say(start, step, losses, rate, pool):
    """A line of progress."""
    single, pair, helper = losses.tolist()
    print(f"{time.time() - start:6.1f} s  step {step:5d}  answers {single:.4f}  pairs {pair:.4f}"
          f"  helper {helper:.4f}  rate {rate:.3f}  pictures {pool.ready * CHUNK}"
          f"  drawn {int(pool.done.sum()) * CHUNK}  waited {pool.waited:.1f} s", flush=True)


def train(options, shape, pool, check, device):
    """The whole run; gives the trained model."""
    torch.manual_seed(options.seed)
    trainee = Trainee(shape).to(device)
    step_of = torch.compile(trainee, dynamic=False) if options.compile else trainee
    muon, adam = optimizers(trainee, 3e-3)
    draws = np.random.default_rng(options.seed)
    grow = (pool.n_chunks - options.first_chunks) / (0.6 * options.steps)
    start = time.time()
    for step in range(options.steps):
        pool.reach(options.first_chunks + int(step * grow))
        pairs = draws.integers(0, pool.ready * CHUNK // 2, options.batch // 2)
        batch = pool.batch(torch.from_numpy(pairs).to(device), options.pairs)
        helper = torch.tensor(max(0.05, 0.5 - step / options.steps), device=device)
        with torch.autocast(device.type, torch.bfloat16):
            loss, losses = step_of(batch, helper)
        loss.backward()
        factor = schedule(step, options.steps)
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = 3e-3 * factor
        adam.step()
        muon.step(0.02 * factor)
        trainee.zero_grad(set_to_none=True)
        if step in (0, 50) or step % options.report == 0:
            say(start, step, losses, factor, pool)
        if step % options.check == options.check - 1 or step == options.steps - 1:
            with torch.autocast(device.type, torch.bfloat16):
                found = accuracy(trainee, check, options.batch)
            print("  ".join(f"{k} {100 * v:.1f}" for k, v in found.items()), flush=True)
        if options.seconds and time.time() - start > options.seconds:
            print(f"stopped after {step + 1} steps: out of time", flush=True)
            break
    return trainee.model


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="where the model goes")
    parser.add_argument("--tokenizer", required=True, help="folder made by make_tokenizer.py")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=256, help="pictures a step")
    parser.add_argument("--pairs", type=int, default=32, help="rows with two pictures a step")
    parser.add_argument("--chunks", type=int, default=1600, help=f"of {CHUNK} pictures, in all")
    parser.add_argument("--first-chunks", type=int, default=100, help="before the first step")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=int, default=250)
    parser.add_argument("--check", type=int, default=1000)
    parser.add_argument("--check-chunks", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0, help="stop then, whatever the step")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def main():
    options = parse()
    device = torch.device(options.device)
    path = os.path.join(options.tokenizer, "tokenizer.json")
    pool = Pool(path, f"training-{options.seed}", options.chunks, options.workers, device)
    check = Pool(path, "check", options.check_chunks, min(4, options.check_chunks), device)
    shape = Shape(vocab=Tokenizer.from_file(path).get_vocab_size())
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)
    pool.reserve()
    check.reserve()
    check.reach(options.check_chunks)
    model = train(options, shape, pool, check, device)
    export.write(options.folder, model, options.tokenizer)
    for worker in pool.workers:
        worker.kill()


if __name__ == "__main__":
    main()
