#!/usr/bin/env bash
# Brings rustup; the checkout's rust-toolchain.toml says which compiler it then fetches.
set -euo pipefail

if [ -x ~/.cargo/bin/cargo ]; then
    exit 0
fi
sudo apt-get update
sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends build-essential ca-certificates curl
curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
    sh -s -- -y --profile minimal --default-toolchain none
. ~/.cargo/env
cd ~/lb
# The active toolchain of this directory, with its components.
rustup toolchain install
