#!/bin/sh
# itera distill: stages that are killed and go on must leave what an uninterrupted distillation
# leaves, byte for byte; and what cannot be distilled gets a clear error.
# Usage: tests/distill.sh ITERA [SEED]      the seed picks the moments of the kills
set -eu

seed=${2:-$(date +%s)}
echo "seed $seed"
. "$(dirname "$0")/command.sh"

cat >config.json <<'JSON'
{"architecture": "itera", "vocab_size": 257, "hidden_size": 32, "num_layers": 2,
 "ssm_state_size": 8, "num_experts": 4, "expert_size": 16, "max_seq_length": 32}
JSON
text="--data builtin:stories?bytes=100000 --valid builtin:stories?valid&bytes=4000"
common="$text --batch 4 --seq 32 --log-every 1 --eval-every 50 --threads 1 --device cpu --seed 3"

# shellcheck disable=SC2086
"$itera" train --preset itera-m-micro --tokenizer byte $common --steps 30 --out teacher >log 2>&1 ||
    die "training a teacher"
teacher=teacher/model.safetensors

# become_distill OUT [OPTION...]: two stages of 120 steps.
become_distill() {
    out=$1
    shift
    # shellcheck disable=SC2086
    exec "$itera" distill $teacher --via transformer-micro --config config.json $common --steps 240 \
        --save-every 9 --out "$out" "$@"
}

losses() {
    sed 's/, "tokens_per_second": [^,}]*//' "$1/train.jsonl"
}

begun=$(date +%s%N)
(become_distill whole --json whole.json) >log 2>&1 || die "the uninterrupted distillation"
whole_seconds=$(awk -v begun="$begun" -v ended="$(date +%s%N)" 'BEGIN { print (ended - begun) / 1e9 }')
grep -q '"kl_loss": [0-9]' whole/train.jsonl || die "train.jsonl has no kl_loss"
grep -q 'teacher_valid_loss' whole/stage-1/train.jsonl || die "the teacher's loss is missing"
[ "$(tr -d ' \n' <whole.json | grep -o '"finished":true' | wc -l)" -eq 3 ] ||
    die "the JSON does not have two finished stages"
# shellcheck disable=SC2086
"$itera" distill $teacher --preset itera-m $text --steps 1 --batch 1 --seq 16 --valid none \
    --device cpu --out larger >log 2>&1 || die "a student that is larger than its teacher"
# shellcheck disable=SC2086
"$itera" distill larger/model.safetensors --config config.json $text --steps 1 --batch 1 --seq 16 \
    --valid none --device cpu --out smaller >smaller.log 2>&1 || die "a student that is smaller"
grep -q 'more parameters than its teacher' log || die "a student that is larger is not said to be"
grep -q 'more parameters' smaller.log && die "a student that is smaller is said to be larger"
echo "ok: two stages"

# kill -9 at moments that range over both stages; only the directory is needed to go on.
kills=0
# shellcheck disable=SC2013
for delay in $(awk -v seed="$seed" -v whole="$whole_seconds" 'BEGIN { srand(seed);
        for (i = 0; i < 5; i++) printf "%.3f ", 0.02 + whole * (0.1 + 0.3 * rand()) }'); do
    (become_distill killed --resume) >log 2>&1 &
    pid=$!
    sleep "$delay"
    if kill -9 "$pid" 2>/dev/null; then
        kills=$((kills + 1))
    fi
    wait "$pid" 2>/dev/null || true
    pid=
done
(become_distill killed --resume) >log 2>&1 || die "going on after kill -9"
"$itera" distill --out killed --resume --threads 1 --device cpu >log 2>&1 ||
    die "going on with a finished distillation"
grep -q 'stage 1 of 2 is finished' log || die "a finished stage is not skipped"
[ "$kills" -ge 1 ] || die "the distillation was too quick to be killed"
for stage in . stage-1; do
    losses whole/$stage >a
    losses killed/$stage >b
    cmp a b || die "$stage: other losses after $kills kills"
    cmp whole/$stage/model.safetensors killed/$stage/model.safetensors ||
        die "$stage: another model after $kills kills"
done
echo "ok: $kills times kill -9"

# no_distill STATUS WORDS ARGUMENT...
no_distill() {
    status=$1
    words=$2
    shift 2
    refused "$status" "$words" distill "$@" --device cpu
}
no_distill 2 'TEACHER is missing' --out new
no_distill 2 '--out DIR' $teacher
no_distill 2 'temperature' $teacher --out new --temperature 0
no_distill 2 'temperature' $teacher --out new --temperature -1
no_distill 2 'stage-steps' $teacher --out new --stage-steps 5
no_distill 1 'nobody.safetensors' nobody.safetensors --out new
no_distill 1 'unknown preset' $teacher --via itera-giant --out new
no_distill 1 '128 positions' $teacher --via micro --preset itera-m-micro --seq 256 --out new
no_distill 1 'its own tokenizer' $teacher --tokenizer byte --out unused
no_distill 1 'nothing.txt' $teacher --data nothing.txt --out unused # which is no run yet
no_distill 1 'is what is read' $teacher --out teacher --force
no_distill 1 'is what is read' teacher --out teacher --force
no_distill 1 'cannot make the directory: Not a directory' $teacher --out $teacher --force
no_distill 1 '--resume' $teacher --out whole
no_distill 1 '--weight is not what' --out whole --resume --weight 0.7
no_distill 1 '--via is not what' --out whole --resume --via micro
# shellcheck disable=SC2086
"$itera" train --config config.json --tokenizer char $common --steps 1 --out chars >log 2>&1 ||
    die "training with another tokenizer"
no_distill 1 'has a vocabulary of' $teacher --init chars/model.safetensors --out new
[ ! -e new ] || die "a refused distillation left a directory"

# A teacher that has changed.
# shellcheck disable=SC2086
"$itera" distill $teacher --config config.json $common --steps 2 --out one >log 2>&1 ||
    die "a distillation in one stage"
cp whole/model.safetensors other.safetensors
no_distill 1 'is not the teacher' other.safetensors --out one --resume --threads 1
cp $teacher moved.safetensors
"$itera" distill moved.safetensors --out one --resume --threads 1 --device cpu >log 2>&1 ||
    die "the teacher under another name"
echo "ok: refusals"
