#!/usr/bin/env bash
# Compiles every .cu file, one at a time, for each compute capability that the preset `cuda` names, warnings being errors; nothing is linked or run.
# Needs nvcc and a build folder that CMake has configured (its generated headers). Says what fails, and how many files compile. Where cusparseLt.h is
# found, in $CUSPARSELT_ROOT/include or the toolkit's, the part that uses it is compiled too.
#   scripts/compile_cuda.sh [-a "80 89 90 100"] [-b build/release] [FILE.cu…]
set -uo pipefail
cd "$(dirname "$0")/.."
architectures="80 89 90 100" build=build/release
while getopts a:b: option; do
  case $option in
    a) architectures=$OPTARG ;;
    b) build=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
files=("$@")
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
sparse=
for folder in ${CUSPARSELT_ROOT:+"$CUSPARSELT_ROOT/include"} "$toolkit/include"; do
  [ -n "$sparse" ] || [ ! -e "$folder/cusparseLt.h" ] || sparse=$folder
done
if [ ${#files[@]} -eq 0 ]; then
  files=(lib/ops/*.cu lib/runtime/cuda/*.cu)
  [ -z "$sparse" ] || files+=(lib/runtime/cuda/sparse_library_cuda.cpp)
fi
codes=()
for a in $architectures; do codes+=(-gencode "arch=compute_$a,code=sm_$a"); done
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
good=0 bad=()
for file in "${files[@]}"; do
  if ${CCACHE-ccache} nvcc -std=c++20 -O1 -fmad=false -Xcompiler=-Wall,-Wextra,-fopenmp -Werror=all-warnings "${codes[@]}" ${sparse:+-DINFOPT_CUSPARSELT -isystem "$sparse"} -I. -I"$build/generated" -c "$file" -o "$out/object.o"; then
    good=$((good + 1))
    echo "ok $file"
  else
    bad+=("$file")
  fi
done
echo "$good of ${#files[@]} files compile without a warning for compute capability $architectures"
[ ${#bad[@]} -eq 0 ] || { printf 'not: %s\n' "${bad[@]}"; exit 1; }
