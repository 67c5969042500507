#!/usr/bin/env bash
# Everything that only a GPU can tell, in under nine minutes: the device's tests, compute-sanitizer on them, and the figures, as one JSON.
#   benchmarks/gpu.sh OUT.json [BUILD]
# BUILD (build/gpu) is built here where it isn't there yet; a prebuilt one needs tools/infopt and tests/test_gpu.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/gpu.sh OUT.json [BUILD]}
build=${2:-build/gpu}
if [ ! -x "$build/tools/infopt" ]; then
  cmake -S . -B "$build" -G Ninja -DINFOPT_CUDA=ON -DINFOPT_GPU_TESTS=ON -DCMAKE_CUDA_ARCHITECTURES=native && cmake --build "$build" --target infopt test_gpu || exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
timeout 120 "$build/tests/test_gpu" --gtest_output="json:$work/tests.json" > "$work/tests.log" 2>&1
echo "test_gpu: exit $?"; tail -n 30 "$work/tests.log"
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
if [ -n "$sanitizer" ]; then
  timeout 120 "$sanitizer" --error-exitcode 99 --launch-timeout 60 "$build/tests/test_gpu" --gtest_filter='-*Large*' > "$work/sanitizer.log" 2>&1
  echo "compute-sanitizer: exit $?" | tee "$work/sanitizer.txt"; tail -n 5 "$work/sanitizer.log"
else
  echo "compute-sanitizer: not installed" | tee "$work/sanitizer.txt"
fi
python3 benchmarks/gpu.py --infopt "$build/tools/infopt" --tests "$work/tests.json" --sanitizer "$work/sanitizer.txt" --seconds 240 --out "$out"
