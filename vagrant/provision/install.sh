#!/usr/bin/env bash
# The agent, from the host's build, or where that does not run here from one of this machine's own.
set -euo pipefail
checkout=$1 uploads=$2
agent=$uploads/lb-agent

if version=$("$agent" --version 2> /dev/null); then
    echo "taking the host's build: $version"
else
    echo "no lb-agent of the host runs here ($agent): building it, which takes minutes"
    bash "$checkout/vagrant/provision/rust.sh" "$checkout"
    export PATH=$HOME/.cargo/bin:$PATH
    cd "$checkout"
    cargo xtask build
    agent=$checkout/target/release/lb-agent
fi
sudo install -D -m 755 "$agent" /usr/local/bin/lb-agent
