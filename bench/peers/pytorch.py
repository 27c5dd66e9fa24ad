#!/usr/bin/env python3
"""Measures PyTorch on the work of `itera bench model` and `itera bench train`.

    pytorch.py --model micro,tiny --threads 1 --itera build/release/itera --json pytorch.json

Needs torch and numpy. A model is a preset (made with random weights in --models) or a model file.
Its logits are checked against `itera logits` and the error is in every row of inference.
"""
import argparse
import os
import sys

# This folder's modules, and never this script in place of a package of the same name.
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [FOLDER] + [p for p in sys.path if os.path.abspath(p or ".") != FOLDER]

import numpy as np
import torch

import itera_model
import result
from pytorch_models import Network


def check_logits(network, model, args, tokens):
    """Parity of `tokens` positions, also step by step with the state; None without itera."""
    if not args.itera:
        return None
    ids = np.random.default_rng(17).integers(0, model.vocab, tokens)
    with torch.inference_mode():
        logits = network(torch.tensor(ids)[None])[0][0].numpy()
        few, state, steps = min(tokens, 8), None, []
        for i in range(few):
            step, state = network(torch.tensor(ids[None, i:i + 1]), state, i)
            steps.append(step[0, 0].numpy())
    reference = result.reference_logits(args.itera, model, ids)
    whole, stepped = result.parity(logits, reference), result.parity(steps, reference[:few])
    result.say(f"{model.path}: logits of {tokens} tokens against itera: NMSE {whole['nmse']:.2g}, "
               f"largest error {whole['max_abs']:.2g}; one by one {stepped['nmse']:.2g}")
    if not (whole["pass"] and stepped["pass"]):
        raise SystemExit("pytorch.py: the logits differ: this would not be the same work")
    return whole


def bench_inference(network, run, model, name, threads, args, rows):
    network.eval()
    for tokens in args.prompt:
        if model.positions and tokens > model.positions:
            result.say(f"{name} has {model.positions} positions: no row for {tokens} tokens")
            continue
        parity = check_logits(network, model, args, tokens)
        ids = torch.randint(0, model.vocab, (args.batch, tokens))
        for phase, last in (("forward", False), ("prefill", True)):
            if phase in args.phases:
                with torch.inference_mode():
                    samples = result.time_runs(lambda: run(ids, None, 0, last), args.seconds)
                add(rows, phase, name, f"{args.batch}x{tokens}", samples, threads, args.batch,
                    args.batch * tokens, parity)
    if "decode" in args.phases:
        parity = check_logits(network, model, args, 16)
        bench_decode(run, model, name, threads, args, parity, rows)


def bench_decode(run, model, name, threads, args, parity, rows):
    """Greedy, each token fed back, from one token on and again where the positions end."""
    place = {"position": 0, "state": None, "ids": torch.zeros(args.batch, 1, dtype=torch.long)}

    def step():
        if model.positions and place["position"] >= model.positions:
            place["position"], place["state"] = 0, None
        logits, place["state"] = run(place["ids"], place["state"], place["position"], True)
        place["ids"] = logits[:, -1].argmax(-1, keepdim=True)
        place["position"] += 1

    with torch.inference_mode():
        samples = result.time_runs(step, args.seconds)
    add(rows, "decode", name, f"{args.batch}x1", samples, threads, args.batch, args.batch, parity)


def bench_train(network, model, name, threads, args, rows):
    """A step as itera's: forward with dropout, losses, gradients, clip at 1, AdamW."""
    network.train()
    loss_of = torch.compile(network.loss) if args.compile else network.loss
    matrices = [p for p in network.parameters() if p.dim() > 1]
    vectors = [p for p in network.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                                   {"params": vectors, "weight_decay": 0.0}], lr=1e-4,
                                  betas=(0.9, 0.95), eps=1e-8, fused=True)
    shape = (args.train_batch, args.train_seq)
    ids, targets = (torch.randint(0, model.vocab, shape) for _ in range(2))

    def step():
        optimizer.zero_grad()
        loss_of(ids, targets).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    samples = result.time_runs(step, args.seconds)
    add(rows, "train", name, f"{shape[0]}x{shape[1]}", samples, threads, shape[0],
        shape[0] * shape[1], None)


