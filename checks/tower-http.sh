#!/usr/bin/env bash
# Runs tower-http's own unit tests with their handlers in a pool: bash checks/tower-http.sh
#
# The sources are those of the registry, in the version of Cargo.lock. Each handler (`service_fn`) of the tests of
# compression, decompression, request ids, timeouts and traces gets a `PoolLayer` around it, which reads request bodies
# first, has those of responses polled in the pool, and holds permits. The tests of compression and decompression have a
# second one around the middleware, so that workers compress. Handlers with another type of request body stay as they are
# (`decompression::request`), and middleware that limits bodies has no unit tests. The timeouts of bodies are tested
# without a handler, so those tests are left out.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fetch --quiet
version=$(sed -n '/^name = "tower-http"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
work=target/tower-http-suite/source
rm -rf "$work"
mkdir -p "$work"
cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"tower-http-$version"/. "$work"
cat >> "$work/Cargo.toml" <<'TOML'

[dev-dependencies.tower-offload]
path = "../../.."
default-features = false

[workspace]
TOML
# Two tests read the file at its place in tower-http's repository.
cp "$work/README.md" "$work/.."
cat checks/tower-http.rs >> "$work/src/test_helpers.rs"
cd "$work/src"
handlers=(compression/{mod,layer}.rs decompression/mod.rs request_id.rs timeout/service.rs trace/mod.rs)
code='/^ *\/\//!'
sed -i -E "$code s/\.service_fn\((.*)\);$/.service(crate::test_helpers::pooled(\1));/
    $code s/(tower::|\b)service_fn\(/crate::test_helpers::pooled(/" "${handlers[@]}"
sed -i -E "$code s/\b(svc|client|service)\.(ready|oneshot)\(/crate::test_helpers::around(\1.clone()).\2(/" \
    compression/{mod,layer}.rs decompression/mod.rs
sed -i 's/pooled(|_| async { Ok/pooled(move |_| async move { Ok/' compression/mod.rs
sed -i 's/let _: Response<DecompressionBody<_>> =/let _ =/' decompression/mod.rs
# A slow machine takes longer.
sed -i 's/timeout(Duration::from_secs(1), res/timeout(Duration::from_secs(60), res/' decompression/mod.rs
cd - >/dev/null
RUSTFLAGS="-A warnings" cargo test --manifest-path "$work/Cargo.toml" --target-dir target/tower-http-suite --lib \
    --all-features -- --skip decompression::request compression:: request_id:: timeout::service:: trace:: handlers_run_in_the_pool "$@"
