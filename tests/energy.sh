#!/bin/sh
# itera energy on fake machines: none, one with a battery, one with an NVIDIA card, one that denies.
# Usage: tests/energy.sh ITERA FAKE_NVML
set -eu

ITERA_NVML=$(realpath "$2")
. "$(dirname "$0")/command.sh"
export ITERA_SYSFS="$dir/sys" ITERA_NVML
export FAKE_NVML="$dir/cards"
mkdir sys
: >cards

"$itera" energy --seconds 0.1 >out
says 'No energy sensor of this machine can be used' out
says 'no figure: rapl: no intel-rapl zone' out
says 'tdp WATTS' out
"$itera" energy --seconds 0.1 --json >out
says '"joules": null' out
says '"reason": "rapl: no intel-rapl zone' out
"$itera" energy --seconds 0.1 --tdp 50 --json >out
says '"watts": 50.0' out
says '"measured": false' out
says '"source": "tdp 50 W"' out

battery=sys/class/power_supply/BAT0
mkdir -p $battery
echo Battery >$battery/type
echo Discharging >$battery/status
echo 12500000 >$battery/power_now
"$itera" energy --seconds 0.2 --energy-rate 50 --tdp 50 --json >out
says '"source": "battery BAT0"' out
says '"measured": true' out
says '"scope": "whole machine"' out
says '"sample_hz": 50.0' out
says '"watts": 12\.[56]' out
echo Charging >$battery/status
"$itera" energy --seconds 0 >out
says 'unplug the charger' out

# A counter that stands still is told from one that counts.
zone=sys/class/powercap/intel-rapl:0
mkdir -p $zone
echo package-0 >$zone/name
echo 1000000 >$zone/max_energy_range_uj
echo 5 >$zone/energy_uj
"$itera" energy --seconds 0.1 >out
says 'no figure: rapl package-0: the counter does not move' out
(
    i=0
    while [ $i -lt 1000 ]; do
        i=$((i + 1))
        echo $((i * 1000)) >next && mv next $zone/energy_uj
        sleep 0.01
    done
) &
ticker=$!
"$itera" energy --seconds 0.5 --json >out
kill $ticker
wait $ticker 2>/dev/null || true
says '"source": "rapl package-0"' out
says '"resolution_joules"' out

echo '41 - 70000 0 NVIDIA T4' >cards
"$itera" energy --seconds 0.2 >out
says 'nvml  *NVIDIA T4  *gpu  *power' out
says '^gpu .* 7[0-9]\.[0-9]* .*nvml NVIDIA T4' out
echo '41 - 70000 4 NVIDIA T4' >cards
"$itera" energy --seconds 0 --json >out
says 'Insufficient Permissions' out

status=0
"$itera" energy --device cpu:9 2>err >out || status=$?
[ $status -eq 1 ]
says "no device 'cpu:9'" err
status=0
"$itera" energy --seconds -1 2>err || status=$?
[ $status -eq 2 ]
echo "every fake machine said what it should"
