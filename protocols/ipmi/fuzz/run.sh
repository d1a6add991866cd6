#!/bin/sh
# Fuzzes one target with the stable toolchain: run.sh <target> [seconds]. Finds are kept in artifacts/<target>/.
#
# The instrumentation is LLVM's own and needs no nightly compiler: the decoders are safe Rust, so that an address
# sanitizer, which would, has nothing to add.
set -eu
cd "$(dirname "$0")"
target=$1
seconds=${2:-60}
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
  -Ccodegen-units=1"
# With an explicit target the flags do not reach build scripts, which have no fuzzer to link with.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$host"
found=${CARGO_TARGET_DIR:-target}/fuzz-corpus/$target
mkdir -p "artifacts/$target" "$found"
export RACKHAND_FUZZ_TARGET="$target"
exec "${CARGO_TARGET_DIR:-target}/$host/release/ipmi" -max_total_time="$seconds" -max_len=4096 -timeout=5 \
  -rss_limit_mb=512 -artifact_prefix="artifacts/$target/" "$found" "corpus/$target"
