// The oneDNN convolutions of one node.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/window.h"

namespace infopt::cpu {

/// By where the window goes: with auto_pad, or a Pad before the node, that depends on the input's shape, so that a node may need several. What else a node
/// has (groups, strides, dilations, transposed or not) must be the same in every call.
class ConvolutionEngines {
 public:
  const Convolution& get(const Window& window, int64_t groups, bool transposed, const PostActivation& post, bool accumulate = false) const;

 private:
  struct Engine {
    std::vector<int64_t> pads_begin, pads_end;
    PostActivation::Kind kind;
    bool accumulate;
    std::unique_ptr<Convolution> convolution;
  };
  mutable std::mutex mutex_;
  mutable std::vector<Engine> engines_;
};

}  // namespace infopt::cpu
