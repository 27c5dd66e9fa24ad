#!/bin/sh
# The Vulkan backend under the Khronos validation layer, with synchronisation validation: its tests,
# parity and gradients of every op, a short training run and a short generation. Any message fails.
# First a device that leaves out all barriers must be noticed: otherwise silence says nothing.
#
#   validation.sh ITERA TEST_VULKAN WORK_FOLDER
set -eu
itera=$1
test_vulkan=$2
work=$3

rm -rf "$work"
mkdir -p "$work/settings" "$work/cache"
# The layer opens its log anew for each instance, so that it is a pipe, on descriptor 9. The two ways
# to ask for synchronisation validation are those of older and newer layers; the newest look at what
# shaders do only when asked.
cat >"$work/settings/vk_layer_settings.txt" <<END
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.report_flags = error,warn
khronos_validation.log_filename = /dev/fd/9
khronos_validation.enable_message_limit = false
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT
khronos_validation.validate_sync = true
khronos_validation.syncval_shader_accesses_heuristic = true
END
export VK_LAYER_SETTINGS_PATH="$work/settings"
export VK_INSTANCE_LAYERS=VK_LAYER_KHRONOS_validation
export ITERA_CACHE_DIR="$work/cache"

# Runs a command; what the layer says goes to $work/messages, the rest to $work/output.
watch() {
    {
        code=0
        "$@" 9>&1 >"$work/output" 2>&1 || code=$?
        echo $code >"$work/code"
    } | cat >"$work/messages"
    code=$(cat "$work/code")
}

validate() {
    watch "$@"
    if [ "$code" -ne 0 ] && [ "$code" -ne 77 ]; then # 77: a part that this device cannot run
        echo "failed with $code: $*"
        tail -n 30 "$work/output"
        exit 1
    fi
    if [ -s "$work/messages" ]; then
        echo "the validation layer has something to say of: $*"
        head -c 4000 "$work/messages"
        exit 1
    fi
}

if ! "$itera" devices 9>/dev/null 2>"$work/messages" | grep -q '^vulkan:0 '; then
    echo "skipped: there is no vulkan:0"
    exit 77
fi

# A command that opens the device: drivers are listed by a child process, which says nothing.
watch env VK_LOADER_DEBUG=layer "$itera" check --device vulkan:0 --op fill --cases 1
if ! grep -q VkLayer_khronos_validation "$work/output"; then
    echo "skipped: there is no VK_LAYER_KHRONOS_validation"
    exit 77
fi
watch env ITERA_FAULT=barriers:1 "$itera" check --device vulkan:0 --op embedding_bwd --cases 2
if ! grep -q SYNC-HAZARD "$work/messages"; then
    echo "kernels without barriers were not noticed: this layer does not validate synchronisation"
    exit 1
fi

validate "$test_vulkan"
validate "$test_vulkan" large
validate "$itera" check --device vulkan:0 --grad --cases 3
validate env ITERA_FAULT=staging:1,addresses:1 "$itera" check --device vulkan:0 --cases 1
for preset in micro itera-m-micro transformer-micro; do
    validate "$itera" train --preset $preset --tokenizer byte --device vulkan:0 \
        --data 'builtin:stories?bytes=20000' --valid 'builtin:stories?valid&bytes=2000' \
        --steps 2 --batch 2 --seq 16 --eval-tokens 64 --out "$work/$preset"
    validate "$itera" generate "$work/$preset/model.safetensors" --prompt "Once upon" -n 24 \
        --temp 0.8 --seed 1 --device vulkan:0
done
echo "validation is silent over tests, parity, training and generation"
