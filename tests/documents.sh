#!/bin/sh
# The commands of README and docs, as they stand there: every block of commands is run, in a folder of
# its document that has the files which it names. Only the work is made small: a training takes two
# steps, large presets are their small sisters, benchmarks are quick.
#
#   documents.sh SOURCE_FOLDER ITERA_COMMAND
set -eu
source=$(realpath "$1")
itera=$(realpath "$2")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# What stands in front of a command of ours, or is none of ours and builds, installs, or takes hours.
mkdir "$dir/bin"
cat >"$dir/bin/itera" <<END
#!/bin/sh
itera='$itera' source='$source' devices='$dir/devices.json'
END
cat >>"$dir/bin/itera" <<'END'
command=$1
shift
n=$#
last=
while [ "$n" -gt 0 ]; do
    word=$1
    case $last in
    --preset | --via)
        word=$(echo "$word" | sed 's/mamba-130m/mamba-tiny/; s/itera-m-small\|itera-m$/itera-m-micro/
                                   s/transformer-tiny/transformer-micro/; s/^tiny\|,tiny/micro/')
        ;;
    --finetune) word=2 ;;
    --device) grep -q "\"$word\"\|all" "$devices" || word=cpu ;;
    esac
    last=$1
    shift
    set -- "$@" "$word"
    n=$((n - 1))
done
case $command-$* in
*--resume*) ;;
train-* | distill-*) set -- "$@" --steps 2 --batch 1 --seq 16 --eval-tokens 300 --force ;;
bench-goals*) set -- "$@" --from "$source/bench/results/epyc-avx2-2core-goals.json" ;;
bench-ops*) set -- "$@" --quick --op gelu --seconds 0.01 ;;
bench-train*) set -- "$@" --threads 1 --dtype f32 --seconds 0.01 --train-seq 16 ;;
bench-*--sweep*) set -- "$@" --quick --threads 1 --seconds 0.01 --at 16,32 ;;
bench-*) set -- "$@" --quick --threads 1 --dtype f32 --seconds 0.01 --phase decode ;;
check-*--expected*) set -- "$@" --device cpu ;;
check-*) set -- "$@" --op add --cases 2 ;;
ledger-*) set -- "$@" --rounds 1 --threads 1 ;;
energy-*) set -- "$@" --seconds 0 ;;
devices-*--tune* | devices-*--kernels*) set -- "$@" --preset micro --dtype f32 --device cpu ;;
esac
"$itera" "$command" "$@" && exit
status=$?
# Two measurements of so little differ.
case $command-$* in
compare-* | bench-*--baseline*) [ $status -eq 1 ] && exit 0 ;;
esac
exit $status
END
chmod +x "$dir/bin/itera"
PATH=$dir/bin:$PATH
export PATH ITERA_CACHE_DIR="$dir/cache"

"$itera" devices --json "$dir/devices.json"

# The files that documents name.
mkdir -p "$dir/files/tinystories" "$dir/files/wikitext-2" "$dir/files/docs"
cd "$dir/files"
ln -s "$source/kernels_cl" "$source/bench" .
cp "$source"/docs/performance.md "$source"/docs/results.md docs
cat "$source"/README.md "$source"/docs/[a-q]*.md >stories.txt
head -c 20000 "$source/docs/results.md" | sed 's/[^ -~]//g' >other.txt
cp stories.txt train.txt
printf 'One line\nAnother\n' >prompts.txt
cp other.txt valid.txt
cp other.txt test.txt
cp train.txt valid.txt tinystories
cp train.txt valid.txt test.txt wikitext-2
# shellcheck disable=SC2016
sed -n '/^```json/,/^```/p' "$source/docs/architectures.md" | sed '/^```/d' >mine.json
prepare() {
    "$itera" "$@" >log 2>&1 || {
        echo "itera $*"
        cat log
        exit 1
    }
}
prepare train --preset itera-m-micro --data stories.txt --tokenizer bpe:1200 --steps 2 --batch 1 \
    --seq 16 --valid none --out run
cp -r "$source/tests/fixtures/itera-small" MODEL
cp MODEL/expected.safetensors FILE
prepare bench ops --quick --op gelu --json before.json --threads 1
for copy in after a b c d1 d2; do
    cp before.json "$copy.json"
done
for type in f16 q8 mixed; do
    prepare quantize run/model.safetensors --to "$type" -o "teacher.$type.safetensors"
done
mkdir published
prepare train --preset itera-m-micro --data 'builtin:stories?bytes=30000' --tokenizer bpe:600 --steps 2 --batch 1 \
    --seq 16 --valid none --out published
mkdir OUT
cp -r run OUT/teacher
rm log

# Blocks of lines that are indented by four, after an empty line, whose first word is a command's; of
# those the lines that are ours, or a shell's. Each becomes a file DOCUMENT:LINE.
mkdir "$dir/blocks"
cd "$source"
awk -v into="$dir/blocks/" '
    FNR == 1 { code = 0; before = "" }
    /^    / && (code || before == "") {
        if (!code) {
            name = FILENAME
            gsub("/", "-", name)
            file = sprintf("%s%s:%04d", into, name, FNR)
            taken = $1 ~ /^(itera|ITERA_[A-Z_]*=.*|for|cmake|cc|tools\/.*|bench\/.*|build\/.*)$/
            ours = 1
        }
        code = 1
        if (!continued && /^    [a-z.]/)
            ours = $1 !~ /^(\.\.\.|cmake|cc|git|tools\/.*|bench\/.*|build\/dev\/tests.*)$/
        continued = /\\$/
        if (taken && ours) {
            sub(/^    /, "")
            print > file
        }
        next
    }
    { code = 0; continued = 0; before = $0 }
' README.md CONTRIBUTING.md docs/*.md

blocks=0
failed=0
last=
for block in "$dir"/blocks/*; do
    name=$(basename "$block")
    blocks=$((blocks + 1))
    document=${name%:*}
    if [ "$document" != "$last" ]; then
        rm -rf "$dir/here"
        cp -r "$dir/files" "$dir/here"
        last=$document
    fi
    sed -i 's/build\/[a-z]*\/itera/itera/; s/FILE\.\.\./before.json/' "$block"
    cd "$dir/here"
    began=$(date +%s)
    if sh -ex "$block" >out 2>&1 </dev/null; then
        echo "passed  $name $(($(date +%s) - began)) s"
    else
        echo "FAILED  $name"
        cat "$block"
        tail -n 15 out
        failed=$((failed + 1))
    fi
done
echo "$blocks blocks of commands, $failed failed"
[ "$failed" -eq 0 ] && [ "$blocks" -gt 20 ]
