"""Write a data folder: pictures and questions.jsonl, from a seed.

    make_data.py OUT --seed heldout-1 --questions 2000      the held-out set
    make_data.py OUT --seed heldout-1 --pictures 60         its first pictures

Prints the sha256 of what it made. The pictures depend on the renderer of fonts
and the encoder, so another version of Pillow may give another sum.
"""

import argparse
import hashlib
import json
import os
import random

import questions
from scenes import make_scene

PER_PICTURE = 3  # questions asked of a picture, at most
PAIR_EVERY = 4  # a question about two pictures after that many pictures


def questions_of(seed, index, scene, name):
    """Up to PER_PICTURE questions of different kinds about one picture."""
    rng = random.Random(f"{seed}:{index}:questions")
    kinds, asked = list(questions.KINDS), []
    for _ in range(12):
        found = questions.ask(scene, rng, kinds)
        if found:
            kinds.remove(found[0])
            asked.append({"images": [name], "question": found[1], "answer": found[2],
                          "kind": found[0]})
        if len(asked) == PER_PICTURE:
            break
    return asked


def question_of_two(seed, index, scenes, names):
    """One question about the last two pictures, in a list; empty where there is none."""
    found = questions.ask_two(scenes, random.Random(f"{seed}:{index}:pair"))
    if not found:
        return []
    return [{"images": names, "question": found[0], "answer": found[1],
             "kind": questions.TWO_PICTURES}]


def make(seed, n_questions, n_pictures):
    """Yields (name, bytes of the picture, questions asked once this picture is there)."""
    asked, before = 0, None
    for index in range(n_pictures):
        name = f"{index:04d}.jpg"
        scene, picture = make_scene(f"{seed}:{index}")
        found = questions_of(seed, index, scene, name)
        if before and index % PAIR_EVERY == 1:
            found += question_of_two(seed, index, (before[0], scene), [before[1], name])
        found = found[:n_questions - asked]
        asked += len(found)
        yield name, picture, found
        if asked == n_questions:
            return
        before = scene, name


def write(folder, seed, n_questions, n_pictures):
    """Write the folder; gives (pictures, questions, sha256 over files in their order)."""
    os.makedirs(folder, exist_ok=True)
    digest, lines, count = hashlib.sha256(), [], 0
    for name, picture, found in make(seed, n_questions, n_pictures):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(picture)
        digest.update(picture)
        lines += [json.dumps(entry, ensure_ascii=False) + "\n" for entry in found]
        count += 1
    text = "".join(lines).encode()
    digest.update(text)
    with open(os.path.join(folder, "questions.jsonl"), "wb") as file:
        file.write(text)
    return count, len(lines), digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seed", default="heldout-1")
    parser.add_argument("--questions", type=int, default=10**9)
    parser.add_argument("--pictures", type=int, default=10**9)
    options = parser.parse_args()
    if options.questions == options.pictures:
        parser.error("give --questions or --pictures")
    made = write(options.folder, options.seed, options.questions, options.pictures)
    print("%d pictures, %d questions, sha256 %s" % made)


if __name__ == "__main__":
    main()
