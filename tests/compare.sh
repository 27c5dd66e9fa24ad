#!/bin/sh
# itera compare: verdicts and exit status, files of older versions and of peers, broken files, CSV,
# JSON and the gallery. Usage: tests/compare.sh ITERA SOURCE_FOLDER
set -eu

source=$(realpath "$2")
. "$(dirname "$0")/command.sh"

# row OP P50 LOW HIGH [MORE]
row() {
    echo "{\"device\":\"cpu\",\"threads\":2,\"dtype\":\"f32\",\"phase\":\"decode\",\"op\":\"$1\",
        \"case\":\"1x1\",\"latency_ms\":{\"p50\":$2,\"low\":$3,\"high\":$4}${5:-}}"
}

# file NAME HOST ROW...
file() {
    name=$1
    host=$2
    shift 2
    {
        printf '{"schema":"itera-bench/1","host":{%s},"runs":[' "$host"
        comma=
        for one; do
            printf '%s%s' "$comma" "$one"
            comma=,
        done
        echo ']}'
    } >"$name"
}

machine='"cpu":"A","itera":"1","date":"2026-01-01T00:00:00Z"'

# ---- verdicts

file base.json "$machine" "$(row steady 10 9.9 10.1)" "$(row slow 10 9.9 10.1)" \
    "$(row noisy 10 8 13)" "$(row small 10 9.99 10.01)" "$(row quick 10 9.9 10.1)" "$(row gone 1 1 1)"
file now.json "$machine" "$(row steady 10.05 9.9 10.2)" "$(row slow 12 11.9 12.1)" \
    "$(row noisy 12 11 14)" "$(row small 10.2 10.19 10.21)" "$(row quick 5 4.9 5.1)" "$(row new 2 2 2)"
exits 1 compare base.json now.json --csv rows.csv --json rows.json
# verdict OP WORD
verdict() {
    grep -q "^$1 .* $2\$" out || die "$1 is not '$2'"
}
verdict steady same
verdict slow regression
verdict noisy same
verdict small same
verdict quick faster
grep -q '^slow .*0\.833x *0\.818\.\.0\.849' out || die "the ratio of slow"
grep -q '1 slower, 1 faster; 3 the same' out || die "the summary"
grep -A 1 'Only in base' out | grep -q gone || die "gone is not listed"
grep -A 1 'Only in now' out | grep -q new || die "new is not listed"
[ "$(wc -l <rows.csv)" -eq 13 ] || die "not 12 rows of CSV and their titles"
grep -q '"regressed": true' rows.json || die "JSON"
exits 0 compare base.json now.json --threshold 25

# A machine that was slower throughout is no regression of the program, whose own share still is one.
peaks() {
    echo "$machine,\"peaks\":[{\"device\":\"cpu\",\"threads\":2,\"name\":\"$1\",\"gflops\":$2,\"copy_gbytes_per_s\":$3}]"
}
file was.json "$(peaks A 100 20)" "$(row shared 10 9.9 10.1)" "$(row own 10 9.9 10.1)" "$(row kept 10 9.9 10.1)"
file dim.json "$(peaks A 80 19)" "$(row shared 12 11.9 12.1)" "$(row own 15 14.9 15.1)" "$(row kept 10 9.9 10.1)"
exits 1 compare was.json dim.json
verdict shared 'as the machine'
verdict own regression
verdict kept same
grep -q '1 slower, 0 faster; 1 the same, 1 as much as the machine' out || die "the summary of a slower machine"
grep -q 'cpu x2 reached 80 to 100% of the reference rates' out || die "what the machine reached"
exits 0 compare dim.json was.json
verdict shared 'as the machine'
verdict own faster
file other.json "$(peaks B 80 19)" "$(row shared 12 11.9 12.1)"
exits 1 compare was.json other.json
verdict shared regression
exits 1 compare base.json now.json
exits 0 compare base.json now.json --no-fail
exits 0 compare base.json base.json
exits 1 compare base.json base.json now.json
exits 1 compare base.json now.json --threshold 1
verdict small regression

# An unstable row is judged by its best time and its 95th percentile.
unstable=',"stable":false'
file shaky.json "$machine" "$(row slow 12 11.9 12.1 "$unstable" | sed 's/"p50"/"best":10,"p95":13,"p50"/')"
exits 0 compare base.json shaky.json
verdict slow same
# Without intervals of its own as well; with neither it is not judged.
sed 's/"low":11.9,"high":12.1/"best":11.5,"p95":12.5/' now.json >old.json
exits 1 compare base.json old.json
verdict slow regression
sed 's/,"low":11.9,"high":12.1//' now.json >bare.json
exits 0 compare base.json bare.json
verdict slow 'not judged'

# An interval of no width is none.
sed 's/"low":11.9,"high":12.1/"low":12,"high":12,"best":9,"p95":13/' now.json >single.json
exits 0 compare base.json single.json
verdict slow same

# The gallery has no interval to show where there is none.
file single.json "$machine" "$(row a 3 3 3)"
exits 0 compare single.json --markdown
grep -q '^| a | decode | 1x1 | f32 | cpu x2 | 3 |  |' out || die "an interval from nothing"

# Each output that is asked for is written, and the gallery is in place of the table alone.
exits 0 compare base.json single.json --html both.html --csv both.csv --json=both.json --markdown=both.md
for made in both.html both.csv both.json both.md; do
    [ -s $made ] || die "no $made"
done
[ ! -s out ] || die "a table beside the gallery"
exits 2 compare --check base.json --html both.html

