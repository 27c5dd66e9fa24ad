#!/bin/sh
# The library as a part of another project (add_subdirectory; FetchContent does the same): configures,
# builds and runs one.
#
#   subproject.sh SOURCE_FOLDER WORK_FOLDER C_COMPILER
set -eu
source=$1
work=$2
cc=$3

rm -rf "$work"
mkdir -p "$work"
cat >"$work/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.21)
project(parent LANGUAGES C)
add_subdirectory($source itera)
add_executable(parent parent.c)
target_link_libraries(parent PRIVATE itera::itera)
END
cat >"$work/parent.c" <<END
#include <itera/itera.h>
#include <stdio.h>

int main(void)
{
    struct itera_device *device;
    enum itera_status status = itera_device_open("cpu", NULL, &device);
    puts(status ? itera_last_error() : itera_device_info(device)->name);
    itera_device_close(&device);
    return status != ITERA_OK;
}
END
# Debug: quick to build, and what is tested is where things are found.
cmake -S "$work" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER="$cc" \
    >"$work/configure.log" 2>&1 || {
    cat "$work/configure.log"
    exit 1
}
cmake --build "$work/build" >"$work/build.log" 2>&1 || {
    tail -n 40 "$work/build.log"
    exit 1
}
"$work/build/parent"
# Neither the command nor the tests are the parent's unless it asks for them.
for part in tests itera; do
    test ! -e "$work/build/itera/$part" || {
        echo "$part was built although nobody asked for it"
        exit 1
    }
done
rm -rf "$work"
