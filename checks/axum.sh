#!/usr/bin/env bash
# Runs axum's own unit tests with every service of a router in a pool: bash checks/axum.sh
#
# The sources are those of the registry, in the version of Cargo.lock. A patch puts a `PoolLayer` around each route, which
# reads request bodies first and polls the bodies of responses in the pool. It adds a test that handlers run in the pool.
# Tests that count the clones of a router's state are left out: they expect exact numbers, and the layer clones the service
# once more for each request. So are the two of keep-alive events, which pause the clock: Tokio advances a paused clock
# while it waits for a pool.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fetch --quiet
version=$(sed -n '/^name = "axum"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
work=target/axum-suite/source
rm -rf "$work"
mkdir -p "$work"
cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"axum-$version"/. "$work"
git apply --directory="$work" checks/axum.patch
cat >> "$work/Cargo.toml" <<'TOML'

[dependencies.tower-offload]
path = "../../.."
default-features = false

[workspace]
TOML
cargo test --manifest-path "$work/Cargo.toml" --target-dir target/axum-suite --lib \
    --all-features --features axum-macros/__private -- --skip isnt_cloned_too_much \
    --skip sse::tests::keep_alive
