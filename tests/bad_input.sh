#!/bin/sh
# The command in the hands of a hostile user: files that are truncated, contradict themselves or hold
# NaN, wrong options, streams that are closed. Each case must end with the right
# exit status and one line of error that names what is wrong; none may crash, or lose what was there.
# Usage: tests/bad_input.sh ITERA FIXTURES
set -u

fixtures=$(realpath "$2")
. "$(dirname "$0")/command.sh"
pass() { passed=$((passed + 1)); }

# accepted ITERA_ARGUMENT...: what is odd, but no error.
accepted() {
    timeout 60 "$itera" "$@" >out 2>err </dev/null
    got=$?
    if [ $got -eq 0 ] && ! crashed $got; then pass; else fail "$* exited with $got"; fi
}

# ---- model files ---------------------------------------------------------------------------------

# header TEXT: a safetensors file of this header and the bytes on stdin, below 64 KiB of header.
header() {
    length=$(printf %s "$1" | wc -c)
    # shellcheck disable=SC2059
    printf "$(printf '\\%03o\\%03o' $((length % 256)) $((length / 256)))\\0\\0\\0\\0\\0\\0"
    printf %s "$1"
    cat
}

# model NAME TENSORS [CONFIG]: a file with these tensors over 64 bytes of zeros; with CONFIG, or an
# itera configuration that it does not fit.
some_config='{\"architecture\":\"itera\",\"vocab_size\":2,\"hidden_size\":2,\"num_layers\":1,\"ssm_state_size\":1,\"num_experts\":1,\"expert_size\":1,\"max_seq_length\":4,\"moe_layers\":[],\"top_k_experts\":1}'
model() {
    head -c 64 /dev/zero |
        header "{\"__metadata__\":{\"itera.config\":\"${3:-$some_config}\"}${2:+,}$2}" >"$1"
}

# tensor NAME SHAPE BEGIN END [DTYPE]
tensor() {
    printf '"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%s,%s]}' "$1" "${5:-F32}" "$2" "$3" "$4"
}

good=$fixtures/itera-small
mkdir copy
cp "$good/config.json" copy/
size=$(wc -c <"$good/model.safetensors")

for bytes in 0 7 8 100 $((size / 2)) $((size - 1)); do
    head -c "$bytes" "$good/model.safetensors" >copy/model.safetensors
    refused 1 'copy/model.safetensors: ' info copy
done
cp "$good/model.safetensors" copy/
echo more >>copy/model.safetensors
refused 1 'found .* bytes of data' info copy
head -c 8 /dev/zero | tr '\0' '\377' >long.safetensors
refused 1 'header of 18446744073709551615 bytes' info long.safetensors

model m.safetensors "$(tensor a 16 0 64)"
refused 1 'embedding.weight: not found' info m.safetensors
model m.safetensors "$(tensor embedding.weight 4,4 0 64)"
refused 1 'embedding.weight: found shape (4, 4), expected (2, 2)' info m.safetensors
model m.safetensors "$(tensor a 16 0 68)"
refused 1 'tensor a: found data_offsets \[0, 68\]' info m.safetensors
model m.safetensors "$(tensor a 8 0 32),$(tensor b 10 24 64)"
refused 1 'tensor b: starts at byte 24 inside tensor a' info m.safetensors
model m.safetensors "$(tensor a 8 0 32)"
refused 1 'found 64 bytes of data, the tensors cover 32' info m.safetensors
model m.safetensors "$(tensor a 16 -4 60)"
refused 1 'tensor a: found data_offsets \[-4, 60\]' info m.safetensors
model m.safetensors "$(tensor a 16 0 9223372036854775807)"
refused 1 'tensor a: found data_offsets' info m.safetensors
model m.safetensors "$(tensor a 4611686018427387904,4611686018427387904 0 64)"
refused 1 'tensor a: the size .* overflows' info m.safetensors
model m.safetensors "$(tensor embedding.weight 2,2 0 64 F99)"
refused 1 'embedding.weight: found F99, expected F32' info m.safetensors
model m.safetensors "$(tensor a -16 0 64)"
refused 1 'tensor a: found -16 as dimension' info m.safetensors
model m.safetensors "$(tensor "$(printf 'a\377')" 16 0 64)"
refused 1 'm.safetensors: .*decode byte 0xff' info m.safetensors
header '[1]' </dev/null >m.safetensors
refused 1 'expected a JSON object' info m.safetensors
header '{}' </dev/null >lonely.safetensors
refused 1 'no configuration' info lonely.safetensors

