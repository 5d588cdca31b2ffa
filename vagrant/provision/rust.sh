#!/usr/bin/env bash
# A Rust compiler: by rustup, which fetches the one that the checkout's rust-toolchain.toml names, or from Debian's packages.
set -euo pipefail
checkout=$1

if PATH=$HOME/.cargo/bin:$PATH command -v cargo > /dev/null; then
    exit 0
fi
packages() { sudo DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"; }
sudo apt-get update
packages build-essential ca-certificates curl
if curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs --output /tmp/rustup-init.sh; then
    sh /tmp/rustup-init.sh -y --profile minimal --default-toolchain none
    cd "$checkout"
    # The active toolchain of this directory, with its components.
    ~/.cargo/bin/rustup toolchain install
else
    echo "rustup cannot be had: taking Debian's packages for browsers, which are kept recent enough"
    packages rustc-web cargo-web libstd-rust-web-dev-bpf
    # The BPF linker is built against the compiler's own LLVM.
    packages "llvm-$(rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')-dev"
fi
