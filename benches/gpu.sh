#!/usr/bin/env bash
# The targets of this project on a GPU machine, from a copied release binary: published shapes with random weights.
#
#   benches/gpu.sh target/release/nemoflash OUT [OPTION...]      OPTIONs go to every run: --adapter 1, -r 3
#
# Writes one report per row into the new folder OUT, which `nemoflash compare OUT/*.json --html OUT/report.html` reads. A row
# that fails does not end the others; the exit code is then 1.
set -uo pipefail
[ $# -ge 2 ] || { sed -n '2,7p' "$0"; exit 2; }
nemoflash=$1 out=$2
shift 2
mkdir "$out" || exit 2
failed=0

# row NAME ARGUMENT...
row() {
    local name=$1
    shift
    echo "--- $name" >&2
    "$nemoflash" bench --device gpu --skip first-token "$@" "${more[@]}" --output json --file "$out/$name.json" || failed=1
}
more=("$@")

row fables -p 512 -n 512
row 1b --arch nemotron-flash-1b -p 2048 -n 128 -d 0,4096
row 1b-without-coopmat --arch nemotron-flash-1b --skip load,compile -p 2048 -n 0 --deny coopmat
row 1b-deep --arch nemotron-flash-1b --skip load,compile -p 0 -n 128 -d 32768
row 1b-q4 --arch nemotron-flash-1b --weights q4 -p 512 -n 128
row 3b --arch nemotron-flash-3b -p 2048 -n 128
row qwen3-0.6b --arch qwen3-0.6b --skip load,compile -p 512 -n 128
row qwen3-1.7b --arch qwen3-1.7b --skip load,compile -p 512 -n 128
row 1b-many paper --arch nemotron-flash-1b -n 128
"$nemoflash" compare "$out"/*.json --html "$out/report.html" || failed=1
exit $failed
