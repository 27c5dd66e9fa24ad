#!/bin/sh
# All cases of all ops on Intel's OpenCL run time for CPUs. It takes the paths that PoCL never takes
# (subgroups, f16, integer dot products), runs subgroups of a workgroup one after the other, which
# shows races, and compiles in seconds what takes PoCL minutes. It is where tools/second-drivers puts
# it, or ITERA_INTEL_OPENCL names the folder that has libintelocl.so; skipped without.
#
#   intel_opencl.sh ITERA WORK_FOLDER SOURCE_FOLDER
set -eu
itera=$1
work=$2
driver=${ITERA_INTEL_OPENCL:-$3/build/second-drivers/lib}

if [ ! -f "$driver/libintelocl.so" ]; then
    echo "skipped: there is no $driver/libintelocl.so (tools/second-drivers, ITERA_INTEL_OPENCL)"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work/vendors"
echo "$driver/libintelocl.so" >"$work/vendors/intel.icd"
export OCL_ICD_VENDORS="$work/vendors" ITERA_CACHE_DIR="$work/cache"
export LD_LIBRARY_PATH="$driver${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
unset ITERA_KERNEL_DIR ITERA_DISABLE_OPS ITERA_FAULT

"$itera" devices | grep '^opencl:0 .*Intel(R) OpenCL' || {
    echo "the OpenCL loader does not take Intel's run time as a driver"
    exit 1
}
code=0
"$itera" check --device opencl:0 --grad >"$work/table" 2>"$work/messages" || code=$?
if [ "$code" -ne 0 ] || grep '^skip:' "$work/messages"; then
    cat "$work/table" "$work/messages"
    exit 1
fi
tail -n 1 "$work/table"
