#!/bin/sh
# What somebody types first: train without a word, own text, a longer run, eval of what came of it, text
# that no message breaks. Usage: tests/first_steps.sh ITERA
set -eu
. "$(dirname "$0")/command.sh"

cat >config.json <<'JSON'
{"architecture": "itera", "vocab_size": 257, "hidden_size": 16, "num_layers": 2,
 "ssm_state_size": 4, "num_experts": 4, "expert_size": 8, "max_seq_length": 32}
JSON
awk 'BEGIN { for (i = 0; i < 900; i++) print "line " i " of a text of our own" }' >own.txt
small="--config config.json --tokenizer byte --batch 2 --seq 16 --threads 1"

# A folder is named by the model and the day, and no other run is written over.
# shellcheck disable=SC2086
exits 0 train $small --data own.txt --steps 20
# shellcheck disable=SC2086
exits 0 train $small --data own.txt --steps 20
set -- config-20??-??-?? config-20??-??-??-2
[ -f "$1/model.safetensors" ] || die "no folder by date: $(ls)"
[ -f "$2/model.safetensors" ] || die "no second folder by date: $(ls)"
says 'validated on own.txt?valid' err
says 'step 20 of 20: loss [0-9.]*, validation loss' err
run=$1
echo "ok: train alone"

# What it would take is said before, and leaves nothing.
# shellcheck disable=SC2086
exits 0 train $small --data own.txt --epochs 2 --dry-run --out dry --json=dry.json
says '^memory  *[0-9.]* [KM]iB on cpu' out
says '^a step  *[0-9.]* ms (median of [1-9]' out
says '"step_seconds": [0-9]' dry.json
[ ! -e dry ] || die "--dry-run left a folder"
refused 2 'from its beginning' train --dry-run --resume --out "$1"

# What no run says, what failed, leaves nothing.
refused 1 'cannot open' train --data nosuch.txt --out failed
[ ! -e failed ] || die "a failed start left its folder"
mkdir empty
refused 1 'empty: there is no training run to go on with' train --resume --out empty

# Longer; not shorter than it is.
exits 0 train --resume --out "$run" --steps 30 --threads 1
says '30 steps instead of 20' err
says '30 of 30 steps' out
refused 1 '30 steps already' train --resume --out "$run" --steps 25 --threads 1
echo "ok: resume"

# shellcheck disable=SC2086
exits 0 train $small --data own.txt --valid none --steps 20 --out plain --sample 'line 5'
says 'without validation' err
says 'step 20 of 20: loss' err
says 'sample: line 5 | ' err
says '"prompt": "line 5", "sample": ' plain/train.jsonl

# What a run used, complete, makes the same run; the command line goes before it.
exits 0 train --options plain/options.json --out again --threads 1
cmp plain/model.safetensors again/model.safetensors || die "options.json makes another run"
exits 0 train --options plain/options.json --out fewer --threads 1 --steps 3
says '3 of 3 steps' out
echo '{"stps": 3}' >wrong.json
refused 2 "wrong.json: there is no option 'stps'" train --options wrong.json --out wrong
echo '{"steps": [[3]]}' >wrong.json
refused 2 'is a string, a number or a list' train --options wrong.json --out wrong
echo '{"steps": 3' >wrong.json
refused 1 "wrong.json: '}' expected" train --options wrong.json --out wrong
[ ! -e wrong ] || die "a run of wrong options left its folder"

# A model's own text is what its run set aside. Other text is said to be that.
exits 0 eval "$run" --threads 1
says 'itera on own.txt?valid' out
cp out own
exits 0 eval "$run/model.safetensors" --data 'own.txt?valid' --threads 1
[ "$(sed -n 2,5p own)" = "$(sed -n 2,5p out)" ] || die "two ways to the same text differ"
exits 0 eval "$run" --data 'builtin:stories?bytes=2000' --threads 1
says 'is not the text that its run set aside' err
cp "$run/model.safetensors" alone.safetensors
refused 1 'lies in no run' eval alone.safetensors
exits 0 quantize "$run/model.safetensors" --to q8 -o "$run/q8.safetensors" --report --threads 1
says 'on own.txt?valid, ' out

# What is there is not replaced without being asked.
refused 1 'q8.safetensors: is there already; --force replaces it' \
    quantize "$run/model.safetensors" --to q4 -o "$run/q8.safetensors"
exits 0 quantize "$run/model.safetensors" --to q8 -o "$run/q8.safetensors" --force

# Tables of several; what comes before a failure is kept.
exits 0 eval "$run" "$run/q8.safetensors" --data own.txt --data 'builtin:stories?bytes=2000' \
    --threads 1 --csv table.csv --json table.json
[ "$(cat out table.csv | wc -l)" -eq 10 ] || die "no table of four: $(cat out table.csv)"
[ "$(grep -c '"bits_per_byte"' table.json)" -eq 4 ] || die "no four results in JSON"
got=0
"$itera" eval "$run" nosuch.safetensors --data own.txt --threads 1 >out 2>err || got=$?
[ "$got $(wc -l <out)" = "1 2" ] || die "the first of two was lost"
got=0
timeout -s INT 4 "$itera" eval "$run" --data builtin:stories --stride 1 --threads 1 -d cpu >out 2>err || got=$?
says 'was stopped' err
says 'bits per byte' out
got=0
timeout -s INT 4 "$itera" check --grad >out 2>err || got=$?
says 'the check was stopped' err
says '^[0-9]* passed, 0 failed, [0-9]* skipped' out
exits 0 eval "$run" --threads $(($(getconf _NPROCESSORS_ONLN) + 1)) --max-tokens 100
says 'note: .* threads share' err
echo "ok: eval"

# Positions end after 32 tokens: that is said after the text, whose last line is a line.
"$itera" generate "$run" --prompt 'line' -n 80 --threads 1 --ignore-eot >both 2>&1 || die "generate"
tail -n 2 both | head -n 1 | grep -q '^itera: note: the model.s 32 positions are used up' ||
    die "the note is not a line of its own behind the text: $(tail -n 3 both)"

# Many prompts at once say what they say one by one, in their order, whatever is computed together.
printf 'line 1\n\nline of our own, and longer\nline' >prompts.txt
for batch in 1 3 16; do
    exits 0 generate "$run" --prompts prompts.txt --samples 2 -n 9 --threads 1 --batch $batch \
        --json "many.$batch"
    sed '/"batch"/d; /tokens_per_second/d' many.$batch >many
    [ $batch -eq 1 ] || cmp many first || die "batches of $batch write other texts"
    cp many first
done
[ "$(grep -c '"sample": 1' many)" -eq 4 ] || die "not two samples of four prompts"
exits 0 generate "$run" --prompts - -n 9 --threads 1 --seed 3 <prompts.txt
cp out many
exits 0 generate "$run" --prompt 'line' -n 9 --threads 1 --seed 6
tail -n "$(wc -l <out)" many | cmp - out || die "the last prompt has another text by itself"
refused 2 'exclude each other' generate "$run" --prompts prompts.txt --prompt x
refused 1 'nosuch.txt: cannot open' generate "$run" --prompts nosuch.txt
echo "ok: generate"
