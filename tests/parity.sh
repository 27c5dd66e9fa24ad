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
[ "$cases" = 0 ] && set -- || set -- --cases "$cases"
"$itera" check --device "$device" --grad "$@"
