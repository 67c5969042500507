// Summaries that a run was asked for: where they lie on the device, and how they come back.
#pragma once
#include <memory>
#include <utility>
#include <vector>

#include "lib/runtime/summary.h"

namespace infopt::cuda {

class CudaRun;

struct SummaryHeader {
  float low, high;
  uint32_t flags;  ///< 1: NaN, 2: +∞, 4: −∞
  int exponent;
};

/// On the device. counts: null where no histogram is wanted, else kSummaryBins.
struct SummaryPlaces {
  SummaryHeader* header;
  uint32_t* counts;
  double *sum, *square;  ///< one a channel, as the next two
  float *low, *high;
};

struct SummaryJob {
  Tensor tensor;     ///< float32, float16 or bfloat16, with 1 to 2^32 − 1 elements
  ChannelView view;  ///< no channels: none are summarized
  SummaryPlaces places;
};
constexpr size_t kSummariesTogether = 16;

/// At most kSummariesTogether. One kernel reads each type of element, one more joins what its blocks found.
void summarize_together(CudaRun& run, const std::vector<SummaryJob>& jobs);

/// In the order in which they were asked for.
class Summaries {
 public:
  /// False for a tensor of another type or of too many elements. The tensor may go: what it needs is kept.
  bool ask(CudaRun& run, const Tensor& tensor, Layout layout, const SummaryRequest& request);
  /// Gives what was asked for to the stream, and copies all to the host's memory behind it.
  void copy_back(CudaRun& run);
  /// Once the copies are done.
  std::vector<TensorSummary> read() const;

 private:
  struct One {
    int64_t elements, channels;
    bool histogram;
    size_t at;  ///< of the copy, in bytes
  };
  void flush(CudaRun& run);

  std::vector<One> all_;
  std::vector<SummaryJob> waiting_;
  size_t waiting_bytes_ = 0;
  size_t group_at_ = 0, bytes_ = 0;  ///< of the copies: where the waiting ones begin, and the end
  std::vector<std::pair<size_t, Tensor>> results_;  ///< on the device, a group's each, and where its copy lies
  std::shared_ptr<std::byte> host_;
};

}  // namespace infopt::cuda
