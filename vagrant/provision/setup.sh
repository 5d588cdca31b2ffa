#!/usr/bin/env bash
# The system's packages, by `cargo xtask setup`: with the host's build of it, or where that does not run here with one of
# this machine's own.
set -euo pipefail
checkout=$1 uploads=$2
xtask=$uploads/xtask

cd "$checkout"
if "$xtask" --help > /dev/null 2>&1; then
    "$xtask" setup --packages-only
else
    echo "no xtask of the host runs here ($xtask): building it"
    bash vagrant/provision/rust.sh "$checkout"
    export PATH=$HOME/.cargo/bin:$PATH
    cargo xtask setup --packages-only
fi
