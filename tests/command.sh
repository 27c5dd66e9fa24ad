# What tests of the command share. Sourced by them, with ITERA as the script's first argument and after
# other paths were made absolute: the test goes on in a folder of its own, which goes when it ends.
itera=$(realpath "$1")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

die() {
    echo "FAIL: $*"
    cat out err 2>/dev/null || true
    exit 1
}

# exits STATUS ARGUMENT...
exits() {
    want=$1
    shift
    status=0
    "$itera" "$@" >out 2>err || status=$?
    [ $status -eq "$want" ] || die "$* exited with $status, not $want"
}

# says PATTERN FILE
says() {
    grep -q -e "$1" "$2" || die "no '$1' in $2: $(cat "$2")"
}
