#!/bin/sh
# No code of the library prints or reads a fraction in the program's locale: what does goes through
# core/number.h, and JSON through format/json.h. Usage: tests/locale.sh SOURCE_FOLDER
set -eu
cd "$1/host"
found=$(find . -name '*.[ch]' ! -path ./core/number.c -exec awk '
    BEGIN { RS = ";" }
    { text = $0; gsub(/%%/, "", text) }
    text ~ /(^|[^_a-z])(v?snprintf|v?fprintf|dprintf|v?sprintf|[vfs]?scanf)\(/ &&
        text ~ /%[-+ #0-9.*]*l?[fgeEGaA]/ { print FILENAME ": " text }
    text ~ /(^|[^_a-z])(strto[dfl]d?|atof|setlocale)\(/ && text !~ /strtol\(/ {
        print FILENAME ": " text }
    FILENAME != "./format/json.c" && text ~ /json_(load|dump)[a-z]*\(/ && text !~ /itera_json_load\(/ {
        print FILENAME ": " text }
    ' {} +)
[ -z "$found" ] || { echo "FAIL: in the locale of the program: $found" >&2; exit 1; }
echo "all numbers are in the locale of C"
