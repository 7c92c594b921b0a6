#!/usr/bin/env bash
# The dashboard of the example server in Chromium: bash checks/dashboard.sh
# It needs npm, and installs Debian's chromium if there is none. The screenshots are in target/dashboard.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v chromium >/dev/null; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends chromium >/dev/null
fi
mkdir -p target/dashboard
(cd target/dashboard && { [ -f package.json ] || npm init --yes; } >/dev/null && npm install --silent --no-audit --no-fund playwright-core@1 axe-core@4)
cargo build --quiet --example server
timeout 600 node checks/dashboard.mjs target/debug/examples/server "$(command -v chromium)" target/dashboard