# One NaN in the right place of a good model.
offset=$(head -c 8 "$good/model.safetensors" | od -An -tu2 -N2 | tr -d ' ')
for value in '\300\177' '\200\177'; do
    cp "$good/model.safetensors" copy/
    # shellcheck disable=SC2059
    printf "\\0\\0$value" |
        dd of=copy/model.safetensors bs=1 seek=$((8 + offset + 12)) conv=notrunc 2>/dev/null
    refused 1 'tensor embedding.weight: found .* at index 3, expected finite' info copy
done
cp "$good/model.safetensors" copy/

# ---- configurations ------------------------------------------------------------------------------

config() {
    sed "s/$1/$2/" "$good/config.json" >copy/config.json
}
config '"itera"' '"gpt-9"'
refused 1 'unknown architecture "gpt-9"' info copy
config '"vocab_size": 50' '"vocab_size": 51'
refused 1 'tensor embedding.weight: found shape (50, 16), expected (51, 16)' info copy
config '"vocab_size": 50' '"vocab_size": 99999999999999999999'
refused 1 'config.json: .*too big integer' info copy
config '"hidden_size": 16' '"hidden_size": 65536'
refused 1 'a tensor would have .* elements' info copy
config '"num_layers": 3' '"num_layers": -3'
refused 1 'key "num_layers": found -3' info copy
config '"ssm_state_size": 4' '"ssm_state_size": "4"'
refused 1 'key "ssm_state_size": found "4"' info copy
config '}' ''
refused 1 'config.json: line' info copy
head -c 100000 /dev/zero | tr '\0' '[' >copy/config.json
refused 1 'parsing depth' info copy
rm copy/config.json
refused 1 'no configuration' info copy
# As large as the limits allow: memory runs out, or does not; it must not crash.
cat >huge.json <<'JSON'
{"architecture": "transformer", "vocab_size": 16777215, "hidden_size": 127, "num_layers": 256,
 "intermediate_size": 1048576, "num_attention_heads": 1, "max_seq_length": 16777215}
JSON
accepted info --preset huge.json
refused 1 'none.json: cannot open' info --preset none.json
refused 1 'unknown preset "nosuch"; known are micro' info --preset nosuch

# ---- MODEL ---------------------------------------------------------------------------------------

mkdir empty
refused 1 'empty: found neither model.safetensors' info empty
refused 1 'nosuch: cannot open for reading' generate nosuch
refused 1 '/dev/null: is not a regular file' info /dev/null
refused 1 'weight_map' info "$good/config.json"
refused 2 'MODEL is empty' eval '' --data builtin:stories
refused 2 'MODEL is missing' generate
refused 1 'the model has no tokenizer' generate "$good" -p x
refused 1 'found shape (2, 21, 53), expected (2, 21, 50)' \
    check "$good" --expected "$fixtures/mamba-small/expected.safetensors"
refused 1 'no tensor input_ids' check "$good" --expected "$good/model.safetensors"

# ---- corpora and tokenizers ----------------------------------------------------------------------

i=0
while [ $i -lt 200 ]; do
    echo "The cat $i sat on the mat."
    i=$((i + 1))
done >text.txt
{ head -c 1000 text.txt; printf 'bad \377\376\n'; cat text.txt; } >broken.txt
: >none.txt
printf ' \n\n ' >white.txt
printf 'Hi.' >short.txt

