#!/bin/sh
# Kernels with the lanes of workgroups in other orders; and that the check sees a barrier that is missing.
# Usage: tests/lanes.sh ITERA DEVICE KERNELS FOLDER   (77 without the device)
set -eu

itera=$1 device=$2 kernels=$3 folder=$4
if ! "$itera" devices --json - | grep -q "\"$device\""; then
    echo "there is no $device here"
    exit 77
fi
ops='layer_norm,cross_entropy,moe_sort'
rm -rf "$folder"
mkdir -p "$folder"
ITERA_CACHE_DIR=$folder/cache
export ITERA_CACHE_DIR
for order in reversed rotated; do
    "$itera" check --device "$device" --op "$ops" --cases 3 --lanes $order > "$folder/log" || {
        cat "$folder/log"
        exit 1
    }
    tail -n 1 "$folder/log" | grep -q ' 0 failed, 0 skipped' || {
        cat "$folder/log"
        exit 1
    }
done

# Kernels are read from a folder by OpenCL alone.
case $device in opencl:*) ;; *) exit 0 ;; esac
cp -r "$kernels" "$folder/kernels"
awk '/barrier\(/ && !/\*/ && ++n == 2 { sub(/barrier\([^)]*\);/, ";") } { print }' \
    "$kernels/reduce.clh" > "$folder/kernels/reduce.clh"
cmp -s "$kernels/reduce.clh" "$folder/kernels/reduce.clh" && exit 1
ITERA_KERNEL_DIR=$folder/kernels
export ITERA_KERNEL_DIR
if "$itera" check --device "$device" --op layer_norm --cases 3 --lanes reversed > "$folder/log" 2>&1; then
    echo "nobody misses a barrier"
    exit 1
fi
grep -q 'FAIL: layer_norm' "$folder/log"
