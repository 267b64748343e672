#!/usr/bin/env bash
# Two builds on one GPU, in turns: prompts of several lengths, and several sequences at a time. The models have published shapes
# and random weights.
#
#   benches/side_by_side.sh OLD NEW OUT [OPTION...]      OLD and NEW are release binaries; OPTIONs go to every run: --adapter 1, -r 3
#
# Writes the rows of each build into the new folder OUT, `table.txt` with a line for each test and a column for each build, and
# `report.html`. A row that fails does not end the others; the exit code is then 1.
set -uo pipefail
[ $# -ge 3 ] || { sed -n '2,8p' "$0"; exit 2; }
old=$1 new=$2 out=$3
shift 3
more=("$@")
mkdir "$out" || exit 2
failed=0

# row ARGUMENT...: the old build, then the new one.
row() {
    for build in old new; do
        echo "--- $build: $*" >&2
        local file="$out/part.jsonl"
        "${!build}" bench --device gpu --skip load,compile,first-token --profile 0 "$@" ${more[@]+"${more[@]}"} \
            --output jsonl --file "$file" || failed=1
        [ ! -e "$file" ] || cat "$file" >>"$out/$build.jsonl"
        rm -f "$file"
    done
}

row --arch nemotron-flash-1b -n 0 -p 64,128,512,2048,8192,32768
row --arch nemotron-flash-3b -n 0 -p 2048
row --arch qwen3-0.6b -n 0 -p 2048,8192
row --arch qwen3-1.7b -n 0 -p 2048,8192
row --arch nemotron-flash-1b -p 0 -n 128 -b 1,2,4,8,16,64
row --arch nemotron-flash-1b --weights q4 -p 0 -n 128 -b 1,4
"$new" compare "$out/old.jsonl" "$out/new.jsonl" --html "$out/report.html" | tee "$out/table.txt" || failed=1
exit $failed
