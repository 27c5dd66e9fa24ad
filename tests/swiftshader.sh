#!/bin/sh
# All cases of all ops on SwiftShader, the Vulkan driver for CPUs that comes with Chromium: other
# subgroups and another compiler than lavapipe's. Skipped where it is not; ITERA_SWIFTSHADER names
# its vk_swiftshader_icd.json if it is elsewhere.
#
#   swiftshader.sh ITERA WORK_FOLDER OP_LIST
set -eu
itera=$1
work=$2
op_list=$3
driver=${ITERA_SWIFTSHADER:-/usr/lib/chromium/vk_swiftshader_icd.json}

# Long unrolled kernels, which take it minutes and gigabytes to compile.
too_long="matmul selective_scan selective_scan_bwd ssd_scan ssd_scan_bwd"

if [ ! -f "$driver" ]; then
    echo "skipped: there is no $driver (tools/second-drivers, ITERA_SWIFTSHADER)"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work"
export VK_DRIVER_FILES="$driver" VK_ICD_FILENAMES="$driver" ITERA_CACHE_DIR="$work/cache"
unset ITERA_KERNEL_DIR ITERA_DISABLE_OPS ITERA_FAULT

"$itera" devices | grep '^vulkan:0 .*SwiftShader' || {
    echo "the Vulkan loader does not take $driver as a driver"
    exit 1
}
ops=$(sed -n 's/^ITERA_OP[A-Z_]*(\([a-z0-9_]*\),.*/\1/p' "$op_list")
for op in $too_long; do
    echo "left out: $op"
    ops=$(echo "$ops" | grep -vx "$op")
done
code=0
"$itera" check --device vulkan:0 --grad --op "$(echo "$ops" | paste -sd ,)" >"$work/table" \
    2>"$work/messages" || code=$?
if [ "$code" -ne 0 ] || grep '^skip:' "$work/messages"; then
    cat "$work/table" "$work/messages"
    exit 1
fi
tail -n 1 "$work/table"
