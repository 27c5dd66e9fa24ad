#!/bin/sh
# The library as a part of another project (add_subdirectory; FetchContent does the same), as a shared
# library, and from C++: configures, builds and runs such a project; looks at what the library
# exports; installs it, and builds and runs a C++ program against what was installed.
#
#   subproject.sh SOURCE_FOLDER WORK_FOLDER C_COMPILER CXX_COMPILER
set -eu
source=$1
work=$2
cc=$3
cxx=$4

fail()
{
    echo "$*"
    exit 1
}

rm -rf "$work"
mkdir -p "$work"
cat >"$work/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.21)
project(parent LANGUAGES C)
set(BUILD_SHARED_LIBS ON)
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
    test ! -e "$work/build/itera/$part" || fail "$part was built although nobody asked for it"
done

# What the headers declare is exported, and nothing else.
cat "$source"/host/include/itera/*.h | tr '\n' ' ' | grep -o 'ITERA_API [a-z][^(]*(' |
    sed 's/.*[ *]\(itera_[a-z0-9_]*\)($/\1/' | sort >"$work/declared"
nm -D --defined-only "$work/build/itera/libitera.so" | sed 's/.* //' | sort >"$work/exported"
diff "$work/declared" "$work/exported" || fail "the library does not export what it declares"
grep -q '^itera_version$' "$work/exported" || fail "nothing is exported"

# Installed: its name says which interface it has, and a C++ program runs with it.
cmake --install "$work/build" --prefix "$work/prefix" >"$work/install.log"
library=$(dirname "$(find "$work/prefix" -name libitera.so)")
version=$(sed -n 's/^#define ITERA_VERSION_M[AJIN]*OR //p' "$source/host/include/itera/version.h" |
    paste -sd .)
test -e "$library/libitera.so.$version" || fail "there is no libitera.so.$version"
cat >"$work/program.cpp" <<END
#include <itera/itera.h>
#include <cstdio>

int main()
{
    itera_device *device = nullptr;
    if (itera_device_open("cpu", nullptr, &device))
        return 1;
    itera_model_options options = {};
    itera_model *model = nullptr;
    const itera_status status = itera_model_create(device, "micro", &options, &model);
    std::printf("itera %s: %s\n", itera_version(), status ? itera_last_error() : "a model");
    itera_model_destroy(&model);
    itera_device_close(&device);
    return status;
}
END
PKG_CONFIG_PATH=$library/pkgconfig
export PKG_CONFIG_PATH
# shellcheck disable=SC2046
"$cxx" -std=c++11 -Wall -Wextra -Wpedantic -Werror "$work/program.cpp" -o "$work/program" \
    $(pkg-config --cflags --libs itera)
LD_LIBRARY_PATH=$library "$work/program"
rm -rf "$work"
