# What tests of the command share. Sourced by them, with ITERA as the script's first argument and after
# other paths were made absolute: the test goes on in a folder of its own, which goes when it ends.
itera=$(realpath "$1")
dir=$(mktemp -d)
pid= # of a command in the background that must not outlive the test
mounted= # a folder of it to unmount
failed=0 # counted by fail; the test then ends with 1, whatever it exits with
passed=0

end() {
    status=$?
    [ -z "$pid" ] || kill -9 "$pid" 2>/dev/null || true
    [ -z "$mounted" ] || umount "$mounted" 2>/dev/null || true
    cd / && rm -rf "$dir"
    [ $failed -eq 0 ] || status=1
    exit $status
}
trap end EXIT
cd "$dir" || exit 1

# fail WORDS...: says so, with what the last command printed, and goes on.
fail() {
    failed=$((failed + 1))
    echo "FAIL: $*"
    for file in out err log; do
        [ ! -s "$dir/$file" ] || tail -n 20 "$dir/$file" | sed 's/^/    /'
    done
}

die() {
    fail "$@"
    exit 1
}

# exits STATUS ARGUMENT...
exits() {
    want=$1
    shift
    got=0
    "$itera" "$@" >out 2>err || got=$?
    [ $got -eq "$want" ] || die "$* exited with $got, not $want"
}

# says PATTERN FILE
says() {
    grep -q -e "$1" "$2" || die "no '$1' in $2: $(cat "$2")"
}

# crashed STATUS: a signal, or a report of a sanitizer.
crashed() {
    [ "$1" -gt 127 ] || grep -q -e Sanitizer -e 'runtime error' err
}

# expect STATUS WORDS ARGUMENT...: exits with STATUS, and WORDS (a basic regular expression; '' for
# none) are in stderr.
expect() {
    want=$1
    words=$2
    shift 2
    got=0
    timeout 300 "$itera" "$@" >out 2>err </dev/null || got=$?
    if crashed $got; then
        fail "$* crashed with status $got"
    elif [ $got -ne "$want" ]; then
        fail "$* exited with $got, not $want"
    elif [ -n "$words" ] && ! grep -q -e "$words" err; then
        fail "$* did not say '$words'"
    else
        return 0
    fi
    return 1
}

# refused STATUS WORDS ARGUMENT...: the same, and stderr is a single line. Goes on after a failure.
refused() {
    expect "$@" || return 0
    shift 2
    if [ "$(wc -l <err)" -eq 1 ]; then
        passed=$((passed + 1))
    else
        fail "$* printed $(wc -l <err) lines of error, not one"
    fi
}
