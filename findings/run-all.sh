#!/usr/bin/env bash
# Runs every finding, one after the other, and counts. Needs the network for the packages; not a part of ./test.
#
# The last line is `N hold, N changed, N not run`; the exit code is 0 if nothing changed.
cd "$(dirname "$0")" || exit 1
hold=0 changed=0 skipped=0
for script in *.sh; do
    case $script in run-all.sh | lib.sh) continue ;; esac
    echo "--- ${script%.sh}"
    "./$script"
    case $? in
    0) hold=$((hold + 1)) ;;
    77) skipped=$((skipped + 1)) ;; # the script has said why
    *) changed=$((changed + 1)) && echo "--- ${script%.sh}: CHANGED" ;;
    esac
done
echo "$hold hold, $changed changed, $skipped not run"
[ "$changed" = 0 ]
