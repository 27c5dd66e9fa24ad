#!/bin/sh
# What tools/test refuses before it builds anything. Usage: tests/tools_test.sh SOURCE_DIR
set -eu

# refuses PATTERN ARGUMENT...
refuses() {
    pattern=$1
    shift
    status=0
    output=$("$source/tools/test" "$@" 2>&1) || status=$?
    if [ $status -ne 2 ] || ! echo "$output" | grep -q -e "$pattern" ||
        ! echo "$output" | grep -q '^usage: tools/test \[PRESET'; then
        echo "FAIL: tools/test $* exited with $status: $output"
        exit 1
    fi
}

source=$(realpath "$1")
refuses "there is no preset 'dve'" dve
refuses "there is no preset 'asn'" dev asn
refuses "there is no preset ''" ''
refuses "there is no option --filter" --filter session
refuses "there is no option -Rsession" -Rsession
refuses "needs the name" -R
refuses "needs the name" -R ''
refuses "given twice" -R session dev -R model
# The presets that it knows are those that there are.
for preset in $(cd "$source" && ctest --list-presets | sed -n 's/^ *"\([^"]*\)".*/\1/p'); do
    refuses "given twice" "$preset" -R a -R b
done
