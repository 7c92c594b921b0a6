#!/usr/bin/env bash
# Runs the integration tests of tonic with every service in a pool: bash checks/tonic.sh
#
# `Routes::add_service` puts a `PoolLayer` around each service, which reads the first message of a call first, has the
# bodies of responses polled in the pool, and holds permits. This runs the tests of calls, streams, compression and
# gRPC-Web. It needs the sources of tonic (from GitHub, or a local copy as TONIC_SOURCE) and protoc, and takes some
# minutes. `connect_handles_tls` is left out: it is a test of the client alone, and asks a server on the internet.
set -euo pipefail
cd "$(dirname "$0")/.."

source=${TONIC_SOURCE:-https://github.com/hyperium/tonic}
commit=a55efae785d6628bfc832fdbe7ca7d024d000cdb
command -v protoc >/dev/null || { echo "protoc is missing: apt-get install protobuf-compiler libprotobuf-dev" >&2; exit 1; }
work=target/tonic-suite/source
rm -rf "$work"
members=(tonic tonic-build tonic-prost tonic-prost-build tonic-web tests/integration_tests tests/compression tests/web)
git clone --quiet --no-checkout --filter=blob:none "$source" "$work"
git -C "$work" sparse-checkout set "${members[@]}"
git -C "$work" checkout --quiet "$commit"

cat checks/tonic.rs >> "$work/tonic/src/service/router.rs"
python3 - "$work/tonic/src/service/router.rs" <<'PYTHON'
import sys
path, plain = sys.argv[1], "svc.map_request(|req: Request<axum::body::Body>| req.map(Body::new)),"
wrapped = """tower_layer::Layer::layer(
                &offload(),
                svc.map_response(axum::response::IntoResponse::into_response)
                    .map_request(|req: Request<tower_offload::body::Buffered<axum::body::Body>>| req.map(Body::new)),
            ),"""
text = open(path).read()
assert text.count(plain) == 1, "tonic's router has changed"
open(path, "w").write(text.replace(plain, wrapped))
PYTHON
cp checks/tonic_in_the_pool.rs "$work/tests/integration_tests/tests/in_the_pool.rs"
python3 - "$work/Cargo.toml" "${members[@]}" <<'PYTHON'
import re, sys
path, *members = sys.argv[1:]
text = open(path).read()
open(path, "w").write(re.sub(r"members = \[.*?\]", f"members = {members}".replace("'", '"'), text, count=1, flags=re.S))
PYTHON
cat >> "$work/tonic/Cargo.toml" <<TOML

[dependencies.tower-offload]
path = "$PWD"
default-features = false
TOML
RUSTFLAGS="-A warnings" cargo test --manifest-path "$work/Cargo.toml" --target-dir target/tonic-suite --no-fail-fast \
    -p integration-tests -p compression -p test_web --lib --tests -- --skip connect_handles_tls "$@"
