#!/bin/sh
# Disks that are full or read-only: one line of error, nothing lost and nothing left behind. They are
# mounts of a few hundred kilobytes, for which this needs root, or a kernel that lets users be root in a
# namespace of their own; exits with 77 where neither is to be had.
# Usage: tests/full_disk.sh ITERA FIXTURES
set -eu

if [ "$(id -u)" -ne 0 ] && unshare -rm true 2>/dev/null; then
    exec unshare -rm "$0" "$@"
fi
fixtures=$(realpath "$2")
. "$(dirname "$0")/command.sh"
mkdir disk
if ! mount -t tmpfs -o size=500k tmpfs disk 2>/dev/null; then
    echo "skipped: mounting a tmpfs needs root"
    exit 77
fi
mounted=$dir/disk
model=$fixtures/itera-small/model.safetensors
cp "$fixtures/itera-small/config.json" . # some files have theirs beside them
yes 'the cat sat on the mat.' | head -n 100 >text.txt

# trains PATTERN DIRECTORY
trains() {
    refused 1 "$1" train --out "$2" --steps 3 --batch 2 --seq 16 --threads 1 --preset micro \
        --tokenizer byte --data text.txt
}

trains 'cannot write.*No space left' disk/run
[ ! -e disk/run/checkpoint.new ] || die "a full disk left half a checkpoint"
echo '{"old": true}' >disk/info.json
head -c 1000000 /dev/zero >disk/fill 2>/dev/null || true
refused 1 'cannot write.*No space left' logits "$model" --tokens 1,2,3,4,5 -o disk/info.json
refused 1 'cannot write.*No space left' info --preset micro --json disk/info.json
grep -q old disk/info.json || die "a full disk lost a file"
[ "$(echo disk/*)" = 'disk/fill disk/info.json disk/run' ] || die "a full disk has $(echo disk/*)"
mount -o remount,bind,ro disk # of the mount alone: a namespace may not change the rest
trains 'disk/new: .*Read-only file system' disk/new
refused 1 'Read-only file system' logits "$model" --tokens 1 -o disk/l.safetensors
refused 1 'Read-only file system' info --preset micro --json disk/new.json
echo "full and read-only disks are errors"
