#!/bin/sh
# Installs the build into a folder of its own, and builds and runs the examples against it: by the
# lines at their heads, which use pkg-config, and one by find_package. Then every public header alone.
#
#   install.sh SOURCE_FOLDER BUILD_FOLDER C_COMPILER
set -eu
source=$1
build=$2
cc=$3
work=$build/tests/install
prefix=$work/prefix

rm -rf "$work"
mkdir -p "$work"
cmake --install "$build" --prefix "$prefix" >/dev/null
itera=$prefix/bin/itera
"$itera" train --preset micro --tokenizer byte --steps 2 --batch 1 --seq 16 --data builtin:stories \
    --valid none --out "$work/run" 2>"$work/train.log" || {
    cat "$work/train.log"
    exit 1
}

for file in man/man1/itera.1 man/man1/itera-train.1 bash-completion/completions/itera \
    zsh/site-functions/_itera fish/vendor_completions.d/itera.fish; do
    test -s "$prefix/share/$file"
done

pc=$(find "$prefix" -name itera.pc)
PKG_CONFIG_PATH=$(dirname "$pc")
export PKG_CONFIG_PATH
mkdir "$work/examples" "$work/bin"
cp "$source"/examples/*.c "$work/examples"
printf '#!/bin/sh\nexec %s -std=c11 -Wall -Wextra -Werror "$@"\n' "$cc" >"$work/bin/cc"
chmod +x "$work/bin/cc"
for example in generate train chat; do
    line=$(sed -n 's/^ \*  *\(cc .*\)/\1/p' "$source/examples/$example.c")
    test -n "$line"
    (cd "$work/examples" && PATH=$work/bin:$PATH sh -c "$line")
    test -x "$work/examples/$example"
done
# A program that pkg-config links does not know where a shared library lies; the others do.
LD_LIBRARY_PATH=$(dirname "$(dirname "$pc")") "$work/examples/generate" \
    "$work/run/model.safetensors" "Once upon a time" >"$work/first.txt"
test -s "$work/first.txt"

mkdir "$work/cmake"
cat >"$work/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.21)
project(example LANGUAGES C)
find_package(itera REQUIRED)
add_executable(example $source/examples/generate.c)
target_link_libraries(example PRIVATE itera::itera)
END
cmake -S "$work/cmake" -B "$work/cmake/build" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" >/dev/null
cmake --build "$work/cmake/build" >/dev/null
"$work/cmake/build/example" "$work/run/model.safetensors" "Once upon a time" >"$work/second.txt"
cmp "$work/first.txt" "$work/second.txt"

for header in "$prefix"/include/itera/*.h; do
    echo "#include <itera/$(basename "$header")>" >"$work/header.c"
    "$cc" -std=c11 -Wall -Wextra -Werror -fsyntax-only -I"$prefix/include" "$work/header.c"
done
echo "the example runs against the installed package, and every public header compiles alone"
