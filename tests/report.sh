#!/bin/sh
# The reports in a browser: they render without a message on the console, at the width of a desktop and
# of a phone, their numbers are those of the result file, and nothing in a file becomes markup.
# Skipped without Chromium. Usage: tests/report.sh ITERA SOURCE_FOLDER
set -eu

source=$(realpath "$2")
browser=
for name in chromium chromium-browser google-chrome; do
    if command -v $name >/dev/null 2>&1; then
        browser=$name
        break
    fi
done
. "$(dirname "$0")/command.sh"

full=$source/tests/data/bench/full.json
peer=$source/tests/data/bench/peer.json
"$itera" compare "$full" --html full.html >/dev/null
"$itera" compare "$full" "$peer" --html both.html --json both.json >/dev/null

# One file that needs nothing else, and nothing of the data as markup.
for file in full.html both.html; do
    grep -q 'src="http\|href="http\|@import\|url(' $file && die "$file loads something"
    grep -q '<img src=x\|<b>Vulkan' $file && die "$file has markup of the data"
done
if [ -z "$browser" ]; then
    echo "skipped: there is no chromium"
    exit 77
fi

# page REPORT JSON: the report with the check behind its own script.
page() {
    sed '/<\/body>/,$d' "$1"
    echo '<script type="application/json" id="expected">'
    sed 's/</\\u003c/g' "$2"
    echo '</script><script>'
    cat "$source/tests/report_check.js"
    echo '</script></body></html>'
}

# right PAGE WIDTH
right() {
    timeout 120 $browser --headless --no-sandbox --disable-gpu --user-data-dir="$dir/profile" \
        --enable-logging=stderr --window-size="$2",1200 --dump-dom "file://$dir/$1" >dom 2>log ||
        die "$1: the browser failed: $(tail -n 3 log)"
    grep -q 'CONSOLE' log && die "$1: on the console: $(grep CONSOLE log | head -n 3)"
    title=$(sed -n 's/.*<title>\(.*\)<\/title>.*/\1/p' dom | head -n 1)
    case $title in
    RIGHT*) echo "$1 at $2: $title" ;;
    *) die "$1 at $2: $title" ;;
    esac
}
page full.html "$full" >full-check.html
page both.html both.json >both-check.html
right full-check.html 1280
right full-check.html 500
right both-check.html 1280
