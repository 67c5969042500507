#!/usr/bin/env bash
# A virtual environment with the pinned packages that the Python tests compare with (ONNX's checker, ONNX Runtime, NumPy).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=build/python
stamp=$venv/.installed
if [ ! -f "$stamp" ] || [ tests/python/requirements.txt -nt "$stamp" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check -r tests/python/requirements.txt
  touch "$stamp"
fi
