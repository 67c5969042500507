// Before: constants in which one element, mostly 0, stands in many places. After: the others in their order, a bit for each place, and standard
// operators that put them there; engines compute those once, when they load.
//
//   bits = Mod(BitShift(mask, [0..7]), 2), flattened
//   constant = Reshape(Gather([0, kept...], CumSum(bits) * bits), shape)
//
// Half zeros: 0.53 of float32's bytes, 0.63 of int8's. Small constants are unpacked together and split.
// Conditions: elements of whole bytes; less than kPays of the bytes remain; opset 13.
#include <algorithm>
#include <array>
#include <map>

#include "lib/base/memory.h"
#include "passes/pass.h"

namespace infopt {
namespace {

constexpr double kPays = 0.9;
constexpr int64_t kOverhead = 160;                 // bytes of nodes and names, about
constexpr int64_t kTogether = int64_t{1} << 20;    // elements that are unpacked at once: the unpacking holds 16 bytes for each

struct Packed {
  ValueId value = kNone;
  Tensor constant;
};

size_t width_of(const Tensor& t) { return bits_of(t.dtype()) / 8; }

bool is_zero(const std::byte* p, size_t width) {
  return std::all_of(p, p + width, [](std::byte b) { return b == std::byte{0}; });
}

bool pays(const Tensor& t) {
  if (t.dtype() == DType::String || bits_of(t.dtype()) % 8 != 0 || bits_of(t.dtype()) > 64 || t.rank() == 0 || t.size() < 256) return false;
  const size_t width = width_of(t);
  int64_t kept = 0;
  for (int64_t i = 0; i < t.size(); ++i) kept += !is_zero(t.raw() + static_cast<size_t>(i) * width, width);
  const int64_t bytes = kept * static_cast<int64_t>(width) + t.size() / 8 + kOverhead;
  return static_cast<double>(bytes) < kPays * static_cast<double>(t.bytes());
}

class Packer {
 public:
  explicit Packer(GraphEdit& edit) : edit_(edit), graph_(edit.graph()) {}

  void run() {
    std::map<DType, std::vector<Packed>> waiting;
    const auto last = static_cast<ValueId>(graph_.value_capacity());
    for (ValueId v = 0; v < last; ++v) {
      if (!graph_.value_alive(v) || !graph_.value(v).is_constant() || graph_.value(v).uses.empty() || graph_.is_output(v) || !pays(graph_.value(v).constant)) continue;
      auto& batch = waiting[graph_.value(v).constant.dtype()];
      int64_t total = graph_.value(v).constant.size();
      for (const Packed& p : batch) total += p.constant.size();
      if (total > kTogether && !batch.empty()) pack(batch), batch.clear();
      batch.push_back({v, graph_.value(v).constant});
    }
    for (auto& [type, batch] : waiting)
      if (!batch.empty()) pack(batch);
    if (before_ > 0) edit_.note(std::to_string(constants_) + " constants packed: " + std::to_string(before_) + " bytes became " + std::to_string(after_));
  }

 private:
  ValueId ints(const std::vector<int64_t>& values) { return edit_.add_constant(Tensor::vector(values)); }

  void pack(const std::vector<Packed>& batch) {
    const DType type = batch[0].constant.dtype();
    const size_t width = width_of(batch[0].constant);
    int64_t total = 0, kept = 0;
    for (const Packed& p : batch) total += p.constant.size();
    Tensor mask = Tensor::zeros(DType::U8, {(total + 7) / 8, 1});
    std::vector<std::byte> values(width, std::byte{0});
    std::vector<int64_t> sizes;
    int64_t at = 0;
    for (const Packed& p : batch) {
      for (int64_t i = 0; i < p.constant.size(); ++i, ++at) {
        const std::byte* element = p.constant.raw() + static_cast<size_t>(i) * width;
        if (is_zero(element, width)) continue;
        mask.mutable_data<uint8_t>()[at / 8] |= static_cast<uint8_t>(1 << (at % 8));
        values.insert(values.end(), element, element + width);
        ++kept;
      }
      sizes.push_back(p.constant.size());
      before_ += static_cast<int64_t>(p.constant.bytes());
    }
    Tensor elements(type, {kept + 1});
    std::copy(values.begin(), values.end(), elements.mutable_raw());
    after_ += static_cast<int64_t>(mask.bytes() + elements.bytes());
    constants_ += static_cast<int64_t>(batch.size());
    const std::vector<ValueId> parts = split(unpack(std::move(mask), std::move(elements), total), sizes);
    for (size_t i = 0; i < batch.size(); ++i) {
      const ValueId whole = edit_.add({.op = "Reshape"}, {parts[i], ints(batch[i].constant.shape())});
      const std::string name = graph_.value(batch[i].value).name;
      edit_.replace_uses(batch[i].value, whole);
      edit_.remove_value(batch[i].value);
      if (!name.empty()) edit_.set_name(whole, name);
    }
  }

  /// The flat elements, as many as `count`.
  ValueId unpack(Tensor mask, Tensor elements, int64_t count) {
    if (shifts_ == kNone) {
      constexpr std::array<uint8_t, 8> kShifts{0, 1, 2, 3, 4, 5, 6, 7};
      shifts_ = edit_.add_constant(Tensor::of<uint8_t>({8}, kShifts));
      two_ = edit_.add_constant(Tensor::scalar(uint8_t{2}));
      flat_ = ints({-1});
      axis_ = edit_.add_constant(Tensor::scalar(int64_t{0}));
    }
    const bool whole = count % 8 == 0;
    const ValueId shifted = edit_.add({.op = "BitShift", .attributes = {{"direction", std::string("RIGHT"), {}}}}, {edit_.add_constant(std::move(mask)), shifts_});
    const ValueId low = edit_.add({.op = "Mod"}, {shifted, two_});
    const ValueId wide = edit_.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(DType::I32), {}}}}, {low});
    ValueId bits = edit_.add({.op = "Reshape"}, {wide, flat_});
    if (!whole) bits = edit_.add({.op = "Slice"}, {bits, ints({0}), ints({count}), ints({0})});
    const ValueId place = edit_.add({.op = "Mul"}, {edit_.add({.op = "CumSum"}, {bits, axis_}), bits});
    return edit_.add({.op = "Gather"}, {edit_.add_constant(std::move(elements)), place});
  }

  std::vector<ValueId> split(ValueId flat, const std::vector<int64_t>& sizes) {
    if (sizes.size() == 1) return {flat};
    std::vector<ValueId> parts;
    for (size_t i = 0; i < sizes.size(); ++i) parts.push_back(edit_.add_value());
    edit_.add_node({.op = "Split", .attributes = {{"axis", int64_t{0}, {}}}}, {flat, ints(sizes)}, parts);
    return parts;
  }

  GraphEdit& edit_;
  const Graph& graph_;
  ValueId shifts_ = kNone, two_ = kNone, flat_ = kNone, axis_ = kNone;
  int64_t before_ = 0, after_ = 0, constants_ = 0;
};

void run(GraphEdit& edit, PassContext&, const Options&) { Packer(edit).run(); }

}  // namespace

PassDef pass_pack_zeros() {
  return {.name = "pack_zeros", .summary = "constants with many zeros as what isn't zero and a bit for each place, in standard operators", .contract = Contract::Exact, .needs_opset = 13, .run = run};
}

}  // namespace infopt