# A run of a few steps.
tiny='--steps 3 --batch 2 --seq 16 --threads 1 --preset micro'
# refused_train STATUS WORDS OPTION...
refused_train() {
    status=$1
    words=$2
    shift 2
    rm -rf run
    # shellcheck disable=SC2086
    refused "$status" "$words" train --out run $tiny "$@"
}
refused_train 1 'nosuch.txt: cannot open' --tokenizer byte --data nosuch.txt
refused_train 1 'corpus none.txt: there is no text in it' --tokenizer byte --data none.txt
refused_train 1 'corpus white.txt: there is no text in it' --tokenizer byte --data white.txt
refused_train 1 'corpus empty: no \*.txt file' --tokenizer byte --data empty
refused_train 1 'its 4 tokens are fewer than one sequence' --tokenizer byte --data short.txt
refused_train 1 'there is no text' --tokenizer byte --data text.txt --valid none.txt
for tokenizer in char word:100 bpe:300; do
    refused_train 1 'corpus broken.txt: byte 0xff at offset 1004 (line .*) is not UTF-8' \
        --tokenizer $tokenizer --data broken.txt
done
refused_train 1 'neither byte, char, word:N or bpe:N nor a file' --tokenizer bpa:300 --data text.txt
refused_train 1 'give a vocabulary size from 257' --tokenizer bpe:99999999999 --data text.txt
refused_train 1 'text.txt: not JSON' --tokenizer text.txt --data text.txt

# A byte-level BPE of 256 letters, "th", "the" and the end of text.
letters=$(awk 'BEGIN {
    n = 0
    for (b = 0; b < 256; b++) {
        plain = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174
        code = plain ? b : 256 + n++
        printf "\"\\u%04x\":%d,", code, b
    }
}')
merges_json='"t h","th e"'
vocab_json="$letters\"th\":256,\"the\":257,\"<|endoftext|>\":258"
bpe_file() {
    cat >tok.json <<JSON
{"added_tokens": [{"id": 258, "content": "<|endoftext|>", "special": true}],
 "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
 "model": {"type": "BPE", "vocab": {$vocab_json}, "merges": [$merges_json]}}
JSON
}
bpe_file
# shellcheck disable=SC2086
accepted train --out good $tiny --data text.txt --tokenizer tok.json
merges_json='"t h","th e","x y"'
bpe_file
refused_train 1 'merge 3 ("x y") refers to "xy"' --tokenizer tok.json --data text.txt
merges_json='"t h","th e"'
vocab_json="$letters\"th\":256,\"the\":300,\"<|endoftext|>\":258"
bpe_file
refused_train 1 'token "the" has id 300' --tokenizer tok.json --data text.txt
printf '{"model": "\377"}' >tok.json
refused_train 1 'tok.json: not JSON: .* byte 0xff' --tokenizer tok.json --data text.txt
mkdir gpt2
printf '{%s"th":256,"<|endoftext|>":257}' "$letters" >gpt2/vocab.json
refused_train 1 'gpt2/merges.txt: cannot open' --tokenizer gpt2 --data text.txt
printf '{%s"th":256,"the":257,"<|endoftext|>":258}' "$letters" >gpt2/vocab.json
for merges in '' 'th e\n' 't h\n'; do
    # shellcheck disable=SC2059
    printf "#version: 0.2\n$merges" >gpt2/merges.txt
    refused_train 1 'gpt2/merges.txt: merges are missing' --tokenizer gpt2 --data text.txt
done
printf '#version: 0.2\nt \377\n' >gpt2/merges.txt
refused_train 1 'gpt2/merges.txt: line 2 is not UTF-8' --tokenizer gpt2 --data text.txt

# ---- options and environment ---------------------------------------------------------------------

text='--tokenizer byte --data text.txt'
for value in 0 -1 1000000000 1e9 '' x 99999999999999999999; do
    # shellcheck disable=SC2086
    refused_train 2 'threads takes a whole number' $text --threads "$value"
