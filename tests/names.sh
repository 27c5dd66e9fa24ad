#!/bin/sh
# Names that are not UTF-8: every command reads and writes files that have them, and its JSON is JSON,
# on stdout and in files. Usage: tests/names.sh ITERA
set -eu

. "$(dirname "$0")/command.sh"

if [ -n "$(command -v python3)" ]; then
    is_json() { python3 -c 'import json, sys; json.load(open(sys.argv[1], encoding="utf-8"))' "$1"; }
else
    is_json() { [ "$(head -n 1 "$1")" != "" ] && [ "$(tail -n 1 "$1")" = "}" ]; }
fi

# Latin-1 in the middle and at the end, where it looks like a letter that was cut.
e=$(printf '\351')
folder="d${e}j${e}"
mkdir "$folder"
"$itera" train --preset itera-m-micro --tokenizer bpe:300 --data 'builtin:stories?bytes=60000' \
    --valid none --steps 2 --seq 32 --device cpu --threads 2 --out "$folder/made" >out 2>err || die "training"
model="$folder/m$e.safetensors"
mv "$folder/made/model.safetensors" "$model"
text="$folder/text$e"
i=0
while [ $i -lt 300 ]; do
    echo "Once upon a time there was a girl who had $i cats, and a dog."
    i=$((i + 1))
done >"$text"
cp "$text" "$folder/valid$e"
valid="$folder/valid$e"

# json KEY COMMAND...: with its JSON on stdout, then in a file.
json() {
    key=$1
    shift
    set -- "$@" --device cpu --threads 2
    "$itera" "$@" --json >out 2>err || die "$*: exit status $?"
    is_json out || die "$*: stdout is not JSON"
    grep -q "\"$key\": \".*d?j?" out || die "$*: stdout has no $key"
    rm -rf "${folder:?}"/out*
    "$itera" "$@" "--json=$folder/report$e" >out 2>err || die "$*: exit status $? with a file"
    is_json "$folder/report$e" || die "$*: its file is not JSON"
    rm -rf "${folder:?}"/out* "$folder/report$e"
}

json model train --init "$model" --data "$text" --valid "$valid" --steps 2 --seq 16 \
    --out "$folder/out$e"
json teacher distill "$model" --preset itera-m-micro --data "$text" --valid none --steps 2 \
    --seq 16 --out "$folder/out$e"
json directory distill "$model" --preset itera-m-micro --via itera-m-micro --data "$text" \
    --valid none --steps 2 --seq 16 --out "$folder/out$e"
json out prune "$model" --experts 3 --calibrate "$text" --tokens 512 --valid "$valid" \
    --finetune 2 -o "$folder/out$e"
json data vocab "$model" --size 290 --data "$text" --valid "$valid" --finetune 2 \
    -o "$folder/out$e"
json calibration quantize "$model" --to mixed --calibrate "$text" --valid "$valid" \
    -o "$folder/out$e"
json data ledger "$model" "$model" --data "$text" --prompt 8 --rounds 1 --seconds 0.01 --max-tokens 200

# What names no file in its JSON.
for arguments in "eval --device cpu --data" "generate --device cpu -n 3 --prompt-file" "tokenize -f" "info"; do
    case $arguments in info) file= ;; *) file=$text ;; esac
    # shellcheck disable=SC2086
    set -- ${arguments%% *} "$model" ${arguments#"${arguments%% *}"}
    "$itera" "$@" ${file:+"$file"} --json >out 2>err || die "$*: exit status $?"
    is_json out || die "$*: stdout is not JSON"
done

# A run of such names goes on as what it was.
"$itera" distill "$model" --preset itera-m-micro --data "$text" --valid "$valid" --steps 4 --device cpu \
    --seq 16 --eval-every 2 --out "$folder/run$e" >out 2>err || die "distilling"
"$itera" distill --out "$folder/run$e" --resume --device cpu --json >out 2>err || die "going on"
grep -q '"best_loss": [0-9]' out || die "going on forgot the validation"
grep -q '"teacher": "d?j?/m?.safetensors"' out || die "going on forgot the teacher"
tr -d '\n ' <"$folder/run$e/checkpoint/state.json" |
    grep -q '{"percent":"d%E9j%E9/valid%E9"}' || die "the checkpoint has not the name"

# Output that is lost is no success.
if [ -c /dev/full ]; then
    status=0
    "$itera" info "$model" --json >/dev/full 2>err || status=$?
    [ $status -eq 1 ] || die "a full disk: exit status $status"
fi
echo "ok"
