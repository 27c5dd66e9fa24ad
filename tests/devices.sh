#!/bin/sh
# The command on GPU devices (here mostly drivers that run them on the CPU): models, training,
# generation, fallbacks, faults, the cache; each against what the CPU does.
# Usage: tests/devices.sh ITERA FIXTURES DEVICE...    exits with 77 when none of the devices is there
set -u

fixtures=$(realpath "$2")
. "$(dirname "$0")/command.sh"
shift 2
[ -n "${ITERA_CACHE_DIR:-}" ] || export ITERA_CACHE_DIR="$dir/cache"

cat >config.json <<'JSON'
{"architecture": "itera", "vocab_size": 257, "hidden_size": 32, "num_layers": 2,
 "ssm_state_size": 8, "num_experts": 4, "expert_size": 16, "max_seq_length": 32}
JSON

# train DEVICE OUT [OPTION...]
train() {
    device=$1
    out=$2
    shift 2
    # shellcheck disable=SC2094
    timeout 300 "$itera" train --device "$device" --config config.json --tokenizer byte \
        --data 'builtin:stories?bytes=100000' --valid none --batch 2 --seq 32 --log-every 1 \
        --schedule constant --seed 3 --out "$out" "$@" >out 2>err </dev/null
}

# close_losses A B LIMIT: the largest difference of two runs' losses.
close_losses() {
    sed -n 's/.*"loss": \([-0-9.e]*\), "aux.*/\1/p' "$1/train.jsonl" >a
    sed -n 's/.*"loss": \([-0-9.e]*\), "aux.*/\1/p' "$2/train.jsonl" >b
    [ -s a ] && paste a b | awk -v limit="$3" '
        { d = $1 - $2; if (d < 0) d = -d; if (!(d <= limit)) bad = 1 } END { exit bad }'
}

