#include "passes/support/varied_samples.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/autodiff/fake_quantize.h"
#include "passes/support/batches.h"
#include "passes/support/dense.h"

namespace infopt {
namespace {

constexpr int64_t kHeldEvery = 8, kLeastToHold = 16;
constexpr size_t kPartners = 8;           // samples that mixtures are made with
constexpr int64_t kNear = 32;             // ids that may stand for one
constexpr int64_t kLeastRows = 64;        // of a table, for its ids to be varied
constexpr double kMostProducts = 2e10;    // of looking for neighbours: larger tables are thinned out
constexpr int64_t kLeastSide = 8;         // of an image

double unit(uint64_t seed) { return static_cast<double>(mix_bits(seed) >> 11) / 9007199254740992.0; }
int64_t below(uint64_t seed, int64_t n) { return static_cast<int64_t>(mix_bits(seed) % static_cast<uint64_t>(n)); }

/// The table that a graph input's integers are looked up in; null where it isn't one.
const Tensor* table_of(const Graph& graph, ValueId input) {
  for (const Use& u : graph.value(input).uses) {
    if (u.node == kNone) continue;
    const Node& n = graph.node(u.node);
    if (n.is("Gather") && u.index == 1 && n.i("axis", 0) == 0) {
      const Tensor* t = graph.constant(n.input(0));
      if (t && t->rank() == 2 && t->dim(0) >= kLeastRows && t->dtype() == DType::F32) return t;
    }
    const bool passes = u.index == 0 && (n.is("Cast") || n.is("Identity") || n.is("Reshape") || n.is("Unsqueeze") || n.is("Squeeze") || n.is("Flatten"));
    if (const Tensor* t = passes ? table_of(graph, n.outputs[0]) : nullptr) return t;
  }
  return nullptr;
}

/// Those rows, of unit length.
std::vector<float> unit_rows(const Tensor& table, const std::vector<int64_t>& rows) {
  const int64_t width = table.dim(1);
  std::vector<float> out(rows.size() * static_cast<size_t>(width));
  for (size_t r = 0; r < rows.size(); ++r) {
    const float* from = table.data<float>() + rows[r] * width;
    double sum = 1e-30;
    for (int64_t i = 0; i < width; ++i) sum += static_cast<double>(from[i]) * static_cast<double>(from[i]);
    for (int64_t i = 0; i < width; ++i) out[r * static_cast<size_t>(width) + static_cast<size_t>(i)] = from[i] / static_cast<float>(std::sqrt(sum));
  }
  return out;
}

std::map<int64_t, std::vector<int64_t>> neighbours(const Tensor& table, const std::vector<int64_t>& ids) {
  const int64_t width = table.dim(1), count = static_cast<int64_t>(ids.size());
  const double products = static_cast<double>(count) * static_cast<double>(table.dim(0)) * static_cast<double>(width);
  const auto step = static_cast<int64_t>(std::max(1.0, std::ceil(products / kMostProducts)));
  std::vector<int64_t> rows;
  for (int64_t r = 0; r < table.dim(0); r += step) rows.push_back(r);
  const std::vector<float> all = unit_rows(table, rows);
  std::map<int64_t, std::vector<int64_t>> out;
  for (int64_t from = 0; from < count; from += 64) {
    const std::vector<int64_t> part(ids.begin() + from, ids.begin() + std::min(count, from + 64));
    const std::vector<float> own = unit_rows(table, part);
    const auto n = static_cast<int64_t>(rows.size());
    std::vector<float> alike(part.size() * rows.size(), 0.0f);
    add_product(static_cast<int64_t>(part.size()), n, width, 1, {own.data(), width, 1}, {all.data(), 1, width}, alike.data(), n);
    for (size_t p = 0; p < part.size(); ++p) {
      const float* a = alike.data() + p * rows.size();
      std::vector<int64_t> order(rows.size());
      std::iota(order.begin(), order.end(), 0);
      const auto last = order.begin() + std::min<int64_t>(n, kNear + 1);
      std::partial_sort(order.begin(), last, order.end(), [&](int64_t x, int64_t y) { return a[x] != a[y] ? a[x] > a[y] : x < y; });
      for (auto it = order.begin(); it != last; ++it)
        if (rows[static_cast<size_t>(*it)] != part[p]) out[part[p]].push_back(rows[static_cast<size_t>(*it)]);
    }
  }
  return out;
}

bool two_valued(const Tensor& t) {
  const float* v = t.data<float>();
  float other = v[0];
  for (int64_t i = 0; i < t.size(); ++i) {
    if (v[i] == v[0] || v[i] == other) continue;
    if (other != v[0]) return false;
    other = v[i];
  }
  return true;
}

Tensor mixture(const Tensor& a, const Tensor& b, float share) {
  Tensor out(DType::F32, a.shape());
  for (int64_t i = 0; i < a.size(); ++i) out.mutable_data<float>()[i] = share * a.data<float>()[i] + (1 - share) * b.data<float>()[i];
  return out;
}

/// Moved by some places along the two axes from `axis` on; edges go on.
Tensor shifted(const Tensor& t, int64_t axis, int64_t down, int64_t right) {
  const int64_t rows = t.dim(axis), columns = t.dim(axis + 1);
  int64_t inner = 1;
  for (int64_t a = axis + 2; a < t.rank(); ++a) inner *= t.dim(a);
  Tensor out(DType::F32, t.shape());
  const float* from = t.data<float>();
  float* to = out.mutable_data<float>();
  for (int64_t o = 0; o < t.size() / (rows * columns * inner); ++o)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c, to += inner) {
        const int64_t y = std::clamp<int64_t>(r + down, 0, rows - 1), x = std::clamp<int64_t>(c + right, 0, columns - 1);
        std::copy_n(from + ((o * rows + y) * columns + x) * inner, inner, to);
      }
  return out;
}

/// Where an image's rows and columns begin; -1 where it isn't one.
int64_t image_axis(const Tensor& t) {
  if (t.rank() != 4) return -1;
  const int64_t axis = t.dim(1) <= 4 ? 2 : t.dim(3) <= 4 ? 1 : -1;
  return axis > 0 && t.dim(axis) >= kLeastSide && t.dim(axis + 1) >= kLeastSide ? axis : -1;
}

}  // namespace

