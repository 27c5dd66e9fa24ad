#!/usr/bin/env python3
"""Measures ONNX Runtime on the work of `itera bench model`: forward, prefill, decode, f32.

    onnx_runtime.py --model micro,tiny --threads 1 --itera build/release/itera --json ort.json

Needs onnx, onnxruntime and numpy. The graph is built here (onnx_graph.py), its logits are checked
against `itera logits`.
"""
import argparse
import os
import sys

# This folder's modules, and never this script in place of a package of the same name.
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [FOLDER] + [p for p in sys.path if os.path.abspath(p or ".") != FOLDER]

import numpy as np
import onnxruntime

import itera_model
import onnx_graph
import result


def open_session(data, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


class Decoder:
    """One token at a time with a state; greedy."""

    def __init__(self, model, batch, threads):
        self.model, self.batch = model, batch
        data, self.states = onnx_graph.build(model, batch, 1, stateful=True, last=True)
        self.session = open_session(data, threads)
        self.names = ["logits"] + [after for _, after, _ in self.states]
        self.ids = np.zeros((batch, 1), np.int64)
        self.restart()

    def restart(self):
        self.position = 0
        self.feed = {name: np.zeros([0 if d == "past" else d for d in dims], np.float32)
                     for name, _, dims in self.states}

    def step(self, ids=None):
        """Logits (batch, vocabulary) after the ids, or after what came out last."""
        if self.model.positions and self.position >= self.model.positions:
            self.restart()
        self.feed["ids"] = self.ids if ids is None else ids
        if self.model.positions:
            self.feed["position"] = np.array([self.position], np.int64)
        out = self.session.run(self.names, self.feed)
        for (name, _, _), value in zip(self.states, out[1:]):
            self.feed[name] = value
        self.position += 1
        self.ids = out[0][:, -1].argmax(-1)[:, None]
        return out[0][:, -1]


def checked(logits, model, ids, args):
    """Parity of the logits of the last positions of ids; None without itera."""
    if not args.itera:
        return None
    reference = result.reference_logits(args.itera, model, ids)
    parity = result.parity(logits, reference[-len(logits):])
    result.say(f"{model.path}: logits of {len(logits)} positions against itera: NMSE "
               f"{parity['nmse']:.2g}, largest error {parity['max_abs']:.2g}")
    if not parity["pass"]:
        raise SystemExit("onnx_runtime.py: the logits differ: this would not be the same work")
    return parity


def bench_reading(model, name, threads, args, rows):
    rng = np.random.default_rng(args.seed)
    for tokens in args.prompt:
        if model.positions and tokens > model.positions:
            result.say(f"{name} has {model.positions} positions: no row for {tokens} tokens")
            continue
        ids = rng.integers(0, model.vocab, (args.batch, tokens))
        for phase, last in (("forward", False), ("prefill", True)):
            if phase not in args.phases:
                continue
            data, _ = onnx_graph.build(model, args.batch, tokens, last=last)
            session = open_session(data, threads)
            got = session.run(["logits"], {"ids": ids})[0][0]
            parity = checked(got, model, ids[0], args)
            samples = result.time_runs(lambda: session.run(["logits"], {"ids": ids}), args.seconds)
            rows.append(result.row(phase, name, f"{args.batch}x{tokens}", samples,
                                   threads=threads, batch=args.batch, tokens=args.batch * tokens,
                                   parity=parity))
            result.say_row(rows[-1])


def bench_decode(model, name, threads, args, rows):
    decoder = Decoder(model, args.batch, threads)
    ids = np.random.default_rng(args.seed).integers(0, model.vocab, 8)
    logits = [decoder.step(np.full((args.batch, 1), i, np.int64))[0] for i in ids]
    parity = checked(logits, model, ids, args)
    samples = result.time_runs(decoder.step, args.seconds)
    rows.append(result.row("decode", name, f"{args.batch}x1", samples, threads=threads,
                           batch=args.batch, tokens=args.batch, parity=parity))
    result.say_row(rows[-1])


def main():
    p = argparse.ArgumentParser(description="Measures ONNX Runtime on the work of itera bench.")
    p.add_argument("--model", default="micro", help="presets or files, by commas")
    p.add_argument("--models", default="models", help="folder for the presets' files")
    p.add_argument("--phases", default="forward,prefill,decode")
    p.add_argument("--prompt", type=result.integers, default=[128], help="lengths, by commas")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--threads", type=result.integers, default=[1], help="thread counts, by commas")
    p.add_argument("--seconds", type=float, default=1.0, help="for each row")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--itera", help="the itera command, to check the logits")
    p.add_argument("--json", default="-", help="result file (default: stdout)")
    args = p.parse_args()
    args.phases = args.phases.split(",")
    unknown = set(args.phases) - {"forward", "prefill", "decode"}
    if unknown:
        p.error(f"unknown phase {sorted(unknown)[0]!r}")
    notes = [] if args.itera else ["logits were not checked: no --itera was given"]
    host, rows = result.host("ONNX Runtime", onnxruntime.__version__, notes), []
    for name in args.model.split(","):
        model = itera_model.find(name, args.models)
        for threads in args.threads:
            bench_reading(model, name, threads, args, rows)
            if "decode" in args.phases:
                bench_decode(model, name, threads, args, rows)
    result.write(args.json, host, rows, args.seconds, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