test_device() {
    device=$1
    name=$(echo "$device" | tr : -)
    for model in "$fixtures"/*/; do
        expect 0 '' check "$model" --expected "$model/expected.safetensors" --device "$device"
    done

    # What its driver made of kernels: those that a preset uses.
    expect 0 '' devices --kernels --device "$device" --preset micro --op matmul
    grep -q 'matmul_.* micro' out || fail "$device: no products among a preset's kernels"
    expect 0 '' devices --kernels --device "$device" --op adamw # the usual presets
    grep -q 'adamw .*micro tiny' out || fail "$device: other presets than the usual ones"
    expect 0 '' devices --kernels -d "$device" --preset micro --op 'add,matmul' --json kernels.json
    expect 1 'nosuch' devices --kernels -d "$device" --preset nosuch
    expect 1 'matches .nosuch' devices --kernels -d "$device" --preset micro --op nosuch
    grep -q '"used_by": "micro"' kernels.json || fail "$device: no kernels in JSON"

    # What a decoded token launches is told.
    expect 0 '' bench model --preset micro --device "$device" --phase decode --seconds 0.02 --json -
    launches=$(sed -n 's/.*"dispatches": \([0-9]*\).*/\1/p' out)
    [ "${launches:-0}" -ge 1 ] || fail "$device: a token launches nothing"
    [ "$launches" -le 24 ] || fail "$device: a token launches $launches kernels; it was 24"

    # Training follows the CPU, repeats, and resumes bit for bit.
    train "$device" "$name" --steps 12 --fallback refuse || fail "training on $device"
    close_losses cpu "$name" 1e-3 || fail "$device: other losses than the CPU's"
    (ITERA_FAULT=lost:8 train "$device" "$name-lost" --steps 12 --save-every 2)
    [ $? -eq 1 ] || fail "$device: a lost device is no failure"
    grep -q 'lost' err || fail "$device: a lost device is not named"
    train "$device" "$name-lost" --resume || fail "$device: resuming after the loss"
    cmp -s "$name/model.safetensors" "$name-lost/model.safetensors" ||
        fail "$device: another model after a lost device"
    # ... and on another device.
    (ITERA_FAULT=lost:8 train "$device" "$name-moved" --steps 12 --save-every 2)
    timeout 100 "$itera" train --device cpu --out "$name-moved" --resume >out 2>err ||
        fail "$device: resuming on the CPU"
    close_losses cpu "$name-moved" 1e-3 || fail "$device: other losses after moving to the CPU"

    # A file is measured like a preset.
    expect 0 '' bench model "$name/model.safetensors" --quick --device "$device" --phase decode --seconds 0.02

    # Mixed precision learns, and resumes.
    train "$device" "$name-f16" --steps 12 --precision f16 --fallback refuse ||
        fail "training in f16 on $device"
    close_losses cpu "$name-f16" 0.05 || fail "$device: f16 losses are far off"

    # Learning from a teacher.
    for on in cpu "$device"; do
        timeout 300 "$itera" distill cpu/model.safetensors --device "$on" --config config.json \
            --data 'builtin:stories?bytes=100000' --batch 2 --seq 32 --steps 4 --log-every 1 \
            --schedule constant --fallback refuse --force --out "$name-taught-$on" >out 2>err \
            </dev/null || fail "distilling on $on"
    done
    close_losses "$name-taught-cpu" "$name-taught-$device" 1e-3 ||
        fail "$device: a student with other losses than the CPU's"

    # Generation.
    for model in cpu/model.safetensors "$fixtures/mamba-small"; do
        tokens=""
        [ -d "$model" ] && tokens="--tokenizer cpu/model.safetensors"
        # shellcheck disable=SC2086
        "$itera" generate "$model" $tokens --device cpu --temp 0 -n 64 --seed 5 --prompt "Tom " \
            >cpu.txt 2>err || continue
        # shellcheck disable=SC2086
        "$itera" generate "$model" $tokens --device "$device" --fallback refuse --temp 0 -n 64 \
            --seed 5 --prompt "Tom " >device.txt 2>err || fail "generating on $device"
        cmp -s cpu.txt device.txt || fail "$device: another text than the CPU's of $model"
    done

    # Narrow weights, quantised on the device: the same file, and what it predicts.
    for type in f16 q8 q4; do
        for on in cpu "$device"; do
            timeout 300 "$itera" quantize cpu/model.safetensors --to $type --device "$on" \
                -o "$name-$type-$on" >out 2>err || fail "quantising to $type on $on"
            timeout 300 "$itera" eval "$name-$type-cpu" --data 'builtin:stories?valid&bytes=2000' \
                --device "$on" --json "$name-$on.json" >out 2>err || fail "$type weights on $on"
            sed -n 's/.*"nll": \([0-9.]*\).*/\1/p' "$name-$on.json" >"$name-$on.nll"
        done
        cmp -s "$name-$type-cpu" "$name-$type-$device" || fail "$type from $device: another file"
        paste "$name-cpu.nll" "$name-$device.nll" |
            awk '{ d = $1 - $2; if (d < 0) d = -d; exit !(NF == 2 && d < 2e-3) }' ||
            fail "$device: $type weights predict otherwise than on the CPU"
    done

    # Ops that the device must leave to the CPU: reported, or refused; never silent.
    (
        export ITERA_DISABLE_OPS='itera_scan*,moe_sort'
        train "$device" "$name-mixed" --steps 3 --json "$name.json"
    ) || fail "training with fallbacks on $device"
    grep -q 'the CPU ran them: itera_scan, itera_scan_bwd, moe_sort' err ||
        fail "$device: the fallbacks are not listed"
    tr -d ' \n' <"$name.json" | grep -q '"fallback_ops":\["itera_scan","itera_scan_bwd","moe_sort"\]' ||
        fail "$device: the fallbacks are not in the JSON"
    head -n 3 cpu/train.jsonl >short.jsonl
    mkdir -p short && mv short.jsonl short/train.jsonl
    close_losses short "$name-mixed" 1e-3 || fail "$device: other losses with fallbacks"
    (
        export ITERA_DISABLE_OPS='itera_scan*,moe_sort'
        train "$device" "$name-refused" --steps 3 --fallback refuse
    )
    [ $? -eq 1 ] || fail "$device: refused ops are no failure"
    grep -q "$device cannot compute itera_scan" err || fail "$device: refused ops are not named"

    # Faults.
    (ITERA_FAULT=memory:3 expect 1 'memory' eval cpu/model.safetensors --data 'builtin:stories?valid&bytes=2000' --device "$device"; exit $failed) || failed=$((failed + 1))
    if [ "$device" = vulkan:0 ]; then # OpenCL drivers here have nothing to tell of kernels
        (ITERA_FAULT=memory:4 expect 0 'training of 8 x 128 tokens is left out' devices --kernels --device "$device" --preset micro; exit $failed) || failed=$((failed + 1))
    fi
    (ITERA_FAULT=lost:1 expect 1 'lost' eval cpu/model.safetensors --data 'builtin:stories?valid&bytes=2000' --device "$device"; exit $failed) || failed=$((failed + 1))
    (ITERA_FAULT=list:1 expect 1 'there is no device' eval cpu/model.safetensors --data 'builtin:stories?valid&bytes=2000' --device "$device"; exit $failed) || failed=$((failed + 1))

    # Two processes on one cold cache, then a broken one.
    export ITERA_CACHE_DIR="$dir/cold-$name"
    "$itera" logits cpu/model.safetensors --tokens 1,2,3 --device "$device" -o one >out1 2>err1 &
    "$itera" logits cpu/model.safetensors --tokens 1,2,3 --device "$device" -o two >out2 2>err ||
        fail "$device: a shared cold cache"
    wait $! || fail "$device: a shared cold cache"
    cmp -s one two || fail "$device: other logits with a shared cache"
    for file in "$ITERA_CACHE_DIR"/*; do
        echo garbage >"$file"
    done
    "$itera" logits cpu/model.safetensors --tokens 1,2,3 --device "$device" -o three >out 2>err ||
        fail "$device: a broken cache"
    cmp -s one three || fail "$device: other logits after a broken cache"
    export ITERA_CACHE_DIR="$dir/cache"
}

train cpu cpu --threads 1 --steps 12 || fail "training on the CPU"

tested=0
"$itera" devices --json devices.json 2>err || fail "listing devices"
expect 0 'no kernels' devices --kernels -d cpu
for device; do
    if grep -q "\"$device\"" devices.json; then
        echo "testing $device"
        test_device "$device"
        tested=$((tested + 1))
    else
        echo "there is no $device here"
    fi
done

# Without drivers the CPU remains, and naming a device that is not there says what is.
(
    export OCL_ICD_VENDORS="$dir/none" VK_DRIVER_FILES="$dir/none.json" VK_ICD_FILENAMES="$dir/none.json"
    failed=0
    expect 0 '' devices
    [ "$(grep -c -e '^vulkan' -e '^opencl' out)" -eq 0 ] || fail "devices without drivers"
    expect 1 "there is no device 'vulkan:0'" eval cpu/model.safetensors --data 'builtin:stories?valid&bytes=2000' --device vulkan:0
    expect 1 "there is no device 'opencl:0'" eval cpu/model.safetensors --data 'builtin:stories?valid&bytes=2000' --device opencl:0
    exit $failed
) || failed=$((failed + 1))

# Drivers that are broken: files that are no libraries.
mkdir -p vendors
echo "$dir/broken.so" >vendors/broken.icd
echo "this is no library" >broken.so
echo '{"file_format_version": "1.0.0", "ICD": {"library_path": "'"$dir"'/broken.so", "api_version": "1.1.0"}}' >broken.json
(
    export OCL_ICD_VENDORS="$dir/vendors" VK_DRIVER_FILES="$dir/broken.json" VK_ICD_FILENAMES="$dir/broken.json"
    failed=0
    expect 0 '' devices
    grep -q '^cpu' out || fail "no CPU beside broken drivers"
    exit $failed
) || failed=$((failed + 1))

[ $tested -gt 0 ] || exit 77
[ $failed -eq 0 ] || { echo "$failed failed"; exit 1; }
echo "all passed"
