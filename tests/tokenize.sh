#!/bin/sh
# Tokenizers from the command line: ids, pieces and counts, and where a tokenizer is found.
# Usage: tests/tokenize.sh ITERA FIXTURES
set -eu
fixtures=$(realpath "$2")
. "$(dirname "$0")/command.sh"

# ids IDS ARGUMENT...: the whole output of tokenize.
ids() {
    expected=$1
    shift
    exits 0 tokenize "$@"
    [ "$(cat out)" = "$expected" ] || die "$*: expected '$expected'"
}

ids '97 98' byte ab
ids '3' byte --count abc
ids '97 256' byte --special 'a<|endoftext|>'
printf 'ab\0\0c' >texts
ids '97 98

99' byte -0 -f texts
[ "$(printf 'a\n' | "$itera" tokenize byte)" = '97 10' ] || die 'stdin is no text'
ids '97	"a"
10	"\n"
195	"\xC3"
34	"\""' byte --pieces "$(printf 'a\n\303"')"
exits 0 tokenize byte --json - ab
tr -d ' \n' <out | grep -q '{"texts":\[{"tokens":2,"ids":\[97,98\]}\]}' || die 'other JSON'
exits 2 tokenize byte --pieces --count x
exits 2 tokenize byte -f texts x
exits 1 tokenize byte -f nothing
says 'nothing: cannot open' err
exits 1 tokenize nothing x
says 'neither byte' err

# RoBERTa's layout: markers in vocab.json that no merge makes.
mkdir pair
printf '{"<s>":0,"<pad>":1,"</s>":2,"a":3,"b":4,"ab":5,"madeupword0":6}' >pair/vocab.json
printf '#version: 0.2\na b\n' >pair/merges.txt
ids '5 3' pair aba
ids '0 5 2' pair --special '<s>ab</s>'
exits 1 tokenize pair '<s>'
says 'no token for byte 0x3C' err
# Cut short, though: the last tokens are two others, and no merge makes them.
printf '{"a":0,"b":1,"ab":2,"abab":3,"<s>":4}' >pair/vocab.json
exits 1 tokenize pair x
says 'merges are missing: none of the 1 makes token 3 ("abab")' err

# A model's tokenizer is inside, or lies beside it, whether a file or a directory is named.
cp "$fixtures/mamba-small/model.safetensors" "$fixtures/mamba-small/config.json" .
exits 1 tokenize model.safetensors x
says 'model has no tokenizer' err
printf '{"itera":{"version":1,"kind":"char","tokens":["<|endoftext|>","<unk>","a"]}}' >tokenizer.json
ids '2' model.safetensors a
ids '2' . a
exits 0 generate model.safetensors -p a -n 1 -d cpu --temp 0 --json -
says '"prompt_tokens": 1' out
exits 1 tokenize byte -f model.safetensors --json=model.safetensors
says 'model.safetensors' err

# Text costs what it is long, and then an error, whatever the expression.
head -c 100000 /dev/zero | tr '\0' a >a.txt
{
    printf '{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":'
    printf '"%s"},"behavior":"Isolated"},{"type":"ByteLevel"}]},' '(a+)+b|\\w+!|a'
    printf '"model":{"vocab":{"a":0,"aa":1},"merges":["a a"]}}'
} >slow.json
exits 1 tokenize slow.json --count -f a.txt
says 'take too long for this text' err
# A million blanks are text.
head -c 1000000 /dev/zero | tr '\0' ' ' >blanks.txt
{
    printf '{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"%s"},' \
        '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
    printf '"behavior":"Isolated"},{"type":"ByteLevel","use_regex":false}]},'
    printf '"model":{"vocab":{"\\u0120":0,"\\u0120\\u0120":1,"x":2},"merges":["\\u0120 \\u0120"]}}'
} >llama.json
ids 500000 llama.json --count -f blanks.txt
printf x >>blanks.txt
ids 500002 llama.json --count -f blanks.txt
