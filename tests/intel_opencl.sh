#!/bin/sh
# All cases of all ops on Intel's OpenCL run time for CPUs. It takes the paths that PoCL never takes
# (subgroups, f16, integer dot products), runs subgroups of a workgroup one after the other, which
# shows races, and compiles in seconds what takes PoCL an hour. Skipped unless ITERA_INTEL_OPENCL
# names the folder that has libintelocl.so: of PyPI's intel-opencl-rt and intel-cmplr-lib-rt, lib in
# the virtual environment where they are installed.
#
#   intel_opencl.sh ITERA WORK_FOLDER
set -eu
itera=$1
work=$2

if [ ! -f "${ITERA_INTEL_OPENCL:-}/libintelocl.so" ]; then
    echo "skipped: ITERA_INTEL_OPENCL names no folder with libintelocl.so"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work/vendors"
echo "$ITERA_INTEL_OPENCL/libintelocl.so" >"$work/vendors/intel.icd"
export OCL_ICD_VENDORS="$work/vendors" ITERA_CACHE_DIR="$work/cache"
export LD_LIBRARY_PATH="$ITERA_INTEL_OPENCL${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
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
