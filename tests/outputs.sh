#!/bin/sh
# What a command reads outlives what it writes, whatever the option and by whatever name; and two
# outputs are two files.
# Usage: tests/outputs.sh ITERA SOURCE
set -eu

source=$(realpath "$2")
. "$(dirname "$0")/command.sh"

# keeps FILE ARGUMENT...: the command is refused, and FILE is what it was.
keeps() {
    file=$1
    shift
    before=$(cksum <"$file")
    exits 1 "$@"
    says 'is what is read; write to another file' err
    [ "$(wc -l <err)" -eq 1 ] || die "$*: not one line of error"
    [ "$(cksum <"$file")" = "$before" ] || die "$*: $file was replaced"
}

"$itera" train --preset micro --data 'builtin:stories?bytes=20000' --valid none --steps 1 --seq 16 \
    --tokenizer byte --threads 1 --out run >out 2>err || die "training"
m=run/model.safetensors
echo "Once upon a time there was a dog." >t.txt
mkdir texts links
cp t.txt texts/a.txt
ln -s ../$m links/m
ln $m links/hard
ln -s t.txt link.txt

# Every way to name an output, and every way to name the model.
keeps $m logits $m --tokens 1 -o $m
keeps $m logits $m --tokens 1 -o ./run/../$m
keeps $m logits links/m --tokens 1 -o $m
keeps $m logits $m --tokens 1 -o links/m
keeps $m logits links/hard --tokens 1 -o $m
keeps $m logits run --tokens 1 -o $m
keeps $m eval $m --data t.txt --json=$m
keeps $m eval run --data t.txt --json=links/hard
keeps $m info $m --json=$m
keeps $m generate $m -p a -n 1 --json=$m
keeps $m check $m --json=$m
keeps $m bench model $m --html $m
keeps $m bench model $m --csv $m
keeps $m bench model $m --json=links/m
keeps $m ledger $m --data t.txt --html links/hard
keeps $m ledger $m --data t.txt --json=$m
keeps $m prune run --keep 50% -o $m
keeps $m prune $m --keep 50% -o x --json=$m
keeps $m quantize $m --to q8 -o $m
keeps $m quantize run --to q8 -o x --json=$m
keeps $m vocab $m --size 200 --data t.txt -o $m
keeps $m vocab $m --size 200 --data t.txt -o x --json=$m
keeps $m train --init $m --data t.txt -o new --json=$m
keeps $m train --init $m --data t.txt -o run --force
keeps $m distill $m --data t.txt -o run --force
keeps $m distill run --data t.txt -o new --json=$m

# Every other input.
keeps t.txt eval $m --data t.txt --json=t.txt
keeps t.txt eval $m --data link.txt --json=t.txt
keeps t.txt eval $m --data texts/a.txt,t.txt --json=./t.txt
keeps texts/a.txt eval $m --data texts --json=texts/a.txt
keeps t.txt train --data t.txt -o new --json=t.txt
keeps t.txt train --data builtin:stories --valid t.txt -o new --json=t.txt
keeps t.txt prune $m --keep 50% --calibrate t.txt -o t.txt
keeps t.txt prune $m --keep 50% --valid t.txt -o x --json=t.txt
keeps t.txt prune $m --keep 50% --finetune 1 --data t.txt -o t.txt
keeps t.txt quantize $m --to q8 --calibrate t.txt -o t.txt
keeps t.txt quantize $m --to q8 --valid t.txt -o x --json=t.txt
keeps t.txt vocab $m --size 200 --data t.txt --json=t.txt -o x
keeps t.txt ledger $m --data t.txt --html t.txt
keeps t.txt generate $m -f t.txt -n 1 --json=t.txt
keeps t.txt tokenize $m -f t.txt --json=t.txt
echo 1 >ids
keeps ids logits $m --tokens-file ids -o ids

# What lies around a model is read with it.
mkdir parts
cp "$source"/tests/fixtures/itera-small/* parts/
for file in parts/config.json parts/model.safetensors; do
    keeps "$file" eval parts --data t.txt --json="$file"
    keeps "$file" logits parts/model.safetensors --tokens 1 -o "$file"
done
cp parts/config.json c.json
keeps c.json train --config c.json --data t.txt -o new --json=c.json
keeps c.json train --preset ./c.json --data t.txt -o new --json=c.json
keeps c.json info --preset ./c.json --json=c.json

# Results and their reports.
exits 0 bench ops --op '*rms_norm*' --device cpu --threads 1 --seconds 0.01 --json b.json
for out in --html --csv --json --markdown; do
    keeps b.json compare b.json $out=b.json
done
echo '{"models":[]}' >l.json
keeps l.json compare b.json --html l.json --ledger l.json
keeps b.json bench ops --baseline b.json --json=b.json
keeps b.json bench ops --baseline b.json --html b.json

# Two outputs are two files.
twice() {
    exits 1 "$@"
    says 'would be written twice; give each output a file of its own' err
    [ ! -e x ] || die "$*: something was written"
}
twice compare b.json --html x --csv x
twice compare b.json --html x --csv "./x"
twice compare b.json --html x --csv "$PWD/links/../x"
twice ledger $m --data t.txt --html x --json=x
twice prune $m --keep 50% -o x --json=x
mkdir x2
twice train --data t.txt -o x2 --json=x2/model.safetensors
twice prune $m --keep 50% --finetune 1 --run x2 -o x2/model.safetensors
ln -s y1 y2
echo >y1
twice compare b.json --html y1 --csv y2

# None of this is in the way of what is no file, or only lies beside an input.
exits 0 compare b.json --html /dev/null --csv /dev/null
exits 0 eval run --data t.txt --json=run/eval.json
exits 0 eval run --data t.txt --json=run/eval.json
exits 0 logits run --tokens 1 -o run/logits.safetensors
exits 0 logits run --tokens 1 -o run/logits.safetensors
exits 0 logits links/hard --tokens 1 -o links/m2
echo "ok"
