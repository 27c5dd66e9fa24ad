#!/bin/sh
# itera bench from the command line: results that keep to their schema, curves, goals, estimates of
# energy, a run that is interrupted, and what is refused. Usage: tests/bench.sh ITERA
set -eu

tests=$(dirname "$(realpath "$0")")
. "$(dirname "$0")/command.sh"
mkdir sys
export ITERA_SYSFS="$dir/sys" ITERA_NVML=none

# All phases; no sensor, and said so. The result is what the schema says.
exits 0 bench --quick --seconds 0.05 --preset micro --threads 1 --json r.json --csv r.csv --html r.html
says '"energy": null' r.json
says '"energy_reason": "rapl: no intel-rapl zone' r.json
says 'No energy figures for cpu' r.json
says '"imbalance"' r.json
says '"part": "experts"' r.json
says '"command": "itera bench --quick' r.json
says '"pass": true' r.json
for phase in forward prefill decode train; do
    says "\"phase\": \"$phase\"" r.json
    says "$phase" r.csv
    says "$phase" out
done
exits 0 compare --check r.json
[ -s r.html ] || die "no report"

# Beside itself nothing got slower, as far as a moment of another machine can tell.
"$itera" bench --quick --seconds 0.05 --preset micro --threads 1 --phase decode --baseline r.json \
    >out 2>err || [ $? -eq 1 ] || die "comparing failed"
says 'speed' out

# Types in turns, an estimate of energy, a profile that the machine cannot fill.
exits 0 bench model --quick --seconds 0.05 --preset micro --dtype f32,f16,q8,q4 --phase decode \
    --prompt 16 --gen 8 --profile desktop --tdp 20 --breakdown --json types.json
for type in f32 f16 q8 q4; do
    says "\"dtype\": \"$type\"" types.json
done
says '"measured": false' types.json
says '"source": "tdp 20 W"' types.json
says '"profile": "desktop"' types.json
says 'each op timed apart' out
[ "$(nproc)" -ge 12 ] || says 'profile desktop was cut to' types.json
exits 0 compare --check types.json

# Ops, on stdout alone.
exits 0 bench ops --op 'gelu*' --seconds 0.05 --json
says '"phase": "op"' out
"$itera" compare --check out >/dev/null || die "stdout is no result"

# A baseline that nothing reaches is missed, with the result on stdout as well.
sed 's/"\(p50\|low\|high\|best\|p95\)": [0-9.e-]*/"\1": 1e-7/' out >fast.json
exits 1 bench ops --op 'gelu*' --seconds 0.05 --baseline fast.json
says 'regression' out
exits 1 bench ops --op 'gelu*' --seconds 0.05 --json --baseline fast.json
"$itera" compare --check out >/dev/null || die "stdout is no result"

# Curves.
exits 0 bench --quick --sweep length --at 16,32,64 --preset micro,mamba-tiny --seconds 0.05 --json s.json
says '"variable": "length"' s.json
says '"exponent_low"' s.json
exits 0 bench --quick --sweep batch --at 1,2 --preset micro --dtype q8 --seconds 0.05 --json s.json
says '"variable": "batch"' s.json
says '"exponent_low": null' s.json
exits 0 bench --quick --sweep width --at 1,2 --preset transformer-micro --prompt 16 --seconds 0.05 --json s.json
says '"x": 128.0' s.json
exits 0 compare --check s.json

# Two points have no interval, one has no exponent.
! grep -q '(0.00 to' out || die "an interval from two points"
exits 0 bench --quick --sweep length --at 16 --preset micro --seconds 0.05
! grep -q ' 0\.00 *$' out || die "an exponent from one point"

# Names that are no UTF-8, or that a row cuts within a letter, lose nothing.
exits 0 bench ops --quick --op gelu --seconds 0.05 --json "$(printf 'x\377.json')"
exits 0 compare --check "$(printf 'x\377.json')"
says 'x?.json' "$(printf 'x\377.json')"
letters=$(printf '\321\213%.0s' $(seq 23)) # two bytes each
cp "$tests/fixtures/itera-small/config.json" "$letters$letters.json"
exits 0 bench model --quick --preset "$letters$letters.json" --phase decode --prompt 4 --gen 4 \
    --seconds 0.05 --threads 1 --json cut.json
says "\"op\": \"$letters\"" cut.json

# Goals from a result, into a document.
printf 'before\n<!-- goals -->\nold\n<!-- /goals -->\nafter\n' >doc.md
exits 0 bench goals --from r.json --update doc.md
# shellcheck disable=SC2016
says '| `micro` decode | 1 | PyTorch |' doc.md
says 'not measured' doc.md
says '^before$' doc.md
says '^after$' doc.md
! grep -q '^old$' doc.md || die "the old table stayed"
exits 0 bench goals --from r.json --update doc.md
[ "$(grep -c 'goals -->' doc.md)" -eq 2 ] || die "the lines around the table are not two"
echo nothing >doc.md
exits 1 bench goals --from r.json --update doc.md
says 'has no lines' err

# A file without intervals, and without OpenBLAS beside its matmul.
echo '{"host":{},"runs":[{"device":"cpu","threads":2,"dtype":"f32","phase":"op","op":"matmul",
    "case":"512x3072x768","latency_ms":{"p50":10}}]}' >bare.json
exits 0 bench goals --from bare.json
says '| not installed | 10 ms | | | 0.95x |' out
! grep -q 'nan' out || die "a goal beside nothing"

# Interrupted: what was measured is written, and marked.
"$itera" bench model --preset micro --phase decode --prompt 16 --seconds 30 --json i.json \
    >out 2>err &
pid=$!
for _ in $(seq 60); do
    sleep 0.5
    ! grep -q 'rows in turns: *[1-9]' err || break
done
kill -INT $pid
status=0
wait $pid || status=$?
[ $status -eq 1 ] || die "an interrupted run exited with $status"
says 'was interrupted' i.json
says '"phase": "decode"' i.json
exits 0 compare --check i.json

# Refused before anything runs.
exits 2 bench --sweep sideways
exits 2 bench ops --sweep length
exits 2 bench --op matmul
exits 2 bench ops --op nosuch
grep -q "no op matches 'nosuch'; measured are matmul, " err || die "the ops are not listed"
exits 2 bench --at 1,2
exits 2 bench --profile laptop --threads 2
exits 2 bench --update doc.md
exits 2 bench model a b c
exits 2 bench ops --preset micro
exits 2 bench ops --phase decode
exits 2 bench train --phase decode
exits 2 bench model --phase train
exits 2 bench --sweep length --phase decode
exits 2 bench r.json --preset micro
exits 1 bench nosuch
says 'nosuch: no model can be read there .* modes are ops, model, train and goals' err
exits 1 bench --json missing/r.json
exits 1 bench --baseline missing.json
exits 1 bench --preset nothing
[ "$(wc -l <err)" -eq 1 ] || die "something was measured before the preset was looked for"
cp r.json kept.json
exits 1 bench --baseline r.json --html r.json
says 'is what is read' err
exits 1 bench r.json --csv ./r.json
cmp -s r.json kept.json || die "what is read was replaced"
exits 1 bench train --preset micro --dtype q8 --quick
says 'nothing was measured' err
exits 1 bench --device nowhere:0
