"""What a limits file allows, and what is over it.

    {"kernels": [{"target": "radv-*", "kernel": "attention*", "used": true, "spills": 0, "registers": 128}],
     "runs": [{"preset": "micro", "dtype": "q8", "phase": "decode", "dispatches": 71, "barriers": 66}]}

Names are globs, and what a rule leaves out matches all; "used": true is for kernels that presets take.
Of the rules that match, the first one counts, with those numbers that it gives.
"""
import fnmatch
import json

KERNELS = ("target", "kernel", "constants"), ("spills", "scratch", "registers", "code")
RUNS = ("preset", "dtype", "phase"), ("dispatches", "barriers")


def load(path):
    """The file's limits; ValueError for names that mean nothing, so that a slip does not allow all."""
    with open(path, encoding="utf-8") as file:
        allowed = json.load(file)
    for name, (match, numbers) in (("kernels", KERNELS), ("runs", RUNS)):
        for rule in allowed.get(name, []):
            unknown = set(rule) - {*match, *numbers, "why"} - ({"used"} if name == "kernels" else set())
            if unknown:
                raise ValueError(f"{path}: {name}: there is no {', '.join(sorted(unknown))}")
    if set(allowed) - {"kernels", "runs"}:
        raise ValueError(f"{path}: there are kernels and runs, no {', '.join(sorted(set(allowed)))}")
    return allowed


def text(allowed):
    """The file's text: a line a rule."""
    parts = []
    for name in ("kernels", "runs"):
        rules = ",\n".join("  " + json.dumps(rule) for rule in allowed.get(name, []))
        parts.append(f' "{name}": [\n{rules}\n ]' if rules else f' "{name}": []')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def lower(allowed, runs):
    """Allows runs no more than they launch now; those without a rule of their own get one."""
    match, numbers = RUNS
    for run in runs:
        name = {key: run[key] for key in match}
        rule = next((r for r in allowed["runs"] if {k: r.get(k) for k in match} == name), None)
        if rule is None:
            rule = {**name, **{n: run[n] for n in numbers}}
            allowed["runs"].append(rule)
        for n in numbers:
            rule[n] = min(rule.get(n, run[n]), run[n])


def broken(rules, found, kind):
    """The numbers of a kernel or run that are larger than its rule has them."""
    match, numbers = kind
    for rule in rules:
        if rule.get("used", bool(found.get("used"))) == bool(found.get("used")) and all(
                fnmatch.fnmatchcase(found[key], rule.get(key, "*")) for key in match):
            return [f"{n} {found[n]}, at most {rule[n]} allowed" for n in numbers
                    if n in rule and (found.get(n) or 0) > rule[n]]
    return []


def over(allowed, rows, runs):
    """A sentence for each failure and for all that no limit allows."""
    lines = []
    for row in rows:
        what = f"{row['target']}: {row['kernel']} {row['constants']}".strip()
        if "error" in row:
            lines.append(f"{what}: not compiled: {row['error']}")
        else:
            lines += [f"{what}: {b}" for b in broken(allowed.get("kernels", []), row, KERNELS)]
    for run in runs:
        what = f"{run['preset']} {run['dtype']} {run['phase']}"
        lines += [f"{what}: {b}" for b in broken(allowed.get("runs", []), run, RUNS)]
    return lines
