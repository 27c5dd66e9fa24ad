#!/bin/sh
# Training runs that are killed, interrupted, or run out of disk, and go on: what they leave must be
# the same, byte for byte, as that of a run that nothing happened to.
# Usage: tests/resume.sh ITERA [SEED]      the seed picks the moments of the kills
set -eu

seed=${2:-$(date +%s)}
echo "seed $seed"
. "$(dirname "$0")/command.sh"

cat >"$dir/config.json" <<'JSON'
{"architecture": "itera", "vocab_size": 257, "hidden_size": 32, "num_layers": 2,
 "ssm_state_size": 8, "num_experts": 4, "expert_size": 16, "max_seq_length": 32}
JSON

# become_train OUT [OPTION...]: a run of 400 steps with an evaluation now and then. In the
# background its process is the command itself, to be killed.
become_train() {
    out=$1
    shift
    exec env --default-signal=HUP "$itera" train --config "$dir/config.json" --tokenizer byte \
        --data 'builtin:stories?bytes=100000' --valid 'builtin:stories?valid&bytes=4000' \
        --steps 400 --batch 4 --seq 32 --log-every 1 --eval-every 50 --save-every 9 \
        --threads 1 --seed 3 --out "$out" "$@"
}

train() {
    (become_train "$@")
}

# Everything but the speed.
losses() {
    sed 's/, "tokens_per_second": [^,}]*//' "$1/train.jsonl"
}

same_as_whole() {
    losses "$1" >"$dir/losses"
    cmp "$dir/whole.losses" "$dir/losses" || die "$2: other losses than the uninterrupted run"
    cmp "$dir/whole/model.safetensors" "$1/model.safetensors" || die "$2: another model"
}

begun=$(date +%s%N)
train "$dir/whole" >"$dir/log" 2>&1 || die "the uninterrupted run"
whole_seconds=$(awk -v begun="$begun" -v ended="$(date +%s%N)" 'BEGIN { print (ended - begun) / 1e9 }')
losses "$dir/whole" >"$dir/whole.losses"
[ "$(wc -l <"$dir/whole.losses")" -eq 408 ] || die "train.jsonl has not 400 steps, 8 evaluations"
echo "ok: uninterrupted run"

# kill -9, at moments that range over start-up, steps, evaluations and checkpoints; as fractions of
# the whole run's time, so that fast and slow machines kill as often.
kills=0
# shellcheck disable=SC2013
for delay in $(awk -v seed="$seed" -v whole="$whole_seconds" 'BEGIN { srand(seed);
        for (i = 0; i < 8; i++) printf "%.3f ", 0.01 + whole * rand() * (i % 2 ? 0.1 : 0.3) }'); do
    become_train "$dir/killed" --resume >"$dir/log" 2>&1 &
    pid=$!
    sleep "$delay"
    if kill -9 "$pid" 2>/dev/null; then
        kills=$((kills + 1))
    fi
    wait "$pid" 2>/dev/null || true
    pid=
    # From the first checkpoint on there is always a complete one.
    for name in checkpoint checkpoint.old; do
        if [ -d "$dir/killed/$name" ]; then
            for file in model.safetensors m.safetensors v.safetensors state.json; do
                [ -s "$dir/killed/$name/$file" ] || {
                    # Of .old, parts may be gone once the new one is in place.
                    [ $name = checkpoint.old ] && [ -d "$dir/killed/checkpoint" ] && continue
                    die "after kill -9: $name has no $file"
                }
            done
        fi
    done
done
train "$dir/killed" --resume >"$dir/log" 2>&1 || die "resume after kill -9"
[ "$kills" -ge 2 ] || die "the run was too quick to be killed: $kills kills"
same_as_whole "$dir/killed" "after $kills kills"
[ ! -e "$dir/killed/checkpoint.new" ] || die "a half-written checkpoint was left"
echo "ok: $kills times kill -9"

# A run is not replaced by accident.
if train "$dir/killed" >"$dir/log" 2>&1; then
    die "a finished run was replaced without --force"