VariedSamples::VariedSamples(DataSet& data, const Graph& graph, int64_t each) : data_(data), each_(each) {
  for (int64_t i = 0; i < data_.size(); ++i)
    if (!held_out(i)) free_.push_back(i);
  held_ = data_.size() - static_cast<int64_t>(free_.size());
  if (each_ > 0) find_ids(graph);
  reset();
}

bool VariedSamples::held_out(int64_t index) const { return data_.size() >= kLeastToHold && index < data_.size() && index % kHeldEvery == kHeldEvery - 1; }

int64_t VariedSamples::origin(int64_t sample) const {
  if (give_held_ && sample < data_.size()) return sample;
  return free_[static_cast<size_t>(give_held_ ? sample - data_.size() : sample) % free_.size()];
}

void VariedSamples::find_ids(const Graph& graph) {
  std::map<std::string, const Tensor*> tables;
  for (ValueId v : graph.inputs())
    if (const Tensor* t = table_of(graph, v)) tables[graph.value(v).name] = t;
  if (tables.empty()) return;
  std::map<std::string, std::map<int64_t, int64_t>> holders;
  data_.reset();
  for (Sample s; data_.next(s);)
    for (const auto& [name, table] : tables) {
      if (!s.inputs.contains(name)) continue;
      const std::vector<int64_t> ids = to_vector<int64_t>(s.inputs.at(name));
      for (int64_t id : std::set<int64_t>(ids.begin(), ids.end())) ++holders[name][id];
    }
  for (const auto& [name, counts] : holders) {
    Ids& ids = ids_[name];
    std::vector<int64_t> free;
    for (const auto& [id, count] : counts) {
      if (2 * count > data_.size() || id < 0 || id >= tables.at(name)->dim(0)) ids.fixed.insert(id);
      else free.push_back(id);
    }
    ids.near = neighbours(*tables.at(name), free);
  }
}

Tensor VariedSamples::vary_ids(const Ids& ids, const Tensor& t, uint64_t seed) const {
  std::vector<int64_t> values = to_vector<int64_t>(t);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t s = mix_bits(seed + i);
    const auto near = ids.near.find(values[i]);
    if (near != ids.near.end() && !near->second.empty() && s % 2 == 0) values[i] = near->second[static_cast<size_t>(below(s, static_cast<int64_t>(near->second.size())))];
  }
  return cast(Tensor::vector(values).reshaped(t.shape()), t.dtype());
}

void VariedSamples::vary(Sample& sample, uint64_t seed) const {
  const Sample& other = before_[static_cast<size_t>(below(seed, static_cast<int64_t>(before_.size())))];
  const auto share = static_cast<float>(0.5 + 0.5 * unit(seed + 1));
  for (auto& [name, t] : sample.inputs) {
    const auto ids = ids_.find(name);
    if (ids != ids_.end()) t = vary_ids(ids->second, t, mix_bits(seed + 2));
    if (t.dtype() != DType::F32 || t.size() == 0 || two_valued(t)) continue;
    const auto with = other.inputs.find(name);
    if (with == other.inputs.end() || with->second.shape() != t.shape() || (other.index != sample.index && same_bytes(with->second, t))) continue;
    if (const int64_t axis = image_axis(t); axis > 0) {
      const int64_t high = t.dim(axis) / 8, wide = t.dim(axis + 1) / 8;
      t = shifted(t, axis, below(seed + 3, 2 * high + 1) - high, below(seed + 4, 2 * wide + 1) - wide);
    }
    t = mixture(t, with->second, share);
  }
}

bool VariedSamples::next(Sample& sample) {
  while (!data_.next(sample)) {
    if (++round_ > each_) return false;
    data_.reset();
    at_ = 0;
  }
  const int64_t index = at_++;
  if ((round_ > 0 || !give_held_) && held_out(index)) return next(sample);
  sample.index = index;
  if (!held_out(index)) {
    const Sample original = sample;
    if (round_ > 0) vary(sample, mix_bits(static_cast<uint64_t>(given_)));
    if (round_ > 0) sample.where += ", varied";
    before_.push_back(original);
    if (before_.size() > kPartners) before_.pop_front();
  }
  sample.index = given_++;
  return true;
}

void VariedSamples::reset() {
  data_.reset();
  before_.clear();
  round_ = at_ = given_ = 0;
}

}  // namespace infopt
