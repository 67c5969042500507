#!/usr/bin/env bash
# build.sh PREFIX: downloads ONNX's source distribution (pinned by version and hash), builds it with the system's
# protobuf, and installs headers and library below PREFIX. Needs python3 with pip and venv, cmake, ninja, g++, protoc.
set -euo pipefail
prefix=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/infopt-onnx.XXXXXX")
trap 'rm -rf "$work"' EXIT

python3 -m venv "$work/venv"
# Only the archive is wanted: without its build requirements pip would try to build it to learn its metadata.
"$work/venv/bin/pip" install -q --disable-pip-version-check -U pip
"$work/venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary onnx --require-hashes \
  -r "$here/requirements.txt" -d "$work"
tar -C "$work" -xf "$work"/onnx-*.tar.gz
source_dir=$(find "$work" -maxdepth 1 -type d -name 'onnx-*' | head -n 1)

launcher=()
if command -v ccache > /dev/null; then launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache); fi
cmake -S "$here" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DONNX_SOURCE="$source_dir" \
  -DCMAKE_INSTALL_PREFIX="$prefix.partial" "${launcher[@]}" > "$work/configure.log" || { cat "$work/configure.log" >&2; exit 1; }
cmake --build "$work/build"
rm -rf "$prefix.partial" "$prefix"
cmake --install "$work/build" > /dev/null
mv "$prefix.partial" "$prefix"