# Results that are wrong now, however fast.
good=',"parity":{"pass":true}'
bad=',"parity":{"pass":false}'
file right.json "$machine" "$(row a 10 9 11 "$good")"
file wrong.json "$machine" "$(row a 5 4 6 "$bad")"
exits 1 compare right.json wrong.json
verdict a 'parity broken'

# A peer stands beside and does not regress; another processor is named.
file peer.json '"cpu":"B","peer":{"name":"Peer","version":"2"}' "$(row slow 30 29 31)"
exits 0 compare base.json peer.json
verdict slow slower
grep -q 'different processors' out || die "different processors are not named"

# ---- files of older versions, and all that are committed

for committed in "$source"/bench/results/*.json "$source"/tests/data/bench/*.json; do
    exits 0 compare --check "$committed"
    exits 0 compare "$committed" "$committed" --html old.html
done
sed '/"schema"/d' "$source/tests/data/bench/full.json" >before-schema.json
exits 0 compare --check before-schema.json
exits 0 compare --markdown=results.md "$source"/bench/results/*.json
cmp -s results.md "$source/docs/results.md" ||
    die "docs/results.md is out of date: itera compare --markdown=docs/results.md bench/results/*.json"

# ---- broken files

refused 1 'nosuch.json: cannot read results' compare --check nosuch.json
mkdir folder
refused 1 'folder: is a directory' compare --check folder
echo '{"schema":"itera-bench/1"' >x.json
refused 1 'x.json: line [12] is not JSON' compare --check x.json
echo '[]' >x.json
refused 1 'x.json: no result of itera bench: the file: is an array; expected: object' compare --check x.json
echo '{"host":{}}' >x.json
refused 1 'has no "runs"' compare --check x.json
echo '{"schema":"itera-bench/2","host":{},"runs":[]}' >x.json
refused 1 'schema: is not "itera-bench/1"' compare --check x.json
# broken WORDS SED_EXPRESSION: the last of the rows.
broken() {
    sed "$2" base.json >x.json
    refused 1 "$1" compare --check x.json
}
broken 'runs\[1\]: has no "threads"' 's/"op":"slow"/"op":"slow"/;:a;N;$!ba;s/"threads":2,//2'
broken 'runs\[0\].latency_ms.p50: is a string; expected: number' 's/"p50":10,"low":9.9/"p50":"10","low":9.9/;t'
broken 'runs\[0\].latency_ms.p50: is 0; it must be above 0' '0,/"p50":10/s//"p50":0/'
broken 'runs\[0\].latency_ms.p50: is -1' '0,/"p50":10/s//"p50":-1/'
broken 'phase: is "guess"; known are: op, forward' 's/decode/guess/'
broken 'not JSON: real number overflow' '0,/"p50":10/s//"p50":1e999/'
broken 'not JSON: .*NaN\|not JSON: invalid token' '0,/"p50":10/s//"p50":NaN/'
broken 'threads: is a number; expected: integer' '0,/"threads":2/s//"threads":2.5/'
head -c 100000 /dev/zero | tr '\0' '[' >x.json
refused 1 'maximum parsing depth' compare --check x.json
# What a terminal would obey is not printed.
sed 's/"op":"slow"/"op":"\\u001b[31mslow\\u009b1m"/' base.json >x.json
exits 0 compare x.json x.json
grep -q "$(printf '\033')" out && die "an escape reached the terminal"
exits 2 compare
exits 2 compare base.json --ledger x.json
exits 1 compare base.json --html none/x.html
grep -q 'cannot write the report' err || die "the report's place"

# Numbers of hundreds of digits in what the report says of a row and of a curve.
long=$(head -c 200 /dev/zero | tr '\0' x)
file x.json "$machine" "$(row "$long" 10 9.9 10.1 ',"tokens_per_second":100,"peak_share":1e305,
    "energy":{"source":"s","measured":true,"joules_per_token":1e300}' | sed "s/1x1/$long/")"
sweep='"device":"cpu","op":"a","phase":"prefill","variable":"length","points":[{"x":1,"ms":1}]'
sed "s/]}\$/],\"sweeps\":[{$sweep,\"exponent\":1e308}]}/" x.json >huge.json
exits 0 compare huge.json --html huge.html
exits 0 compare huge.json huge.json --html huge.html
exits 0 compare base.json
grep -q verdict out && die "a single file has nothing to be judged by"

# A result outlives its reports.
cp base.json kept.json
ln -s base.json link.json
for out in '--html link.json' '--csv base.json' '--json=./base.json' '--markdown=base.json'; do
    # shellcheck disable=SC2086
    exits 1 compare base.json $out
    grep -q 'is what is read' err || die "$out was not refused"
done
cmp -s base.json kept.json || die "a result was replaced by its report"

# The plot of a ledger in the report.
echo '{"models":[{"model":"big","bytes_on_disk":4000000,"parameters":1000000,"bits_per_byte":0.9}]}' >ledger.json
exits 0 compare base.json --html ledger.html --ledger ledger.json
grep -q 'Quality against size' ledger.html || die "no plot of the ledger"
exits 1 compare base.json --html ledger.html --ledger base.json
grep -q 'no JSON of itera ledger' err || die "a ledger that is none"

# A cell that a spreadsheet would compute.
sed 's/"op":"slow"/"op":"=1+1"/' base.json >x.json
exits 0 compare x.json --csv rows.csv
grep -q "\"'=1+1\"" rows.csv || die "a formula in CSV"
echo "verdicts, old files, peers and broken files are as they should be"
