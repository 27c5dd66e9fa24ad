#!/bin/sh
# Smaller models from the command line: what prune, vocab and quantize write are models for the
# other commands, their reports and the ledger add up, and what is impossible is one line of error that names the
# limits.
# Usage: tests/shrink.sh ITERA
set -eu

. "$(dirname "$0")/command.sh"

# number KEY: the first one of that name in out.
number() {
    sed -n "s/.*\"$1\": *\([-0-9.e]*\).*/\1/p" out | head -n 1
}

text='builtin:stories?bytes=60000'
"$itera" train --preset itera-m-micro --tokenizer bpe:300 --data "$text" --valid none --steps 30 \
    --seq 64 --threads 2 --out run >out 2>err || die "training"
model=run/model.safetensors

# Each option is there once.
for command in prune vocab quantize distill ledger; do
    "$itera" $command --help >out
    twice=$(sed -n 's/^ \{2,6\}\(-., \)\{0,1\}\(--[a-z-]*\) .*/\2/p' out | sort | uniq -d)
    [ -z "$twice" ] || die "$command --help has $twice twice"
done

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
refused 1 'tuned: has a training run already; choose another directory for --run' prune \
    small.safetensors --keep 50% --finetune 4 --run tuned -o x
refused 1 'tuned: has a training run already' vocab small.safetensors --data "$text" --finetune 4 \
    --run tuned -o x
cmp -s tuned/model.safetensors smaller.safetensors || die "not the best model"

