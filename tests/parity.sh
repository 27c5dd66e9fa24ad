#!/bin/sh
# Every op and variant on a GPU device against the reference, gradients too.
# Usage: tests/parity.sh ITERA DEVICE [CASES]    CASES per op, 0: all; exits with 77 without the device
set -eu

itera=$1
device=$2
cases=${3:-0}
if ! "$itera" devices --json - | grep -q "\"$device\""; then
    echo "there is no $device here"
    exit 77
fi
set -- --cases "$cases"
[ "$cases" != 0 ] || set --
# Nothing that was left out is a pass: a kernel that no longer compiles shows as skipped cases.
"$itera" check --device "$device" --grad "$@" >parity.$$ || {
    cat parity.$$
    rm parity.$$
    exit 1
}
cat parity.$$
summary=$(tail -n 1 parity.$$)
rm parity.$$
case $summary in
0\ passed* | *[!0-9]0\ passed*) exit 1 ;;
*,\ 0\ skipped*) ;;
*) exit 1 ;;
esac