def add(rows, phase, name, case, samples, threads, batch, tokens, parity):
    rows.append(result.row(phase, name, case, samples, threads=threads, batch=batch,
                           tokens=tokens, parity=parity))
    result.say_row(rows[-1])


def check_expected(folder, args):
    """Logits, loss and gradients of a model with an expected.safetensors beside it."""
    model = itera_model.load(folder)
    expected, _ = itera_model.read_safetensors(os.path.join(folder, "expected.safetensors"))
    model.dropout = 0.0
    network = Network(model, args.scan, args.experts).train()
    ids = torch.tensor(expected["input_ids"], dtype=torch.long)
    targets = torch.full_like(ids, -100)  # of the last position there is none
    targets[:, :-1] = ids[:, 1:]
    loss = network.loss(ids, targets)
    loss.backward()
    worst = 0.0
    for name, want in expected.items():
        if name.startswith("grad."):
            got = network.gradient(name[5:])
            worst = max(worst, result.parity(got, want)["nmse"])
    with torch.no_grad():
        logits = result.parity(network(ids)[0].numpy(), expected["logits"])
    error = abs(loss.item() - float(expected["loss"].ravel()[0]))
    print(f"{folder}: logits NMSE {logits['nmse']:.2g}, loss off by {error:.2g}, "
          f"worst gradient NMSE {worst:.2g}")
    return logits["pass"] and error < 1e-5 and worst < 1e-9


def parse():
    p = argparse.ArgumentParser(description="Measures PyTorch on the work of itera bench.")
    p.add_argument("--model", default="micro", help="presets or files, by commas")
    p.add_argument("--models", default="models", help="folder for the presets' files")
    p.add_argument("--phases", default="forward,prefill,decode,train")
    p.add_argument("--prompt", type=result.integers, default=[128], help="lengths, by commas")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--train-batch", type=int, default=8)
    p.add_argument("--train-seq", type=int, default=128)
    p.add_argument("--threads", type=result.integers, default=[1], help="thread counts, by commas")
    p.add_argument("--seconds", type=float, default=1.0, help="for each row")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--scan", choices=["matrix", "loop"], default="matrix",
                   help="of itera: one product (fast), or step by step")
    p.add_argument("--experts", choices=["all", "chosen"], default="all")
    p.add_argument("--compile", action="store_true", help="torch.compile, which needs a compiler")
    p.add_argument("--itera", help="the itera command, to check the logits")
    p.add_argument("--expected", metavar="DIR", help="only check a model against its "
                   "expected.safetensors: logits, loss, gradients")
    p.add_argument("--json", default="-", help="result file (default: stdout)")
    args = p.parse_args()
    args.phases = args.phases.split(",")
    unknown = set(args.phases) - {"forward", "prefill", "decode", "train"}
    if unknown:
        p.error(f"unknown phase {sorted(unknown)[0]!r}")
    return args


def main():
    args = parse()
    torch.manual_seed(args.seed)
    if args.expected:
        return 0 if check_expected(args.expected, args) else 1
    notes = [f"PyTorch {'compiled' if args.compile else 'eager'}, scan as a {args.scan}, "
             f"experts: {args.experts}"]
    if not args.itera:
        notes.append("logits were not checked: no --itera was given")
    variant = ", compiled" * args.compile + ", loop" * (args.scan == "loop")
    host, rows = result.host("PyTorch" + variant, torch.__version__, notes), []
    for name in args.model.split(","):
        model = itera_model.find(name, args.models)
        for threads in args.threads:
            torch.set_num_threads(threads)
            network = Network(model, args.scan, args.experts)
            run = torch.compile(network) if args.compile else network
            if set(args.phases) - {"train"}:
                bench_inference(network, run, model, name, threads, args, rows)
            if "train" in args.phases:
                bench_train(network, model, name, threads, args, rows)
    result.write(args.json, host, rows, args.seconds, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