# A fine-tuning that is killed leaves what was there: a model that is only pruned is no result.
for command in 'prune --keep 50%' 'vocab --size 280'; do
    echo old >there.safetensors
    rm -rf killed
    # shellcheck disable=SC2086
    "$itera" ${command%% *} $model ${command#* } --data "$text" --finetune 100000 --seq 16 -b 1 \
        --run killed --force -o there.safetensors >out 2>err &
    pid=$!
    while [ ! -e killed/checkpoint/state.json ] && kill -0 $pid 2>/dev/null; do sleep 0.05; done
    kill -9 $pid || die "$command: ended before it was killed"
    wait $pid 2>/dev/null || true
    [ "$(cat there.safetensors)" = old ] || die "$command: wrote its output before it was done"
done

refused 1 'cannot keep 1 of 4; from 2 (a token goes to 2) to 4' prune $model --experts 1 -o x
refused 1 'inner channels: cannot keep 0 of 128; from 1 to 128' prune $model --inner 0 -o x
refused 1 '"most" is neither a number nor a percentage' prune $model --ffn most -o x
refused 1 'nothing would be removed' prune $model --keep 100% -o x
refused 1 'too short: it has .* tokens, 90000 are needed' prune $model --keep 50% --tokens 90000 \
    --calibrate "$text" -o x
refused 1 'none/x: cannot write a model' prune $model --keep 50% -o none/x
refused 1 'is what is read' prune run --keep 50% -o ./run/model.safetensors
echo '{"weight_map": {"model.embed_tokens.weight": "model.safetensors"}}' >run/index.json
refused 1 'is what is read' prune run/index.json --keep 50% -o run/model.safetensors
rm run/index.json
refused 2 'one of --experts' prune $model -o x
refused 2 '-o FILE is needed' prune $model --keep 50%
refused 2 'data needs --finetune' prune $model --keep 50% --data "$text" -o x
refused 2 'lr needs --finetune' prune $model --keep 50% --lr 1e-4 -o x
[ ! -e x ] || die "a refused command left a file"

# ---- quantize
"$itera" quantize $model --to q4 --set '*embed*=q8' --calibrate "$text" --tokens 2048 --report \
    --valid 'builtin:stories?valid&bytes=5000' -o q.safetensors --json=q.json >out 2>err ||
    die "quantize"
grep -q '^model.embed_tokens.weight .* f32 *q8 ' out || die "the report has no q8 embedding"
grep -q 'mamba.out_proj.weight .* f32 *q4 ' out || die "the report has no q4 projection"
grep -q 'mamba.dt_proj.weight .* f16 \*' out || die "rows of 4 are not f16"
cp q.json out
[ "$(number bytes)" -eq "$(wc -c <q.safetensors)" ] || die "other bytes than the file's"
[ "$(number bytes_before)" -eq "$(wc -c <$model)" ] || die "other bytes than the model's"
grep '"perplexity"' q.json | sed -n '2s/[^0-9.]//gp' >after
"$itera" eval q.safetensors --data 'builtin:stories?valid&bytes=5000' --json >out 2>err || die "eval"
[ "$(number perplexity)" = "$(cat after)" ] || die "the file has another perplexity than the report"
"$itera" info q.safetensors --json >out 2>err || die "info"
grep -q '"q4"' out || die "no bytes in q4"
"$itera" generate q.safetensors --prompt "Once upon" -n 5 >out 2>err || die "generate"
for type in f16 bf16 q8 mixed f32; do
    "$itera" quantize $model --to $type --plain --force -o t.safetensors >out 2>err || die "to $type"
done

refused 1 'quantised already' quantize q.safetensors --to q8 -o x
refused 1 "'\*nothing' matches no tensor of this model; it has model.embed" quantize $model --to q8 \
    --set '*nothing=q4' -o x
refused 1 "'q3' in the rule for '\*proj\*' is no type" quantize $model --to q8 --set '*proj*=q3' -o x
refused 1 'they are one matrix' quantize $model --to q8 --set '*up_proj*=q4' -o x
refused 1 'too short: it has .* tokens, 90000 are needed' quantize $model --to q4 --tokens 90000 \
    --calibrate "$text" -o x
refused 1 'is what is read' quantize $model --to q4 -o run/./model.safetensors
refused 1 'is what is read' quantize run --to q4 -o run/model.safetensors
refused 1 'none/x: cannot write a model' quantize $model --to q4 -o none/x
refused 2 "not 'q5'" quantize $model --to q5 -o x
refused 2 '-o OUT is needed' quantize $model --to q4
refused 2 'goes with --calibrate' quantize $model --to q4 --tokens 5 -o x
refused 2 'goes with --valid or --report' quantize $model --to q4 --eval-tokens 5 -o x
refused 1 'is what is read' ledger $model --data "$text" --html $model

# ---- vocab
printf 'Once upon a time there was a cat. The cat sat.\n%.0s' 1 2 3 4 5 6 7 8 9 >cat.txt
"$itera" vocab $model --data cat.txt --valid cat.txt -o few.safetensors --json=report.json >out 2>err ||
    die "vocab"
grep -q 'cat.txt .*100.00%  *100.00%  *0.000%' out || die "coverage"
cp report.json out
[ "$(number same_tokens)" = 1.0 ] || die "same_tokens"
after=$(sed -n '/"after"/,/}/s/.*"vocabulary": \([0-9]*\).*/\1/p' report.json)
"$itera" info few.safetensors --json >out 2>err || die "info"
[ "$(number vocabulary)" -eq "$after" ] || die "the report has another vocabulary than the file"
[ "$after" -lt 300 ] || die "$after tokens"
"$itera" generate few.safetensors --prompt 'Zoë: cat' -n 5 >out 2>err || die "generate"
grep -q 'Zoë: cat' out || die "the prompt came back changed"
"$itera" vocab $model --data cat.txt --retrain 270 --valid cat.txt --finetune 3 --seq 32 \
    -o new.safetensors >out 2>err || die "vocab --retrain"
grep -q 'fine-tuned' out || die "no score after fine-tuning"
"$itera" eval new.safetensors --data cat.txt >out 2>err || die "eval"

refused 1 'cannot keep 200 of 300 tokens; from 257 (bytes and special tokens) to 300' vocab $model \
    --data cat.txt --size 200 -o x
refused 1 'nosuch.txt: cannot open' vocab $model --data nosuch.txt -o x
refused 1 'not smaller; the model has 300' vocab $model --data cat.txt --retrain 400 -o x
refused 1 'is what is read' vocab $model --data cat.txt -o run/./model.safetensors
refused 2 'data SRC is needed' vocab $model -o x
refused 2 'run needs --finetune' vocab $model --data cat.txt --run dir -o x
refused 2 'retrain makes new tokens' vocab $model --data cat.txt --retrain 260 --size 260 -o x

# What is quantised stays as it is.
"$itera" quantize $model --to q8 -o q8.safetensors >out 2>err || die "quantize"
refused 1 'prune first, then quantise' prune q8.safetensors --keep 50% -o x
refused 1 'shrink first, then quantise' vocab q8.safetensors --data cat.txt -o x
# The other way round works.
"$itera" quantize small.safetensors --to mixed -o mixed.safetensors >out 2>err || die "quantize"
"$itera" eval mixed.safetensors --data cat.txt >out 2>err || die "eval of a pruned, quantised model"
# The ledger: sizes are those of files and directories, quality that of eval, and the report stands alone.
"$itera" ledger run small.safetensors mixed.safetensors --data cat.txt --device cpu --rounds 2 \
    --seconds 0.02 --json ledger.json --html ledger.html >table 2>err || die "ledger"
for file in $model small.safetensors mixed.safetensors; do
    grep -q "\"bytes_on_disk\": $(stat -c %s "$file")" ledger.json || die "ledger: size of $file"
    "$itera" eval "$file" --data cat.txt --device cpu --json >out 2>err || die "eval"
    grep -q "\"bits_per_byte\": $(number bits_per_byte)" ledger.json || die "ledger: quality of $file"
done
[ "$(grep -c 'safetensors' table)" -eq 2 ] || die "ledger: rows"
grep -q '"energy": null' ledger.json && ! grep -q 'energy_reason' ledger.json && die "no energy, no reason"
grep -q '<table>' ledger.html || die "ledger: no table"
# A picture of nothing for its icon is no file.
sed 's|href="data:,"||' ledger.html | grep -q 'src=\|href=' && die "ledger: the report needs other files"
"$itera" ledger $model --data cat.txt --device cpu --rounds 1 --seconds 0.02 --tdp 10 --json >out 2>err ||
    die "ledger --tdp"
grep -q '"measured": false' out || die "an estimate must say so"
refused 2 'data SRC is needed' ledger $model
refused 1 'nosuch.safetensors' ledger $model nosuch.safetensors --data cat.txt
refused 1 'nosuch/l.html: cannot write' ledger $model --data cat.txt --html nosuch/l.html
[ ! -e x ] || die "a refused command left a file"

echo "passed"
