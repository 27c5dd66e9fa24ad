#!/bin/sh
# Whether what the documents link to is there, their sections too, and whether README leads to all of them.
# Usage: tests/links.sh SOURCE_DIR
set -eu
cd "$1"
failed=0

# links FILE: what it links to in this tree, one a line.
links() {
    grep -o '](\([^)]*\))' "$1" | sed 's/^](//; s/)$//' | grep -v -e '^[a-z]*://' -e '^mailto:' || true
}

# The headings of a file as a browser of the repository names them.
anchors() {
    sed -n 's/^##* //p' "$1" | tr '[:upper:]' '[:lower:]' | sed 's/[^a-z0-9 _-]//g; s/ /-/g'
}

for file in *.md docs/*.md; do
    for link in $(links "$file"); do
        path=${link%%#*}
        target=$(dirname "$file")/$path
        [ -n "$path" ] || target=$file
        if [ ! -e "$target" ]; then
            echo "FAIL: $file links to $link, which is not there"
            failed=1
        elif [ "$path" != "$link" ] && ! anchors "$target" | grep -qx -e "${link#*#}"; then
            echo "FAIL: $file links to $link, and $target has no such section"
            failed=1
        fi
    done
done
for file in docs/*.md CONTRIBUTING.md CHANGELOG.md; do
    links README.md | sed 's/#.*//' | grep -qx -e "$file" || {
        echo "FAIL: README.md does not link to $file"
        failed=1
    }
done
exit $failed
