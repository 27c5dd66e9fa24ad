#!/bin/sh
# A driver that aborts as soon as it is loaded: whoever does not ask for its device by name gets a
# warning at most, and the result.
# Usage: tests/bad_driver.sh ITERA FAKE_LIBOPENCL FIXTURES
set -u

itera=$(realpath "$1")
fixtures=$(realpath "$3")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$2" "$dir/libOpenCL.so.1"
export LD_LIBRARY_PATH="$dir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
failed=0

# survives WARNINGS ITERA_ARGUMENT...: exits with 0 after so many warnings of this driver.
survives() {
    want=$1
    shift
    timeout 120 "$itera" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    got=$?
    warned=$(grep -c 'opencl: no devices, for a driver crashed (Aborted)' "$dir/err")
    if [ $got -ne 0 ] || [ "$warned" -ne "$want" ]; then
        echo "FAIL: $* exited with $got after $warned warnings, not $want"
        head -n 5 "$dir/err"
        failed=1
    fi
}

survives 1 devices
grep -q '^cpu' "$dir/out" || { echo "FAIL: the CPU is not listed"; failed=1; }
survives 1 logits "$fixtures/itera-small" --tokens 1,2,3 -o "$dir/logits"
survives 1 logits "$fixtures/itera-small" --tokens 1,2,3 -o "$dir/logits" --device auto
survives 0 logits "$fixtures/itera-small" --tokens 1,2,3 -o "$dir/logits" --device cpu
survives 0 info "$fixtures/itera-small"

# By name it is loaded, and the test would show nothing if that did not abort.
"$itera" logits "$fixtures/itera-small" --tokens 1,2,3 -o "$dir/logits" --device opencl:0 >/dev/null 2>&1 &&
    { echo "FAIL: the driver that aborts was not loaded by name"; failed=1; }
exit $failed