fi
grep -q -- --force "$dir/log" || die "the refusal does not say what to do"
if "$itera" train --out "$dir/killed" --resume --batch 5 >"$dir/log" 2>&1; then
    die "--resume took another batch size"
fi
grep -q -- --batch "$dir/log" || die "the refusal does not name the option"

# SIGINT, SIGTERM and SIGHUP: the step is finished, a checkpoint written, exit status 0.
become_train "$dir/stopped" --resume >"$dir/log" 2>&1 &
pid=$!
for signal in INT TERM HUP; do
    tries=0
    lines=$([ -f "$dir/stopped/train.jsonl" ] && wc -l <"$dir/stopped/train.jsonl" || echo 0)
    while [ "$([ -f "$dir/stopped/train.jsonl" ] && wc -l <"$dir/stopped/train.jsonl" || echo 0)" \
        -le $((lines + 3)) ]; do
        tries=$((tries + 1))
        [ $tries -lt 3000 ] || die "no step was logged within a minute"
        sleep 0.02
    done
    kill -$signal "$pid" || die "the run ended before SIG$signal came"
    wait "$pid" || die "SIG$signal: exit status $?"
    pid=
    grep -q -- --resume "$dir/log" || die "SIG$signal: no word on how to go on"
    if [ $signal != HUP ]; then
        become_train "$dir/stopped" --resume >"$dir/log" 2>&1 &
        pid=$!
    fi
done
# Only the directory is needed to go on.
"$itera" train --out "$dir/stopped" --resume --threads 1 >"$dir/log" 2>&1 ||
    die "resume after signals"
same_as_whole "$dir/stopped" "after SIGINT, SIGTERM and SIGHUP"
echo "ok: SIGINT, SIGTERM and SIGHUP"

# A limit of the size of files: an error like a full disk, not a signal.
become_train "$dir/limited" --resume >"$dir/log" 2>&1 &
pid=$!
while [ ! -d "$dir/limited/checkpoint" ]; do sleep 0.01; done
kill -9 "$pid" || true
wait "$pid" 2>/dev/null || true
pid=
status=0
(ulimit -f 40 && become_train "$dir/limited" --resume) >"$dir/log" 2>&1 || status=$?
[ $status -eq 1 ] || die "a limit of the size of files: exit status $status"
grep -q "model.safetensors: .*too large" "$dir/log" || die "a limit of the size of files is not named"
train "$dir/limited" --resume >"$dir/log" 2>&1 || die "resume after a limit of the size of files"
same_as_whole "$dir/limited" "after a limit of the size of files"
echo "ok: a limit of the size of files"

# A full disk: a clear error, and the checkpoint before is whole.
mkdir "$dir/disk"
if [ "$(id -u)" -eq 0 ] && mount -t tmpfs -o size=1m tmpfs "$dir/disk" 2>/dev/null; then
    mounted=$dir/disk
    # Room for one checkpoint and a half.
    become_train "$dir/disk/run" --save-every 1000 --resume >"$dir/log" 2>&1 &
    pid=$!
    while [ ! -d "$dir/disk/run/checkpoint" ]; do sleep 0.01; done
    kill -9 "$pid" || true
    wait "$pid" 2>/dev/null || true
    pid=
    head -c 2000000 /dev/zero >"$dir/disk/filler" 2>/dev/null || true
    if train "$dir/disk/run" --resume >"$dir/log" 2>&1; then
        die "a run on a full disk reports success"
    fi
    grep -qi "space" "$dir/log" || die "full disk: the reason is not said"
    rm "$dir/disk/filler"
    cp -r "$dir/disk/run" "$dir/rescued"
    train "$dir/rescued" --resume >"$dir/log" 2>&1 ||
        die "resume after a full disk"
    same_as_whole "$dir/rescued" "after a full disk"
    echo "ok: full disk"
else
    echo "SKIP: full disk: mounting a small tmpfs needs root and the right to mount"
fi