done
# shellcheck disable=SC2086
{
    refused_train 1 "there is no device 'cuda' here; there is: " $text --device cuda
    refused_train 2 'lr takes a number' $text --lr nan
    refused_train 2 'lr takes a number from 0 to 10' $text --lr 1e30
    refused_train 1 'longer than the model.s 128 positions; use 128 or less (--seq)' $text --seq 129
    refused_train 1 'batch x seq at most' $text --batch 65536 --seq 1048576
    refused_train 1 'too many to count' $text --steps 999999999999 --accumulate 65536 --batch 65536
    refused_train 2 'no option .--sead.; did you mean .--seed' $text --sead 3
    refused_train 2 'exclude each other' $text --config x
    refused_train 1 'none/x.json: cannot write JSON' $text --json none/x.json
    refused 1 'nosuch.json: cannot open' train --out run --config nosuch.json $text
    refused 1 'nosuch: cannot open' train --out run --config nosuch $text
    refused 1 'text.txt: cannot make the directory' train --out text.txt $text
    refused 1 'text.txt: cannot make the directory' train --out text.txt/below $text
    refused 1 'name of a directory' train --out '' $text
}
refused 2 'out DIR is needed' train --resume
refused 1 'no training run to go on with' train --resume --out nothing
for level in foo neon9; do
    ITERA_CPU_ISA=$level
    export ITERA_CPU_ISA
    refused 1 "CPU level '$level' (ITERA_CPU_ISA, or --isa)" generate good -p x
    unset ITERA_CPU_ISA
done
refused 2 "no command 'generat'; did you mean 'generate'" generat
refused 2 "no op matches 'nosuch'" check --op nosuch
refused 2 'takes a whole number from 0' generate good -n -1
refused 1 'nosuch: cannot open' generate good -f nosuch
accepted generate good -n 0 -p the --threads 1
accepted generate good -n 3 -p '' --threads 1
accepted generate good -n 3 -p "$(printf '\377\376 x')" --threads 1
accepted generate good -n 3 -p the --min-p 0.1 --presence 1 --frequency -0.5 --repetition 1.2 --threads 1
refused 2 '--min-p' generate good -p x --min-p 1.5
head -c 4000000 "$itera" >program
accepted generate good -n 3 -f program --threads 1
accepted generate good -n 0 -p the --json --threads 1
# Of a prompt longer than its window, the model sees the end: the rate is of that.
accepted generate good -n 0 -f program --json --threads 1
count() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" out; }
if [ "$(count prefill_tokens)" -gt 0 ] && [ "$(count prefill_tokens)" -lt 100000 ] &&
    [ "$(count prompt_tokens)" -gt 100000 ]; then
    pass
else
    fail "generate counts $(count prefill_tokens) of $(count prompt_tokens) prompt tokens"
fi
for tokens in '' ' ' x 1,x -1 1.5 1e3 2147483648 99999999999999999999; do
    refused 2 '--tokens' logits good --tokens "$tokens" -o l.safetensors
done
refused 1 'token 259 at position 1 is out of range; the model has 259' \
    logits good --tokens 1,259 -o l.safetensors
refused 1 'text.txt: .*is no token id' logits good --tokens-file text.txt -o l.safetensors
refused 1 'name of a file to write is empty' logits good --tokens 1 -o ''
if [ ! -e l.safetensors ]; then pass; else fail "logits left a file behind an error"; fi

# ---- streams -------------------------------------------------------------------------------------

# streams STATUS WORDS DESCRIPTION: what `$?` and err show of the command just run.
streams() {
    if [ "$got" -eq "$1" ] && ! crashed "$got" && { [ -z "$2" ] || grep -q -e "$2" err; }; then
        pass
    else
        fail "$3: exit status $got"
    fi
}
{ "$itera" info --preset medium 2>err; echo $? >code; } | head -n 1 >/dev/null
got=$(cat code)
streams 0 '' 'info | head -1'
{ "$itera" generate good -p the -n 2000 --ignore-eot --threads 1 2>err; echo $? >code; } |
    head -c 1 >/dev/null
got=$(cat code)
streams 0 '' 'generate | head -c 1'
if [ -e /dev/full ]; then
    "$itera" info --preset micro >/dev/full 2>err
    got=$?
    streams 1 'stdout failed: No space left' 'info >/dev/full'
