#!/usr/bin/env python3
"""Write test/unit/data/torch_*: what torch.save makes of small dicts of tensors.

test/unit/test_torch.c reads them. Needs torch; every tensor counts upwards from a number of its own, so that the test
knows what is in it.
"""

import argparse
import collections
import pathlib

import torch

DTYPES = {
    "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "f64": torch.float64, "i8": torch.int8,
    "u8": torch.uint8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "bool": torch.bool,
}


def count(start, *shape, dtype=torch.float32):
    n = 1
    for dim in shape:
        n *= dim
    return torch.arange(start, start + n).reshape(shape).to(dtype)


def dtypes():
    return {f"t.{name}": count(1, 2, 3, dtype=dtype) for name, dtype in DTYPES.items()}


def views():
    whole = count(0, 4, 5)
    return collections.OrderedDict([
        ("whole", whole), ("tied", whole), ("rows", whole[1:3]), ("row", whole[3]), ("element", whole[2, 2]),
        ("one_wide", whole[:, 2:3][1:2]), ("empty", whole[2:2]), ("none", torch.empty(3, 0, 2)),
    ])


def module():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for i, value in enumerate(net.state_dict().values()):
            value.copy_(count(10 * i, *value.shape, dtype=value.dtype))
    return net


def nested(net):
    return {
        "epoch": 3, "lr": 0.5, "note": "naïve", "big": 1 << 70, "negative": -7, "flags": [True, None, (1, "x")],
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
        "shape": torch.Size([2, 3]), "module": {"state_dict": net.state_dict(), "kept": False},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parents[1] / "unit" / "data")
    folder = parser.parse_args().folder
    net = module()
    torch.save(dtypes(), folder / "torch_dtypes.bin")
    torch.save(views(), folder / "torch_views.bin")
    torch.save(net.state_dict(), folder / "torch_module.pth")
    torch.save(nested(net), folder / "torch_nested.pt")
    torch.save({"p": torch.nn.Parameter(count(5, 2, 2))}, folder / "torch_parameter.pt")
    torch.save(nested(net), folder / "torch_protocol4.pt", pickle_protocol=4)
    torch.save({"straight": count(0, 2, 3), "turned": count(0, 2, 3).t()}, folder / "torch_turned.bin")
    torch.save({"w": count(0, 3)}, folder / "torch_legacy.bin", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), folder / "torch_code.bin")
    torch.save({"w": count(0, 2, dtype=torch.complex64)}, folder / "torch_complex.bin")


if __name__ == "__main__":
    main()
