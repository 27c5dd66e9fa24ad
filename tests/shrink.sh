#!/bin/sh
# Smaller models from the command line: what prune writes is a model for the other commands, its
# report adds up, and what is impossible is one line of error that names the limits.
# Usage: tests/shrink.sh ITERA
set -eu

itera=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

die() {
    echo "FAIL: $*"
    cat err 2>/dev/null || true
    exit 1
}

# refused STATUS WORDS ARGUMENT...
refused() {
    want=$1
    words=$2
    shift 2
    status=0
    "$itera" "$@" >out 2>err || status=$?
    [ $status -eq "$want" ] || die "$* exited with $status, not $want"
    [ "$(wc -l <err)" -eq 1 ] || die "$*: not one line of error"
    grep -q -e "$words" err || die "$* did not say '$words'"
}

# number KEY: the first one of that name in out.
number() {
    sed -n "s/.*\"$1\": *\([-0-9.e]*\).*/\1/p" out | head -n 1
}

text='builtin:stories?bytes=60000'
"$itera" train --preset itera-m-micro --tokenizer bpe:300 --data "$text" --valid none --steps 30 \
    --seq 64 --threads 2 --out run >out 2>err || die "training"
model=run/model.safetensors

# ---- prune
"$itera" prune $model --experts 3 --ffn 32 --inner 75% --calibrate "$text" --tokens 4096 \
    --valid 'builtin:stories?valid&bytes=5000' --finetune 10 --report -o small.safetensors \
    --json=report.json >out 2>err || die "prune"
grep -q 'experts  *4  *3$' out || die "the number of experts is not in the report"
grep -q 'fine-tuned' out || die "no score after fine-tuning"
cp report.json out
[ "$(grep -c '"word_perplexity"' report.json)" -eq 3 ] || die "not three scores"
before=$(number parameters)
"$itera" info small.safetensors --json >out 2>err || die "info"
after=$(number parameters)
grep -q "\"parameters\": $after" report.json || die "the report has other parameters than the file"
[ "$after" -lt "$before" ] || die "$after parameters are not fewer than $before"
[ "$(number mamba_d_inner)" -eq 96 ] || die "inner channels"
"$itera" eval small.safetensors --data "$text" --max-tokens 500 >out 2>err || die "eval"
"$itera" generate small.safetensors --prompt "Once upon" -n 5 >out 2>err || die "generate"
"$itera" train --init small.safetensors --data "$text" --valid none --steps 2 --seq 32 --out again \
    >out 2>err || die "train --init"

# Fine-tuning with a run directory gives the best model.
"$itera" prune small.safetensors --keep 50% --calibrate "$text" --finetune 4 --run tuned \
    --valid 'builtin:stories?valid&bytes=5000' -o smaller.safetensors >out 2>err || die "--run"
[ -f tuned/train.jsonl ] || die "no log of the fine-tuning"
cmp -s tuned/model.safetensors smaller.safetensors || die "not the best model"

refused 1 'cannot keep 1 of 4; from 2 (a token goes to 2) to 4' prune $model --experts 1 -o x
refused 1 'inner channels: cannot keep 0 of 128; from 1 to 128' prune $model --inner 0 -o x
refused 1 '"most" is neither a number nor a percentage' prune $model --ffn most -o x
refused 1 'nothing would be removed' prune $model --keep 100% -o x
refused 1 'too short: it has .* tokens, 90000 are needed' prune $model --keep 50% --tokens 90000 \
    --calibrate "$text" -o x
refused 1 '/nonexistent/x: cannot write a model' prune $model --keep 50% -o /nonexistent/x
refused 2 'one of --experts' prune $model -o x
refused 2 '-o FILE is needed' prune $model --keep 50%
[ ! -e x ] || die "a refused command left a file"

echo "passed"