fi
# Files that are opened must not take the places of closed streams.
# shellcheck disable=SC2086
"$itera" train --out closed $tiny $text --log-every 1 <&- >&- 2>&-
got=$?
: >err
streams 0 '' 'train without stdin, stdout and stderr'
if [ "$(grep -c '^{"step": [123], .*}$' closed/train.jsonl)" -eq 3 ] &&
    [ "$(wc -l <closed/train.jsonl)" -eq 3 ] && "$itera" info closed >/dev/null 2>err; then
    pass
else
    fail "a run without standard streams left other files than one with them"
fi
env -i "$itera" generate good -p the -n 2 --threads 1 >out 2>err
got=$?
streams 0 '' 'generate without environment'

# ---- runs and checkpoints ------------------------------------------------------------------------

# A run that was stopped after half of its steps, to go on with.
# shellcheck disable=SC2086
"$itera" train --out half $tiny $text --steps 100000 --save-every 2 --log-every 1 >out 2>err &
pid=$!
tries=0
while [ "$(wc -l 2>/dev/null <half/train.jsonl || echo 0)" -lt 5 ] && [ $tries -lt 1000 ]; do
    sleep 0.02
    tries=$((tries + 1))
done
refused 1 'another process is training there' train --out half --resume --threads 1
kill -INT $pid
wait $pid
got=$?
pid=
streams 0 'itera train --out half --resume' 'SIGINT while training'

# damaged WORDS COMMAND [OPTION...]: COMMAND damages a copy of the run; resuming must say WORDS, and
# leave train.jsonl and the model as they were.
damaged() {
    words=$1
    damage=$2
    shift 2
    rm -rf hurt
    cp -r half hurt
    (cd hurt/checkpoint && eval "$damage")
    refused 1 "$words" train --out hurt --resume --threads 1 "$@"
    if cmp -s half/train.jsonl hurt/train.jsonl &&
        cmp -s half/model.safetensors hurt/model.safetensors; then
        pass
    else
        fail "resuming after '$damage' changed what was there"
    fi
}
set_state() {
    echo "sed 's/$1/$2/' state.json >s && mv s state.json"
}
damaged 'state.json: line' 'echo "{" >state.json'
damaged 'state.json: line' ': >state.json'
damaged 'key "format": found "itera-train-9", expected itera-train-1' \
    "$(set_state itera-train-1 itera-train-9)"
damaged 'key "step": found -4' "$(set_state '"step": [0-9]*' '"step": -4')"
damaged 'values do not fit together' \
    "$(set_state '"step": [0-9]*' '"step": 9007199254740992'); $(set_state '"log_bytes": [0-9]*' '"log_bytes": 7')"
damaged 'is not the text that the run began with.* (--init)' "$(set_state '"data_hash": .*' '"data_hash": 1,')"
damaged 'is not the text that the run began with' \
    "$(set_state '"log_bytes": [0-9]*' '"log_bytes": 7')" --data short.txt,text.txt
damaged 'm.safetensors: .*truncated' 'head -c 9000 m.safetensors >m && mv m m.safetensors'
damaged 'v.safetensors: cannot open' 'rm v.safetensors'
damaged 'm.safetensors: tensor embedding.weight: found shape' "cp '$good/model.safetensors' m.safetensors"
damaged 'model.safetensors: found 0 bytes' ': >model.safetensors'
damaged 'm.safetensors: is not what this checkpoint was saved with' 'cp v.safetensors m.safetensors'
damaged 'key "valid" is missing' "$(set_state '"valid": .*' '')"
damaged '--batch is not what the run .* began with' : --batch 3
# shellcheck disable=SC2086
refused 1 'has a training run already; go on with it (--resume), .* replace it (--force)' train --out half $tiny $text
rm -rf hurt
cp -r half hurt
rm hurt/train.jsonl
"$itera" train --out hurt --resume --threads 1 --max-minutes 0.001 >out 2>err
got=$?
streams 0 'earlier lines are missing' 'resuming without train.jsonl'

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
