#!/bin/sh
# A short training run and a short generation under valgrind's memcheck, leaks included, at a level
# that valgrind knows (it has no AVX-512). On the CPU by name: then no driver is loaded, whose loader
# and compiler memcheck has much to say about.
#
#   valgrind.sh ITERA WORK_FOLDER
set -eu
itera=$1
work=$2

if ! command -v valgrind >/dev/null; then
    echo "skipped: there is no valgrind"
    exit 77
fi
rm -rf "$work"
mkdir -p "$work"
check="valgrind --quiet --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite,indirect"
if grep -q avx2 /proc/cpuinfo; then
    ITERA_CPU_ISA=avx2
else
    ITERA_CPU_ISA=ref
fi
export ITERA_CPU_ISA
for preset in micro itera-m-micro transformer-micro; do
    $check "$itera" train --preset $preset --tokenizer byte --data 'builtin:stories?bytes=20000' \
        --valid 'builtin:stories?valid&bytes=2000' --steps 2 --batch 1 --seq 16 --eval-tokens 64 --threads 1 \
        --device cpu --out "$work/$preset" 2>"$work/log" || {
        cat "$work/log"
        exit 1
    }
    $check "$itera" generate "$work/$preset/model.safetensors" --prompt "Once upon" -n 12 \
        --temp 0.8 --seed 1 --threads 1 --device cpu >"$work/text" 2>"$work/log" || {
        cat "$work/log"
        exit 1
    }
done
echo "memcheck is clean over training and generation at level $ITERA_CPU_ISA"
