// The one way in which kernels are started.
#pragma once
#include <string>
#include <tuple>
#include <type_traits>

#include "lib/base/error.h"
#include "lib/runtime/cuda/portable.h"
#include "lib/runtime/cuda/runtime.h"

namespace infopt::cuda {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
  Extent(int64_t x_, int64_t y_ = 1, int64_t z_ = 1) : x(static_cast<unsigned>(x_)), y(static_cast<unsigned>(y_)), z(static_cast<unsigned>(z_)) {}  // NOLINT: a number is an extent
};

/// Fault injection for tests, and what every launch reports to: throws Error(Defect) when a launch was told to fail.
void note_launch(const char* name);

/// Blocks of `block` threads, each with `shared` bytes of its own. Throws Error(Defect) where the launch fails; faults inside come out at wait().
template <class... P, class... A>
void launch_named(const char* name, Stream& stream, void (*kernel)(P...), Extent grid, Extent block, size_t shared, A&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  note_launch(name);
#if defined(__CUDACC__)
  if (shared > 48 * 1024) cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(block.x, block.y, block.z);
  config.dynamicSmemBytes = shared;
  config.stream = static_cast<cudaStream_t>(stream.native());
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, static_cast<P>(arguments)...);
  if (status != cudaSuccess) throw Error(ErrorKind::Defect, std::string("the CUDA kernel ") + name + " could not be launched: " + cudaGetErrorString(status));
#else
  std::tuple<std::decay_t<P>...> values(static_cast<P>(arguments)...);
  stream.emulate([=] {
    emulation::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared, [&] { std::apply(kernel, values); }, name);
  });
#endif
}
#define INFOPT_LAUNCH(stream, kernel, ...) ::infopt::cuda::launch_named(#kernel, stream, kernel, __VA_ARGS__)

/// Blocks that cover `items` with `threads` each.
inline int64_t blocks_for(int64_t items, int64_t threads) { return (items + threads - 1) / threads; }

}  // namespace infopt::cuda
