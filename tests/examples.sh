#!/bin/sh
# The examples and the program of docs/api.md do what they say: a run that is stopped and goes on, text
# from its model, a conversation that is kept, a model that is scored, quantised and loaded.
#
#   examples.sh TRAIN GENERATE CHAT API
set -eu
train=$(realpath "$1")
generate=$(realpath "$2")
chat=$(realpath "$3")
api=$(realpath "$4")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

die() {
    echo "FAIL: $*"
    cat out err 2>/dev/null || true
    exit 1
}

status=0
"$train" 2>err || status=$?
[ $status -eq 2 ] || die "train without arguments exits with $status"
printf 'Once upon a time there was a fox. %.0s' $(seq 200) >text.txt
"$train" text.txt run 20 >out 2>err || die "train"
grep -q '^step 10 of 20: loss [0-9]' out || die "no loss in what train says"
grep -q '^finished after 20 steps: ' out || die "train does not say that it is finished"
"$train" text.txt run 20 >out 2>err || die "train again"
grep -q '^finished after 20 steps: ' out || die "a finished run does not say so"
"$train" none.txt other 20 >out 2>err && die "train takes a text that is not there"
grep -q 'none.txt' err || die "train does not name the text that is not there"

# Ctrl-C, and on; no step is made twice.
rm out # what it has is of the run before, until the shell empties it
"$train" builtin:stories long 100000 >out 2>err &
pid=$!
tries=0
until grep -qs '^step 10 ' out || [ $tries -ge 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT $pid 2>/dev/null || die "train ended by itself"
wait $pid || die "train does not end well when it is interrupted"
stopped=$(sed -n 's/^stopped after \([0-9]*\) steps.*/\1/p' out)
[ -n "$stopped" ] || die "train does not say where it stopped"
rm out
"$train" builtin:stories long >out 2>err &
pid=$!
tries=0
until grep -qs '^step ' out || [ $tries -ge 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
kill -INT $pid 2>/dev/null || die "train ended by itself when it went on"
wait $pid || die "train does not end well when it is interrupted again"
first=$(sed -n 's/^step \([0-9]*\) .*/\1/p' out | head -n 1)
[ "$first" -gt "$stopped" ] || die "train went on at $first after it had stopped at $stopped"

"$generate" run/model.safetensors "Once upon" 10 >out 2>err || die "generate"
grep -q '^Once upon' out || die "generate does not go on from the prompt"

# A conversation in two runs says what it says in one.
printf 'Once upon a time\nthere was a fox\n' | "$chat" run/model.safetensors whole >out 2>err ||
    die "chat"
[ "$(wc -l <out)" -ge 2 ] || die "chat does not answer every line"
mv out whole.txt
echo 'Once upon a time' | "$chat" run/model.safetensors state >out 2>err || die "chat, first run"
mv out halves.txt
echo 'there was a fox' | "$chat" run/model.safetensors state >out 2>err || die "chat, second run"
grep -q '^going on after [0-9]* tokens' err || die "chat does not go on"
cat out >>halves.txt
cmp whole.txt halves.txt || die "a conversation that was kept goes on otherwise"
cmp whole state || die "a conversation that was kept has another state"
head -c 100 state >cut.state
"$chat" run/model.safetensors cut.state </dev/null >out 2>err && die "chat takes a state that was cut"
[ "$(wc -c <cut.state)" -eq 100 ] || die "chat wrote over a state that it could not read"

"$api" model.safetensors >out 2>err || die "the program of docs/api.md"
grep -q '^model.safetensors: [0-9]* parameters, [0-9.]* bits per byte' out || die "its first line"
[ "$(sed -n '2p' out | wc -w)" -eq 16 ] || die "its tokens"
[ -s model.safetensors ] || die "its model"
echo "train, generate, chat and the program of docs/api.md run"
