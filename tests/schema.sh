#!/bin/sh
# Every committed result file against docs/bench.schema.json, by another implementation than our own:
# python3-jsonschema. Skipped without it. Usage: tests/schema.sh SOURCE_FOLDER
set -eu
cd "$1"
if ! python3 -c 'import jsonschema' 2>/dev/null; then
    echo "skipped: there is no python3-jsonschema"
    exit 77
fi
python3 - bench/results/*.json tests/data/bench/*.json <<'END'
import copy, json, sys
import jsonschema

schema = json.load(open("docs/bench.schema.json"))
checker = jsonschema.validators.validator_for(schema)
checker.check_schema(schema)
for name in sys.argv[1:]:
    errors = list(checker(schema).iter_errors(json.load(open(name))))
    for error in errors[:5]:
        print("FAIL: %s: %s: %s" % (name, "/".join(map(str, error.path)), error.message))
    if errors:
        sys.exit(1)
# It refuses what it should.
good = json.load(open("tests/data/bench/full.json"))
for path, value in ((("schema",), "itera-bench/2"), (("runs", 0, "latency_ms", "p50"), 0),
                    (("runs", 0, "threads"), "2"), (("sweeps", 0, "variable"), "depth"),
                    (("host", "notes"), "a note")):
    bad = copy.deepcopy(good)
    place = bad
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    if checker(schema).is_valid(bad):
        sys.exit("FAIL: %s may be %r" % (path, value))
print("%d files are what the schema says" % len(sys.argv[1:]))
END
