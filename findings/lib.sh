# What the scripts of this folder share. A script says what to install, what to run, and what was seen:
#
#   . "$(dirname "$0")/lib.sh"
#   python_with NAME==VERSION...        or   node_with NAME@VERSION...
#   run COMMAND...                      its output is printed and kept
#   expect <<'END' ...                  the kept output must be this text
#
# Everything is installed in a folder that is removed at the end. The exit code is 0 where the finding still holds, 1 where
# something else was seen, and 77 where it could not be run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

not_run() {
    echo "not run: $1"
    exit 77
}

python_with() {
    command -v python3 >/dev/null || not_run "python3 is missing"
    python3 -m venv venv >/dev/null || not_run "python3 cannot make a virtual environment"
    venv/bin/pip install --quiet --disable-pip-version-check "$@" || not_run "pip could not install $*"
    echo "with $*"
}

node_with() {
    command -v npm >/dev/null || not_run "npm is missing"
    echo '{"private": true, "type": "module"}' >package.json
    npm install --silent --no-audit --no-fund "$@" || not_run "npm could not install $*"
    echo "with $*"
}

# Dawn on SwiftShader, Chromium's Vulkan driver that runs on the CPU; webgpu.mjs lies beside what is run.
webgpu_on_swiftshader() {
    export VK_DRIVER_FILES=${SWIFTSHADER:-/usr/lib/chromium/vk_swiftshader_icd.json}
    export XDG_RUNTIME_DIR=$work
    [ -e "$VK_DRIVER_FILES" ] || not_run "SwiftShader is missing: install chromium, or set SWIFTSHADER to its vk_swiftshader_icd.json"
    node_with webgpu@0.6.2
    cp "$here/webgpu.mjs" .
}

run() {
    "$@" 2>errors | tee seen || { cat errors; return 1; }
}

expect() {
    if ! diff - seen >difference; then
        echo "CHANGED (< as found, > now):"
        cat difference
        exit 1
    fi
}
