#!/usr/bin/env bash
# Installs what is missing, builds everything, and runs all tests.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_dependencies.sh
scripts/python_environment.sh
# One architecture: where nvcc is installed, the kernels must compile; a GPU isn't needed.
cmake --preset release -DCMAKE_CUDA_ARCHITECTURES=90-real
cmake --build --preset release
ctest --preset release
