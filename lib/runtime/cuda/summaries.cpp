#include "lib/runtime/cuda/summaries.h"

#include <cstring>

#include "lib/runtime/cuda/context.h"

namespace infopt::cuda {
namespace {

constexpr size_t kHeader = sizeof(SummaryHeader), kCounts = static_cast<size_t>(kSummaryBins) * 4;
constexpr size_t kAlign = 256, kChannel = 24, kMostWaiting = size_t{16} << 20;

SummaryPlaces places_in(std::byte* at, int64_t channels, bool histogram) {
  SummaryPlaces p = {};
  p.header = reinterpret_cast<SummaryHeader*>(at);
  at += kHeader;
  if (histogram) p.counts = reinterpret_cast<uint32_t*>(at), at += kCounts;
  p.sum = reinterpret_cast<double*>(at);
  p.square = p.sum + channels;
  p.low = reinterpret_cast<float*>(p.square + channels);
  p.high = p.low + channels;
  return p;
}

}  // namespace

bool Summaries::ask(CudaRun& run, const Tensor& tensor, Layout layout, const SummaryRequest& request) {
  const DType type = tensor.dtype();
  if ((type != DType::F32 && type != DType::F16 && type != DType::BF16) || tensor.size() > int64_t{0xffffffff}) return false;
  const ChannelView view = tensor.size() > 0 && request.channel_axis ? channel_view(tensor.shape(), layout, *request.channel_axis) : ChannelView{};
  all_.push_back({tensor.size(), view.channels, request.histogram, bytes_});
  if (tensor.size() == 0) return true;
  waiting_.push_back({tensor, view, {}});
  const size_t result = kHeader + (request.histogram ? kCounts : 0) + static_cast<size_t>(view.channels) * kChannel;
  bytes_ += (result + kAlign - 1) / kAlign * kAlign;
  waiting_bytes_ += tensor.bytes();
  if (waiting_.size() == kSummariesTogether || waiting_bytes_ >= kMostWaiting) flush(run);
  return true;
}

void Summaries::flush(CudaRun& run) {
  if (waiting_.empty()) return;
  Tensor results = run.make(DType::U8, {static_cast<int64_t>(bytes_ - group_at_)});
  auto one = all_.end();
  for (auto job = waiting_.rbegin(); job != waiting_.rend(); ++job) {
    while ((--one)->elements == 0) {
    }
    job->places = places_in(results.mutable_raw() + (one->at - group_at_), one->channels, one->histogram);
  }
  summarize_together(run, waiting_);
  results_.emplace_back(group_at_, std::move(results));
  waiting_.clear();
  waiting_bytes_ = 0;
  group_at_ = bytes_;
}

void Summaries::copy_back(CudaRun& run) {
  flush(run);
  if (bytes_ == 0) return;
  host_ = {static_cast<std::byte*>(pinned_malloc(bytes_)), [](std::byte* p) { pinned_free(p); }};
  for (const auto& [at, results] : results_) run.stream().copy_to_host(host_.get() + at, results.raw(), results.bytes());
}

std::vector<TensorSummary> Summaries::read() const {
  std::vector<TensorSummary> out;
  for (const One& one : all_) {
    TensorSummary& s = out.emplace_back();
    s.elements = one.elements;
    if (one.elements == 0) continue;
    const SummaryPlaces p = places_in(host_.get() + one.at, one.channels, one.histogram);
    s.nan = p.header->flags & 1u, s.plus_infinity = p.header->flags & 2u, s.minus_infinity = p.header->flags & 4u;
    s.min = p.header->low, s.max = p.header->high, s.exponent = p.header->exponent;
    if (p.counts) s.counts.assign(p.counts, p.counts + kSummaryBins);
    s.channel_sum.assign(p.sum, p.sum + one.channels);
    s.channel_square.assign(p.square, p.square + one.channels);
    s.channel_min.assign(p.low, p.low + one.channels);
    s.channel_max.assign(p.high, p.high + one.channels);
  }
  return out;
}

}  // namespace infopt::cuda
