#!/usr/bin/env python3
"""Checkpoints of real size: does the library count what they hold, and keep the memory it names?

  sized_check.py BUILD SHARED [SIZE...]      (make sized-check)

Of every table in test/sized a checkpoint of holes is made under build/sized and mmq-inspect must
print the parameters that the family's own class has. Then qwen2-vl-2b is written with random
weights and describes a photograph, packed as nf4 while it is loaded, under a limit of 3 GB: the
library's count must be its estimate, and the process must take that within 2 %. One checkpoint is
on the disk at a time. A family that this build does not run is told, and no fault. Needs
Python's own library alone.
"""
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(HERE, "..", "..", "build", "sized")
LIMIT = 3_000_000_000
CONTEXT, ANSWER = 1088, 16


def tables():
    folder = os.path.join(HERE, "..", "sized")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            with open(os.path.join(folder, name)) as file:
                yield json.load(file)


def make(size, *options):
    """The checkpoint's folder, new; the seconds that it took."""
    out, begin = os.path.join(WORK, size, "model"), time.monotonic()
    shutil.rmtree(os.path.dirname(out), ignore_errors=True)
    os.makedirs(os.path.dirname(out))
    subprocess.run([sys.executable, os.path.join(HERE, "make_sized_checkpoint.py"), size, out, *options], check=True)
    return out, time.monotonic() - begin


def bytes_of(folder):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def check_count(build, table):
    """None where the family is not run, else whether the count is right."""
    size = table["size"]
    out, _ = make(size, "--sparse")
    begin = time.monotonic()
    run = subprocess.run([f"{build}/examples/mmq-inspect", out, "--json"], capture_output=True, text=True)
    seconds, stored = time.monotonic() - begin, bytes_of(os.path.dirname(out))
    shutil.rmtree(os.path.dirname(out))
    if run.returncode != 0:
        told = run.stderr.strip().splitlines()[-1:] or ["nothing"]
        told = told[0].replace(out, "model")
        missing = "no family of this build runs" in told
        print(f"{size:22} {'not run by this build' if missing else 'FAIL'}: {told}", flush=True)
        return None if missing else False
    found = json.loads(run.stdout)
    good = found["parameters"] == table["parameters"]
    print(f"{size:22} {found['family']:11} {found['parameters']:>14,} parameters in {stored / 1e9:5.2f} GB, "
          f"{'as its class has' if good else 'FAIL: its class has %d' % table['parameters']}; {seconds:.2f} s", flush=True)
    return good


def unpack_tokenizer(shared, name):
    """The real tokenizer, or None."""
    packed, member = os.path.join(shared, "data", "tokenizers.tar.xz"), f"tokenizers/{name}/tokenizer.json"
    if not os.path.exists(packed):
        return None
    path = os.path.join(WORK, name + ".json")
    with tarfile.open(packed) as archive, open(path, "wb") as file:
        shutil.copyfileobj(archive.extractfile(member), file)
    return path


def check_describe(build, shared):
    photo = os.path.join(shared, "data", "photos", "black-canyon.jpg")
    if not os.path.exists(photo):
        print(f"SKIPPED: {photo} is absent")
        return True
    tokenizer = unpack_tokenizer(shared, "qwen2_5")
    out, seconds = make("qwen2-vl-2b", *(["--tokenizer", tokenizer] if tokenizer else []))
    print(f"\nqwen2-vl-2b: {bytes_of(out):,} bytes written in {seconds:.0f} s", flush=True)
    command = [f"{build}/examples/mmq-describe", out, photo, "--quantize", "nf4", "--memory-limit", str(LIMIT),
               "--context", str(CONTEXT), "--max-tokens", str(ANSWER), "--device", "cpu", "--json", "--memory"]
    begin = time.monotonic()
    run = subprocess.run(command, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    shutil.rmtree(os.path.dirname(out))
    sys.stdout.write(run.stderr.replace(out, "model"))
    if run.returncode != 0:
        print(f"FAIL: mmq-describe ended with {run.returncode}")
        return False
    told = json.loads(run.stdout)
    memory = told["memory"]
    took = memory["process_peak"] - memory["process_before"]
    away = 100 * (took - memory["estimate"]) / memory["estimate"]
    print(f"{told['prompt_tokens']} tokens in, {len(told['ids'])} out, {seconds:.0f} s; under {LIMIT:,}: estimate "
          f"{memory['estimate']:,}, counted {memory['taken']:,}, process {took:,} ({away:+.2f} %, all of it)")
    good = memory["taken"] == memory["estimate"] <= LIMIT and took <= LIMIT and abs(away) <= 2 and len(told["ids"]) > 0
    print("the limit is kept and the estimate within 2 %" if good else "FAIL", flush=True)
    return good


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    build, shared, wanted = sys.argv[1], sys.argv[2], sys.argv[3:]
    results = [check_count(build, table) for table in tables() if not wanted or table["size"] in wanted]
    print(f"{results.count(True)} counts right, {results.count(False)} wrong, {results.count(None)} not run")
    good = False not in results
    if not wanted or "describe" in wanted:
        good = check_describe(build, shared) and good
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
