#!/bin/sh
# Every OpenCL kernel under Oclgrind: invalid accesses, data races, wrong use of the API, and the
# results against the reference. One small case of each op, or CASES, since it interprets kernels.
#
#   oclgrind.sh ITERA WORK_FOLDER [CASES]
set -eu
itera=$1
work=$2
cases=${3:-1}

driver=
for folder in /usr/lib/oclgrind /usr/local/lib/oclgrind /usr/local/lib /usr/lib /usr/lib64; do
    if [ -z "$driver" ] && [ -f "$folder/liboclgrind-rt-icd.so" ]; then
        driver=$folder/liboclgrind-rt-icd.so
    fi
done
if [ -z "$driver" ]; then
    echo "skipped: there is no Oclgrind"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work/vendors" "$work/lib"
echo "$driver" >"$work/vendors/oclgrind.icd"
# CLBlast's kernels are not ours to check: what is in its place does not load.
echo "not a library" >"$work/lib/libclblast.so.1"
export OCL_ICD_VENDORS="$work/vendors" LD_LIBRARY_PATH="$work/lib"
export OCLGRIND_CHECK_API=1 OCLGRIND_DATA_RACES=1 OCLGRIND_LOG="$work/log"
unset ITERA_KERNEL_DIR ITERA_DISABLE_OPS ITERA_FAULT

if ! "$itera" devices | grep -q '^opencl:0 .*Oclgrind'; then
    echo "skipped: the OpenCL loader does not take Oclgrind as a driver"
    exit 77
fi

# check NAME OPS [FIRST CASES]: fails when a case fails, or Oclgrind says anything. Binaries of other
# build options must not be found in the cache.
check() {
    code=0
    ITERA_CACHE_DIR="$work/$1-cache" "$itera" check --device opencl:0 --op "$2" --grad \
        --first "${3:-4}" --cases "${4:-$cases}" >"$work/$1-table" 2>"$work/$1-messages" || code=$?
    if [ -s "$work/log" ]; then
        head -n 40 "$work/log"
        echo "kernels with errors:"
        sed -n 's/^[[:space:]]*Kernel: *//p' "$work/log" | sort | uniq -c
        exit 1
    fi
    if [ "$code" -ne 0 ]; then
        cat "$work/$1-table" "$work/$1-messages"
        exit 1
    fi
    tail -n 1 "$work/$1-table"
}

check all '*'
# Tables in blocks (both types), and integer products with weights in them (q8, q4).
check tables '*embedding' 14 2
check integers matmul 108 2
check experts grouped_matmul 46 2
# Oclgrind lacks an instruction (a saturating subtraction) that the optimiser puts into some kernels.
OCLGRIND_BUILD_OPTIONS=-cl-opt-disable
export OCLGRIND_BUILD_OPTIONS
check plain 'attention,sample,chain_sample'
if grep '^skip:' "$work/all-messages" "$work/plain-messages" |
    grep -Ev 'all-messages:skip: (attention|sample|chain_sample) '; then
    echo "the ops above were not checked"
    exit 1
fi
