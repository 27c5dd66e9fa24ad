#!/usr/bin/env python3
"""Checks these scripts against an itera command: selftest.py ITERA [FIXTURES].

With numpy alone: models made here load there with as many parameters, and result files are valid.
With torch or onnxruntime: their logits, and with FIXTURES PyTorch's gradients, are right. Exit
status 77 without numpy.
"""
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)
sys.dont_write_bytecode = True

if not importlib.util.find_spec("numpy"):
    print("skipped: no numpy")
    sys.exit(77)

import itera_model
import result

FAMILIES = ("micro", "transformer-micro", "mamba-tiny", "itera-m-micro")


def has(*modules):
    return all(importlib.util.find_spec(name) for name in modules)


def run(*words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"FAIL: {' '.join(map(str, words))}\n{done.stdout}{done.stderr}")
    return done.stdout


def check_models(itera, folder):
    for name in FAMILIES:
        model = itera_model.find(name, folder)
        info = json.loads(run(itera, "info", model.path, "--json"))
        assert info["parameters"] == model.parameters(), (name, info["parameters"])
        assert itera_model.load(model.path).tensors.keys() == model.tensors.keys()
        logits = result.reference_logits(itera, model, [1, 2, 3])
        assert logits.shape == (3, model.vocab)


def check_statistics():
    assert result.median_interval([3.0]) == (None, None)
    assert result.median_interval([6, 1, 2, 3, 4, 5]) == (1, 6)
    # The 40th and the 61st of a hundred (Conover 1999, table A3).
    assert result.median_interval(range(1, 101)) == (40, 61)
    ms = result.latency([0.001] * 99 + [0.002])
    assert (ms["p50"], ms["best"], ms["p99"]) == (1.0, 1.0, 1.0)
    assert not result.stability({"p50": 1.0, "low": 0.9, "high": 1.2})["stable"]


def check_file(itera, folder):
    path = os.path.join(folder, "peer.json")
    row = result.row("decode", "micro", "1x1", [0.001, 0.0011, 0.0012], threads=1, batch=1,
                     tokens=1, parity=result.parity([[1.0, 2.0]], [[1.0, 2.0]]))
    result.write(path, result.host("a peer", "1.0"), [row], 0.1)
    run(itera, "compare", "--check", path)
    with contextlib.suppress(ValueError):
        result.write_json(path, {"not finite": float("nan")})
        raise SystemExit("FAIL: NaN was written")
    run(itera, "compare", "--check", path)  # the file is as it was


def check_peer(script, itera, folder, phases):
    out = os.path.join(folder, "out.json")
    run(sys.executable, os.path.join(FOLDER, script), "--model", ",".join(FAMILIES), "--models",
        folder, "--phases", phases, "--prompt", "20", "--seconds", "0.01", "--itera", itera,
        "--json", out)
    run(itera, "compare", "--check", out)
    with open(out, encoding="utf-8") as file:
        rows = json.load(file)["runs"]
    assert len(rows) == len(FAMILIES) * len(phases.split(","))
    assert all(r["parity"]["pass"] for r in rows)


def main():
    if len(sys.argv) < 2:
        print("usage: selftest.py ITERA [FIXTURES]", file=sys.stderr)
        return 2
    itera, fixtures = os.path.abspath(sys.argv[1]), sys.argv[2:]
    with tempfile.TemporaryDirectory() as folder:
        check_models(itera, folder)
        check_statistics()
        check_file(itera, folder)
        if has("torch"):
            check_peer("pytorch.py", itera, folder, "forward,decode")
        if has("onnx", "onnxruntime"):
            check_peer("onnx_runtime.py", itera, folder, "forward,prefill,decode")
    for base in fixtures if has("torch") else []:
        for name in sorted(os.listdir(base)):
            if os.path.exists(os.path.join(base, name, "expected.safetensors")):
                run(sys.executable, os.path.join(FOLDER, "pytorch.py"), "--expected",
                    os.path.join(base, name))
    found = [m for m in ("torch", "onnxruntime") if has(m)]
    print(f"models, statistics and files: right; peers: {', '.join(found) or 'none installed'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
