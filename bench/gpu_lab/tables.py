"""The judge's tables, as Markdown, and what is in the loops of a listing."""
import collections
import fnmatch
import glob
import os
import re


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]


def cell(row):
    """128r 4w 10K sp5 scr64: registers, waves, code, spills, scratch."""
    if not row or "error" in row:
        return "failed" if row else "-"
    words = [f"{row['registers']}r"]
    words += [f"{row['waves']:g}w"] if row.get("waves") else []
    words += [f"{-(-row['code'] // 1024)}K"] if row.get("code") else []
    words += [f"**sp{row['spills']}**"] if row["spills"] else []
    words += [f"scr{row['scratch']}"] if row["scratch"] else []
    return " ".join(words)


def badness(rows):
    """Of a kernel on all targets, only for sorting: where it fails, spills, uses scratch; registers."""
    good = [row for row in rows if "error" not in row]
    return (len(rows) - len(good), sum(bool(r["spills"]) for r in good),
            sum(bool(r["scratch"]) for r in good), sum(r["registers"] for r in good))


def kernel_table(rows, targets, top):
    """One line a kernel, worst first; that of presets before others."""
    lines = collections.defaultdict(dict)
    for row in rows:
        lines[row["kernel"], row["constants"], row["lanes"]][row["target"]] = row

    def order(item):
        found = list(item[1].values())
        return (any(r["used"] for r in found), badness(found)), item[0]

    chosen = sorted(lines.items(), key=order, reverse=True)
    shown = chosen[:top] if top else chosen
    text = markdown(["kernel, lanes, constants", *targets],
                    [[f"{name} {lanes} {constants}".strip() + (" *" if any(
                        r["used"] for r in found.values()) else ""), *(cell(found.get(t)) for t in targets)]
                     for (name, constants, lanes), found in shown])
    return text + ["", f"{len(shown)} of {len(chosen)} kernels; * a preset takes it."]


def summary_table(rows, targets):
    lines = []
    for target in targets:
        mine = [row for row in rows if row["target"] == target]
        good = [row for row in mine if "error" not in row]
        used = [row for row in good if row["used"]]
        lines.append([target, len(mine), len(mine) - len(good), sum(bool(r["spills"]) for r in good),
                      sum(bool(r["spills"]) for r in used), sum(bool(r["scratch"]) for r in good),
                      sum(bool(r["scratch"]) for r in used), max((r["registers"] for r in used), default="-")])
    return markdown(["target", "kernels", "failed", "spill", "of presets", "use scratch", "of presets",
                     "most registers of presets"], lines)


def launch_table(runs):
    """Dispatches and barriers of the runs: a line a preset and phase, a column a type of weights."""
    dtypes = list(dict.fromkeys(run["dtype"] for run in runs))
    lines = collections.defaultdict(dict)
    for run in runs:
        lines[run["preset"], run["phase"]][run["dtype"]] = f"{run['dispatches']} / {run['barriers']}"
    return markdown(["preset", "phase", *dtypes],
                    [[*key, *(by.get(d, "-") for d in dtypes)] for key, by in lines.items()])


# What a card reaches at most: GB/s, TFLOP/s in f32, and with matrix units and f16 operands.
CARDS = {"RX 6800": (512, 16.2, None), "RTX 3060": (360, 12.7, 51), "Arc A770": (560, 19.7, 138),
         "H100": (3350, 67, 990)}
LAUNCH = 2e-6  # seconds from one dispatch to the next that waits for it


def predicted_ms(run, card):
    """The larger of the times for bytes and for FLOPs, at the card's peaks, and that for the launches."""
    bandwidth, plain, matrix = CARDS[card]
    flops = matrix if matrix and run["dtype"] != "f32" else plain
    return 1e3 * (max(run["bytes"] / bandwidth / 1e9, run["flops"] / flops / 1e12) +
                  LAUNCH * run["dispatches"])


def prediction_table(runs):
    return markdown(["preset", "phase", "weights", "MB", "GFLOP", "dispatches", *CARDS],
                    [[run["preset"], f"{run['phase']} {run['case']}", run["dtype"],
                      f"{run['bytes'] / 1e6:.1f}", f"{run['flops'] / 1e9:.2f}", run["dispatches"],
                      *(f"{predicted_ms(run, card):.2f}" for card in CARDS)] for run in runs])


def report(rows, runs, targets, top, what):
    text = [what, "", "**Targets**", "", *summary_table(rows, targets), ""]
    if runs:
        text += ["**Dispatches / barriers** of one decoded token, one prefill, one training step", "",
                 *launch_table(runs), "", "**Predicted, at best**: milliseconds (no measurement; see above)", "",
                 *prediction_table(runs), ""]
    return text + ["**The worst kernels**: registers, waves, code; sp: spills, scr: scratch", "",
                   *kernel_table(rows, targets, top)]


def update(path, text):
    """Puts the tables between the document's two lines."""
    with open(path, encoding="utf-8") as file:
        old = file.read()
    begin, end = "<!-- gpu -->\n", "<!-- /gpu -->"
    if old.count(begin) != 1 or old.count(end) != 1:
        raise ValueError(f"{path} has no one {begin.strip()} and {end}")
    head, tail = old.split(begin)[0], old.split(end)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + begin + "\n".join(text) + "\n" + end + tail)


# ---- loops of an AMD listing ----

KINDS = [("fma", r"v_(dual_|pk_)?(fma|fmac|mac|mad)_"), ("matrix", r"v_(wmma|mfma)"), ("dot", r"v_dot"),
         ("exp", r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_"), ("valu", r"v_"), ("local", r"ds_"),
         ("load", r"(global|buffer|flat)_load"), ("store", r"(global|buffer|flat)_store"),
         ("scratch", r"scratch_"), ("wait", r"s_(waitcnt|barrier|delay)"), ("salu", r"s_")]


def loop_mix(listing):
    """(kernel, label, {kind: instructions}) of each innermost loop: from a label to a branch back to it."""
    kernel, labels, code = None, {}, []
    for line in listing.splitlines():
        begin = re.match(r"(\.?\w+):", line)
        if begin and not begin[1].startswith((".L", "BB")):
            kernel, labels, code = begin[1], {}, []
        elif begin:
            labels[begin[1]] = len(code)
        words = line.split(";")[0].split()
        if begin or not words or words[0].startswith("."):
            continue
        code.append(next((kind for kind, pattern in KINDS if re.match(pattern, words[0])), "other"))
        if re.match("s_c?branch", words[0]) and words[-1] in labels:
            at = labels[words[-1]]
            if "loop" not in code[at:]:
                yield kernel, words[-1], dict(collections.Counter(code[at:]))
            code[-1] = "loop"


def loops(folder, pattern):
    """Lines for the loops of the kernels that match, from the listings in the folder."""
    lines = ["", "Instructions in inner loops:"]
    for path in sorted(glob.glob(folder + "/clang-*/*.s")):
        with open(path, encoding="utf-8") as file:
            for kernel, label, mix in loop_mix(file.read()):
                if fnmatch.fnmatchcase(kernel, pattern):
                    lines.append(f"{os.path.relpath(path, folder)} {kernel} {label}: " + ", ".join(
                        f"{n} {kind}" for kind, n in sorted(mix.items(), key=lambda item: -item[1])))
    return lines
