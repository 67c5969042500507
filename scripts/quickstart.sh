#!/usr/bin/env bash
# Installs what is missing, builds infopt, and quantizes a sample model with the default recipe.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install_dependencies.sh
cmake --preset release -DINFOPT_TESTS=OFF > /dev/null
cmake --build --preset release --target infopt
mkdir -p build/quickstart
model=sample_models/digits_cnn
build/release/tools/infopt quantize $model/model.onnx --calib $model/calib.npz --eval $model/eval.npz \
  --recipe int8 --set eval.metric=top1 --report build/quickstart -o build/quickstart/digits_cnn.int8.onnx
echo "the model and its reports are in build/quickstart"
