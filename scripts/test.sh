#!/usr/bin/env bash
# Installs what is missing, builds everything, and runs all tests.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_dependencies.sh
scripts/python_environment.sh
cmake --preset release
cmake --build --preset release
ctest --preset release
