"""What the peers' scripts share: timing, statistics, the machine, and the result file.

The file has the shape that `itera bench --json` writes (schema "itera-bench/1"), so that
`itera compare` puts both side by side; host.peer names the peer where itera's has host.itera.
"""
import datetime
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

import itera_model

SCHEMA = "itera-bench/1"
MIN_RUNS, MAX_RUNS = 5, 20000
WIDEST = 0.10  # of the median: an interval wider than this is called unstable
PARITY_LIMIT = 1e-9  # NMSE of f32 logits


def time_runs(run, seconds):
    """Seconds of each call: warm-up of a tenth of the time and two calls at least, then calls for
    `seconds` and five at least. `run` takes nothing and has finished its work when it returns."""
    begin, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - begin < 0.1 * seconds:
        run()
        count += 1
    samples, begin = [], time.perf_counter()
    while len(samples) < MAX_RUNS:
        before = time.perf_counter()
        if len(samples) >= MIN_RUNS and before - begin >= seconds:
            break
        run()
        samples.append(time.perf_counter() - before)
    return samples


def median_interval(samples):
    """(low, high): the 95% interval of the median from order statistics, with no assumption on the
    distribution (Conover 1999, 3.2); the extremes where there are too few samples for it, and
    (None, None) of one."""
    x, n = sorted(samples), len(samples)
    if n < 2:
        return None, None
    half = 1.96 * math.sqrt(n) / 2
    low, high = math.floor(n / 2 - half), math.ceil(n / 2 + half)
    return x[max(low - 1, 0)], x[min(high, n - 1)]


def latency(samples):
    """latency_ms of a row, from seconds."""
    x = 1e3 * np.sort(np.asarray(samples, float))
    low, high = median_interval(x.tolist())
    at = lambda q: float(x[int(q * (len(x) - 1) + 0.5)])
    return {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "best": float(x[0]),
            "low": low, "high": high}


def stability(milliseconds):
    """stable and, when false, unstable_because."""
    if milliseconds["low"] is None:
        return {"stable": False, "unstable_because": "one figure, with no spread"}
    width = (milliseconds["high"] - milliseconds["low"]) / milliseconds["p50"]
    if width <= WIDEST:
        return {"stable": True}
    return {"stable": False,
            "unstable_because": f"the interval of the median is {100 * width:.0f}% of it"}


def row(phase, op, case, samples, *, threads, batch, tokens, dtype="f32", device="cpu",
        repeats=None, parity=None, memory=True):
    """A row of `runs`. tokens: of one run, all sequences together. memory: whether the work was
    done in this process, so that its peak memory is known."""
    ms = latency(samples)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if memory else None
    result = {"device": device, "threads": threads, "dtype": dtype, "phase": phase, "op": op,
              "case": case, "batch": batch, "tokens": tokens, "repeats": repeats or len(samples),
              "tokens_per_second": 1e3 * tokens / ms["p50"], "latency_ms": ms}
    result.update(stability(ms))
    result.update({"device_ms": None, "gflops": None, "gbytes_per_s": None, "peak_share": None,
                   "gemm_gflops": None, "energy": None,
                   "energy_reason": "not measured: the peers' scripts read no sensor",
                   "fallback_ops": [], "memory_bytes": None, "peak_memory_bytes": peak,
                   "parity": parity, "expert_load": None})
    return result


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _cpu_name():
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _virtual():
    """The kind of virtual machine, or None."""
    try:
        out = subprocess.run(["systemd-detect-virt", "--vm"], capture_output=True, text=True,
                             timeout=5, check=False).stdout.strip()
        if out:
            return None if out == "none" else out
    except OSError:
        pass
    return "unknown" if " hypervisor " in _read("/proc/cpuinfo") else None


def host(name, version, notes=()):
    """The `host` of a peer's file."""
    u = platform.uname()
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None
    load = os.getloadavg()[0]
    notes = list(notes)
    if load > 0.5:
        notes.append(f"load average {load:.1f} before the run")
    if governor not in (None, "performance"):
        notes.append(f"the CPU governor is {governor}")
    return {"system": u.system, "release": u.release, "machine": u.machine, "cpu": _cpu_name(),
            "processors": os.cpu_count(), "peer": {"name": name, "version": version},
            "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "virtual": _virtual(), "governor": governor, "clock_mhz": None,
            "temperature_c": None, "throttled": None, "load_average": load, "notes": notes,
            "peaks": []}


def command_line():
    """How this program was called, of paths only the last part: files are shared."""
    return " ".join(os.path.basename(word) or word for word in sys.argv)


def write(path, host_object, rows, seconds, seed=1):
    """Writes the result file, whole or not at all; "-" is stdout."""
    write_json(path, {"schema": SCHEMA, "host": host_object,
                      "settings": {"command": command_line(), "quick": False, "seconds": seconds,
                                   "seed": seed, "profile": None},
                      "runs": rows, "sweeps": []})


def write_json(path, value):
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
        return
    partial = f"{path}.partial"
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def reference_logits(itera, model, ids):
    """Logits (tokens, vocabulary) of one sequence by `itera logits` on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits.safetensors")
        ids_text = ",".join(str(int(i)) for i in ids)
        done = subprocess.run([itera, "logits", model.path, "--tokens", ids_text, "-o", out],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{itera} logits failed: {done.stderr.strip()}")
        return itera_model.read_safetensors(out)[0]["logits"]


def parity(logits, reference, limit=PARITY_LIMIT):
    """The `parity` of a row: these logits against itera's."""
    logits, reference = np.asarray(logits, np.float64), np.asarray(reference, np.float64)
    error = logits - reference
    nmse = float((error ** 2).sum() / (reference ** 2).sum())
    return {"reference": "itera cpu f32 weights as given", "nmse": nmse,
            "max_abs": float(np.abs(error).max()), "limit": limit, "pass": nmse <= limit}


def integers(text):
    """Of an option: "1,2"."""
    return [int(part) for part in text.split(",")]


def say(text):
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def say_row(r):
    ms = r["latency_ms"]
    spread = f"[{ms['low']:.4g}, {ms['high']:.4g}], " if ms["low"] is not None else ""
    say(f"{r['op']} x{r['threads']} {r['dtype']} {r['phase']} {r['case']}: {ms['p50']:.4g} ms "
        f"{spread}{r['tokens_per_second']:.5g} tokens/s")
