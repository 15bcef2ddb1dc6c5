"""Answer a data folder's questions with transformers, greedily, and score the answers.

    answer.py MODEL DATA [--grey] [--table] [--device cuda] [--out answers.jsonl]

Exact match of the answers; "describe" is scored by the F1 of the items it lists.
"""

import argparse
import json
import os
from collections import Counter

import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


def f1(truth, answer):
    """Of two lists joined by ", ", as multisets; 1 where both are empty."""
    truth, answer = (Counter(item for item in text.split(", ") if item) for text in (truth, answer))
    if not truth and not answer:
        return 1.0
    return 2 * (truth & answer).total() / (truth.total() + answer.total())


def score(entry, answer):
    """0 to 1."""
    truth, answer = entry["answer"].strip(" \t\r\n\v\f"), answer.strip(" \t\r\n\v\f")
    return f1(truth, answer) if entry["kind"] == "describe" else float(truth == answer)


def load(folder, device):
    """Processor and model. Float32 arithmetic on the weights as stored; Pillow resizes."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.image_processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return processor, model.to(device).eval()


def picture(folder, name, grey):
    """The picture, or a grey one of its size."""
    with Image.open(os.path.join(folder, name)) as image:
        return Image.new("RGB", image.size, (128, 128, 128)) if grey else image.convert("RGB")


def prompt(processor, entry):
    """The chat of one question, its pictures first."""
    content = [{"type": "image"} for _ in entry["images"]]
    content.append({"type": "text", "text": entry["question"]})
    return processor.apply_chat_template([{"role": "user", "content": content}],
                                         add_generation_prompt=True)


@torch.no_grad()
def answer_some(processor, model, folder, entries, grey):
    """The answers to a batch."""
    texts = [prompt(processor, entry) for entry in entries]
    images = [picture(folder, name, grey) for entry in entries for name in entry["images"]]
    inputs = processor(text=texts, images=images, padding=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    made = model.generate(**inputs, do_sample=False, max_new_tokens=64)
    made = made[:, inputs["input_ids"].shape[1]:]
    return processor.tokenizer.batch_decode(made, skip_special_tokens=True)


def answer_all(processor, model, folder, entries, grey, batch):
    """The answers in order; long ones are made together."""
    order = sorted(range(len(entries)), key=lambda k: (entries[k]["kind"] == "describe",
                                                       len(entries[k]["images"])))
    answers = [""] * len(entries)
    for first in range(0, len(order), batch):
        some = order[first:first + batch]
        found = answer_some(processor, model, folder, [entries[k] for k in some], grey)
        for k, text in zip(some, found):
            answers[k] = text
    return answers


def by_kind(entries, answers):
    """Kind to (questions, mean score); "all" last."""
    scores = {}
    for entry, answer in zip(entries, answers):
        for kind in (entry["kind"], "all"):
            scores.setdefault(kind, []).append(score(entry, answer))
    scores["all"] = scores.pop("all")
    return {kind: (len(values), sum(values) / len(values)) for kind, values in scores.items()}


def print_table(columns):
    """Markdown: a row for each kind, a column for each (title, by_kind result)."""
    print("| kind | questions | " + " | ".join(title for title, _ in columns) + " |")
    print("|---|---:|" + "---:|" * len(columns))
    first = columns[0][1]
    for kind in [*sorted(k for k in first if k != "all"), "all"]:
        cells = " | ".join(f"{100 * result[kind][1]:.1f} %" for _, result in columns)
        print(f"| {kind} | {first[kind][0]} | {cells} |")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data", help="folder with questions.jsonl")
    parser.add_argument("--grey", action="store_true", help="show grey pictures instead")
    parser.add_argument("--table", action="store_true", help="both, as a table in Markdown")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--limit", type=int, help="only the first questions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="write answers there, one JSON object a line")
    return parser.parse_args()


def main():
    options = parse()
    with open(os.path.join(options.data, "questions.jsonl"), encoding="utf-8") as file:
        entries = [json.loads(line) for line in file][:options.limit]
    processor, model = load(options.model, options.device)
    columns = []
    for grey in (False, True) if options.table else (options.grey,):
        answers = answer_all(processor, model, options.data, entries, grey, options.batch)
        columns.append(("grey picture" if grey else "score", by_kind(entries, answers)))
        if options.out and not (grey and options.table):
            with open(options.out, "w", encoding="utf-8") as file:
                for entry, answer in zip(entries, answers):
                    file.write(json.dumps(entry | {"given": answer}, ensure_ascii=False) + "\n")
    print_table(columns)


if __name__ == "__main__":
    main()
