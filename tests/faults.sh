#!/bin/bash
# Kills the command, or lets a call that changes files fail, at points spread over every command that
# writes: what is there afterwards is the old output or the new one, whole, and the command run again
# gives the same bytes as a run without fault.
# Usage: faults.sh ITERA SHIM FOLDER [POINTS]   (POINTS: of each command and mode; the default is few)
# shellcheck disable=SC2086 # lists of words
set -euo pipefail
itera=$(realpath "$1") shim=$(realpath "$2") folder=$3 points=${4:-3}
rm -rf "$folder"
mkdir -p "$folder/base"
cd "$folder"
export ITERA_CACHE_DIR=$PWD/cache
injections=0 failures=0

cat > base/c.json <<'JSON'
{"architecture": "itera", "vocab_size": 257, "hidden_size": 16, "num_layers": 1,
 "ssm_state_size": 4, "moe_layers": [0], "num_experts": 4, "expert_size": 32, "max_seq_length": 32}
JSON
small="--data builtin:stories?bytes=4000 --valid builtin:stories?valid&bytes=400 --batch 1 --seq 16
       --eval-tokens 16 --eval-every 2 --save-every 2 -t 1 -d cpu"
train="train --config c.json --tokenizer byte $small --steps 6 --out run"
bench='{"schema":"itera-bench/1","host":{"cpu":"A","itera":"1","date":"2026-01-01T00:00:00Z"},"runs":[
{"device":"cpu","threads":2,"dtype":"f32","phase":"decode","op":"matmul","case":"1x1","latency_ms":
{"p50":10,"low":9.9,"high":10.1}}]}'
echo "$bench" > base/a.json
echo "${bench/10,/12,}" > base/b.json
(
    cd base
    $itera train --config c.json --tokenizer byte $small --steps 2 --out teacher
    $itera train --config c.json --tokenizer bpe:270 $small --steps 2 --out words
) > setup.log 2>&1 || { cat setup.log; exit 1; }

fail()
{
    failures=$((failures + 1))
    echo "FAIL: $1"
    [ ! -s log ] || tail -n 5 log
}

# The bytes of the outputs, "-" for what is not there.
state()
{
    for path in $outputs; do
        [ -e "work/$path" ] && sha256sum < "work/$path" || echo -
    done
}

# Runs the command in work, with the faults of the environment.
run()
{
    (cd work && exec env LD_PRELOAD="$shim" $itera $1) > log 2>&1
}

fresh()
{
    rm -rf work
    cp -r base work
    for path in $outputs; do
        case $path in */*) ;; *) echo '{"schema":"itera-bench/1","runs":[]}' > "work/$path" ;; esac
    done
}

# inject NAME COMMAND AGAIN OUTPUT...: AGAIN takes the command up where it broke off.
inject()
{
    name=$1 command=$2 again=$3
    shift 3
    outputs=$*
    fresh
    before=$(state)
    FAULT_COUNT=$PWD/calls run "$command" || { fail "$name without a fault: $?"; return; }
    calls=$(cat calls)
    after=$(state) clean=$(cd work && find . | sort)
    for mode in kill eio enospc short; do
        n=$points
        [ "$n" -le "$calls" ] || n=$calls
        for ((i = 0; i < n; i++)); do
            at=$((1 + i * (calls - 1) / (n > 1 ? n - 1 : 1)))
            what="$name, $mode at call $at of $calls"
            injections=$((injections + 1))
            fresh
            code=0
            FAULT_AT=$at FAULT_MODE=$mode run "$command" 2> /dev/null || code=$?
            now=$(state)
            case $code in
            0) [ "$now" = "$after" ] || fail "$what: success, but not the new output" ;;
            1) [ -s log ] || fail "$what: fails without a word" ;;
            137) [ $mode = kill ] || fail "$what: killed" ;;
            *) fail "$what: exit status $code" ;;
            esac
            # Each output by itself is old or new; of a run also a checkpoint between.
            paste <(echo "$before") <(echo "$now") <(echo "$after") > states
            while read -r old is new; do
                [ "$is" = "$old" ] || [ "$is" = "$new" ] || [ -d work/run ] ||
                    fail "$what: an output is neither old nor new"
            done < <(sed 's/  -//g' states)
            for file in work/run/model.safetensors work/run/best.safetensors; do
                [ ! -e "$file" ] || $itera info "$file" > log 2>&1 || fail "$what: $file is broken"
            done
            if [ -e work/run/checkpoint/state.json ]; then
                run "$again" || fail "$what: cannot be resumed"
            else
                rm -rf work/run
                run "$command" || fail "$what: cannot be run again"
            fi
            [ "$(state)" = "$after" ] || fail "$what: another output when it is run again"
            left=$(cd work && find . | sort)
            [ "$left" = "$clean" ] || fail "$what: leaves $(comm -3 <(echo "$left") <(echo "$clean") | tr '\n\t' '  ')"
        done
    done
    echo "$name: $calls calls that change files"
}

model=teacher/model.safetensors
inject quantize "quantize $model --to q4 --force -o out.safetensors" "" out.safetensors
inject prune "prune $model --experts 2 --tokens 64 -d cpu -t 1 --force -o out.safetensors" "" out.safetensors
inject vocab "vocab words/model.safetensors --size 262 --data builtin:stories?bytes=2000 -d cpu -t 1 --force -o out.safetensors" "" out.safetensors
inject compare "compare a.json b.json --html=o.html --csv=o.csv --markdown=o.md --json=o.json" "" o.html o.csv o.md o.json
inject train "$train" "train --resume --out run -d cpu -t 1" run/model.safetensors run/checkpoint/m.safetensors
inject distill "distill teacher/model.safetensors --config c.json $small --steps 6 --out run" "distill --resume --out run -d cpu -t 1" run/model.safetensors
echo "$injections faults, $failures failures"
[ "$failures" = 0 ]
