#!/usr/bin/env python3
"""Measures llama.cpp on the work of `itera bench model` (prefill, decode) with Mamba models, and
ggml's scan on that of `itera bench ops --op ssd_scan`.

    llama_cpp.py --llama-bench llama.cpp/build/bin/llama-bench --model mamba-130m \\
        --dtype f16,q8,q4 --threads 2 --json llama-cpp.json

Needs numpy, gguf and a build of llama.cpp (README.md). Writes the model as GGUF first: every
matrix in the dtype, as `itera bench --dtype` has it, where its rows are whole blocks.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

# This folder's modules, and never this script in place of a package of the same name.
FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [FOLDER] + [p for p in sys.path if os.path.abspath(p or ".") != FOLDER]

import gguf
import numpy as np

import itera_model
import result

KINDS = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "q8": gguf.GGMLQuantizationType.Q8_0, "q4": gguf.GGMLQuantizationType.Q4_0}
FILE_TYPES = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
              "q8": gguf.LlamaFileType.MOSTLY_Q8_0, "q4": gguf.LlamaFileType.MOSTLY_Q4_0}
# NMSE of the logits against itera's with f32 weights; for q8 and q4, in units of what itera's own
# rounding to that type gives, which depends on the model and is large for random weights.
LIMITS = {"f32": 1e-6, "f16": 1e-4, "q8": 2, "q4": 2}
# (sub-name in our files, in GGUF, whether it is a matrix of the dtype)
MIXER = [("in_proj.weight", "ssm_in.weight", True), ("conv1d.weight", "ssm_conv1d.weight", False),
         ("conv1d.bias", "ssm_conv1d.bias", False), ("x_proj.weight", "ssm_x.weight", True),
         ("dt_proj.weight", "ssm_dt.weight", True), ("dt_proj.bias", "ssm_dt.bias", False),
         ("A_log", "ssm_a", False), ("D", "ssm_d", False), ("out_proj.weight", "ssm_out.weight",
                                                            True)]


def add_matrix(writer, name, value, dtype):
    """In the dtype, or f16 where rows are not whole blocks. What itera keeps as q8 in a q4 model,
    the step, B and C, is q8 here too."""
    kind = KINDS["q8" if dtype == "q4" and name.endswith("ssm_x.weight") else dtype]
    if dtype in ("q8", "q4") and value.shape[-1] % 32:
        kind = KINDS["f16"]
    writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)


def write_gguf(model, dtype, path):
    """The model as GGUF, whole or not at all."""
    if model.family != "mamba":
        raise SystemExit(f"llama_cpp.py: {model.path} is {model.family}; llama.cpp has no such "
                         "architecture here: give a mamba model")
    t, partial = model.tensors, f"{path}.partial"
    writer = gguf.GGUFWriter(partial, "mamba")
    writer.add_name(os.path.basename(path))
    writer.add_context_length(2 ** 20)
    writer.add_embedding_length(model.hidden)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(model.layers)
    writer.add_ssm_conv_kernel(model.conv)
    writer.add_ssm_inner_size(model.inner)
    writer.add_ssm_state_size(model.state)
    writer.add_ssm_time_step_rank(model.dt_rank)
    writer.add_layer_norm_rms_eps(model.eps)
    writer.add_ssm_dt_b_c_rms(False)
    writer.add_vocab_size(model.vocab)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(FILE_TYPES[dtype])
    add_matrix(writer, "token_embd.weight", t["backbone.embeddings.weight"], dtype)
    writer.add_tensor("output_norm.weight", t["backbone.norm_f.weight"])
    if not model.tied:
        add_matrix(writer, "output.weight", t["lm_head.weight"], dtype)
    for layer in range(model.layers):
        source = f"backbone.layers.{layer}."
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", t[source + "norm.weight"])
        for ours, theirs, matrix in MIXER:
            value, name = t[f"{source}mixer.{ours}"], f"blk.{layer}.{theirs}"
            if matrix:
                add_matrix(writer, name, value, dtype)
            elif ours == "A_log":
                writer.add_tensor(name, -np.exp(value))
            elif ours == "conv1d.weight":
                writer.add_tensor(name, np.ascontiguousarray(value[:, 0]))
            else:
                writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, path)


def command(words):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"llama_cpp.py: {words[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def check_logits(model, path, dtype, args):
    """Parity of 16 positions; None without itera and llama-logits."""
    if not (args.itera and args.llama_logits):
        return None
    ids = np.random.default_rng(17).integers(0, model.vocab, 16)
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits")
        command([args.llama_logits, path, out, *ids])
        logits = np.fromfile(out, np.float32).reshape(len(ids), -1)
        reference = result.reference_logits(args.itera, model, ids)
        limit = LIMITS[dtype]
        if dtype in ("q8", "q4"):
            rounded = itera_model.Model(model.family, model.vocab, model.hidden, model.layers,
                                        path=os.path.join(folder, "rounded.safetensors"))
            command([args.itera, "quantize", model.path, "--to", dtype, "-o", rounded.path])
            own = result.reference_logits(args.itera, rounded, ids)
            limit *= result.parity(own, reference)["nmse"]
    parity = result.parity(logits, reference, limit)
    result.say(f"{path}: logits against itera in f32: NMSE {parity['nmse']:.2g}, largest error "
               f"{parity['max_abs']:.2g} (limit {limit:.2g})")
    if not parity["pass"]:
        raise SystemExit("llama_cpp.py: the logits differ: this would not be the same work")
    return parity


def run_bench(args, path, threads, prompt, generate):
    """(record of llama-bench, seconds of each repetition). Short works are repeated more often,
    so that each row takes about --seconds; llama-bench warms up by itself."""
    words = [args.llama_bench, "-m", path, "-p", prompt, "-n", generate, "-t", threads,
             "-ngl", 0, "-o", "json"]
    first = json.loads(command(words + ["-r", 1]))[0]
    each = max(min(first["samples_ns"]), 1) / 1e9
    repeats = int(min(max(args.seconds / each, 3), 2000))
    record = json.loads(command(words + ["-r", repeats]))[0]
    return record, [ns / 1e9 for ns in record["samples_ns"]]


def bench_model(model, name, dtype, threads, args, rows):
    path = os.path.join(args.models, f"{os.path.basename(name)}-{dtype}.gguf")
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(model.path):
        write_gguf(model, dtype, path)
    parity, build = check_logits(model, path, dtype, args), None
    common = {"threads": threads, "dtype": dtype, "batch": 1, "parity": parity, "memory": False}
    for tokens in args.prompt if "prefill" in args.phases else []:
        build, samples = run_bench(args, path, threads, tokens, 0)
        rows.append(result.row("prefill", name, f"1x{tokens}", samples, tokens=tokens, **common))
        result.say_row(rows[-1])
    if "decode" in args.phases:
        build, samples = run_bench(args, path, threads, 0, args.gen)
        rows.append(result.row("decode", name, "1x1", [s / args.gen for s in samples], tokens=1,
                               repeats=len(samples) * args.gen, **common))
        result.say_row(rows[-1])
    return f"{build['build_commit']} ({build['build_number']})" if build else "unknown"


def bench_scan(args, rows):
    """ggml's SSM_SCAN at the shapes of our ssd_scan rows. It reports the mean of its runs, with
    every processor as a thread."""
    text = command([args.test_backend_ops, "perf", "-o", "SSM_SCAN", "-b", "CPU", "-p",
                    "n_head=48"])
    for tokens, case in ((512, "512 tokens"), (1, "1 token")):
        shape = f"d_state=128,head_dim=64,n_head=48,n_group=1,n_seq_tokens={tokens},n_seqs=1"
        found = re.search(re.escape(shape) + r"[^)]*\): *(\d+) runs - *([0-9.]+) us/run", text)
        if not found:
            raise SystemExit(f"llama_cpp.py: {args.test_backend_ops} has no SSM_SCAN of {shape}")
        rows.append(result.row("op", "ssd_scan", f"48x64, state 128, {case}",
                               [float(found[2]) / 1e6], threads=os.cpu_count(), batch=1,
                               tokens=tokens, memory=False, repeats=int(found[1])))
        result.say_row(rows[-1])


def parse():
    split = lambda text: re.split(",", text)
    p = argparse.ArgumentParser(description="Measures llama.cpp on the work of itera bench.")
    p.add_argument("--llama-bench", metavar="PATH", help="llama.cpp's llama-bench")
    p.add_argument("--llama-logits", metavar="PATH",
                   help="llama_logits.c, built beside llama.cpp, to check the logits")
    p.add_argument("--test-backend-ops", metavar="PATH",
                   help="llama.cpp's test-backend-ops, to measure ggml's scan")
    p.add_argument("--model", type=split, default=["mamba-tiny"],
                   help="presets or files, by commas")
    p.add_argument("--models", default="models", help="folder for presets and GGUF files")
    p.add_argument("--dtype", type=split, default=["f32", "f16", "q8", "q4"], help="by commas")
    p.add_argument("--phases", type=split, default=["prefill", "decode"])
    p.add_argument("--prompt", type=result.integers, default=[512], help="lengths, by commas")
    p.add_argument("--gen", type=int, default=64, help="tokens per repetition of decode")
    p.add_argument("--threads", type=result.integers, default=[1], help="thread counts, by commas")
    p.add_argument("--seconds", type=float, default=1.0, help="for each row")
    p.add_argument("--itera", help="the itera command, to check the logits")
    p.add_argument("--json", default="-", help="result file (default: stdout)")
    args = p.parse_args()
    if not (args.llama_bench or args.test_backend_ops):
        p.error("--llama-bench PATH or --test-backend-ops PATH is needed")
    for dtype in args.dtype:
        if dtype not in KINDS:
            p.error(f"unknown dtype {dtype!r}; known are {', '.join(KINDS)}")
    return args


def main():
    args = parse()
    os.makedirs(args.models, exist_ok=True)
    notes = ["peak memory is not known: llama.cpp runs in another process"]
    if args.llama_bench and not (args.itera and args.llama_logits):
        notes.append("logits were not checked: --itera and --llama-logits were not given")
    host, rows = result.host("llama.cpp", "unknown", notes), []
    for name in args.model if args.llama_bench else []:
        model = itera_model.find(name, args.models)
        if os.path.isdir(model.path):
            model.path = os.path.join(model.path, "model.safetensors")
        for threads in args.threads:
            for dtype in args.dtype:
                host["peer"]["version"] = bench_model(model, name, dtype, threads, args, rows)
    if args.test_backend_ops:
        bench_scan(args, rows)
    result.write(args.json, host, rows, args.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
