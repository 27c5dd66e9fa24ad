#!/bin/sh
# Parity of the NEON kernels: cross-compiles what a parity check needs for aarch64, statically, and
# runs a few cases of every op under qemu-user. What was compiled is kept for the next time.
#
#   neon.sh SOURCE_FOLDER BUILD_FOLDER
#
# ITERA_AARCH64_CC and ITERA_QEMU_AARCH64 name other tools. Exits with 77 where they are missing.
set -eu
source=$1
build=$2
cc=${ITERA_AARCH64_CC:-aarch64-linux-gnu-gcc}
qemu=${ITERA_QEMU_AARCH64:-$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)}

if ! command -v "$cc" >/dev/null 2>&1; then
    echo "skipped: there is no aarch64 cross compiler ($cc; Debian: gcc-aarch64-linux-gnu)"
    exit 77
fi
if [ -z "$qemu" ] || ! command -v "$qemu" >/dev/null 2>&1; then
    echo "skipped: there is no qemu-aarch64 (Debian: qemu-user)"
    exit 77
fi

mkdir -p "$build"
cd "$source"
# Everything but what needs libraries of the target: models, text and files.
# shellcheck disable=SC2010
files="$(ls host/core/*.c host/tensor/*.c host/ops/*.c host/program/*.c host/backend/*.c \
    host/backend/cpu/*.c host/check/*.c cpu_fallback/*.c tests/neon/*.c | grep -v model)"
fast="$(ls cpu_fallback/simd/*.c cpu_fallback/neon/*.c 2>/dev/null || true)"
# The level that differs from neon in its products.
products="$(ls cpu_fallback/simd/matmul*.c)"
dot=-march=armv8.2-a+dotprod

headers=$(find host cpu_fallback -name '*.h' -newer "$build/stamp" 2>/dev/null | head -n 1)
if [ -n "$headers" ] || [ ! -f "$build/stamp" ]; then
    rm -f "$build"/*.o
fi
touch "$build/stamp.new"
# shellcheck disable=SC2016
{
    for file in $files; do
        echo "$file -O1 -ffp-contract=off"
    done
    for file in $fast; do
        echo "$file -O2 -ffp-contract=fast -DITERA_ISA=neon -Icpu_fallback/neon"
    done
    for file in $products; do
        echo "$file -O2 -ffp-contract=fast -DITERA_ISA=neondot -Icpu_fallback/neon $dot"
    done
} | CC="$cc" BUILD="$build" xargs -P "$(nproc)" -L 1 sh -c '
    file=$1
    shift
    object="$BUILD/$(echo "$file" | tr / _).o"
    case "$*" in *=neondot*) object="${object%.o}.dot.o" ;; esac
    if [ ! -f "$object" ] || [ -n "$(find "$file" -newer "$object")" ]; then
        "$CC" -std=c11 -D_GNU_SOURCE -DITERA_HAVE_neon=1 -DITERA_HAVE_neondot=1 \
            -DNDEBUG -Ihost -Ihost/include -I. -fno-math-errno "$@" -c "$file" -o "$object"
    fi' compile
mv "$build/stamp.new" "$build/stamp"
# Objects of files that are gone would be linked again.
for object in "$build"/*.o; do
    name=$(basename "$object" .o)
    name=${name%.dot}
    found=
    for file in $files $fast; do
        [ "$(echo "$file" | tr / _)" = "$name" ] && found=yes && break
    done
    [ -n "$found" ] || rm -f "$object"
done
"$cc" -static "$build"/*.o -lm -lpthread -o "$build/parity"
exec "$qemu" "$build/parity" "${ITERA_NEON_CASES:-4}"
