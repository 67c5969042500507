#include "tools/bench_inputs.h"

#include <algorithm>
#include <charconv>
#include <random>
#include <set>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "recipes/measure.h"

namespace infopt {
namespace {

constexpr int64_t kLargestDim = int64_t{1} << 31;

int64_t parse_size(const std::string& text, const std::string& option) {
  int64_t size = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (status != std::errc{} || end != text.data() + text.size() || size < 0 || size > kLargestDim)
    throw Error(ErrorKind::Usage, "'" + text + "' isn't a size", option);
  return size;
}

/// "name=rest"; names may hold '=' themselves, sizes don't.
std::pair<std::string, std::string> parse_pair(const std::string& text, const std::string& option) {
  const size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0) throw Error(ErrorKind::Usage, "NAME=… is expected, not '" + text + "'", option);
  return {text.substr(0, at), text.substr(at + 1)};
}

std::string declared(const Value& value) {
  std::string text = "[";
  for (const Dim& d : value.type.shape)
    text += (text.size() > 1 ? "," : "") + (d.size >= 0 ? std::to_string(d.size) : d.symbol.empty() ? "?" : d.symbol);
  return text + "]";
}

Tensor made_up(DType dtype, const Shape& shape) {
  std::mt19937_64 bits(1);
  if (dtype == DType::Bool || (is_integer(dtype) && bits_of(dtype) > 8)) {
    Tensor ones(DType::F32, shape);
    std::fill_n(ones.mutable_data<float>(), ones.size(), 1.0f);
    return cast(ones, dtype);
  }
  if (is_integer(dtype)) {
    Tensor t(dtype, shape);
    std::generate_n(t.mutable_raw(), t.bytes(), [&] { return static_cast<std::byte>(bits() >> 56); });
    return t;
  }
  Tensor t(DType::F32, shape);
  std::generate_n(t.mutable_data<float>(), t.size(),
                  [&] { return static_cast<float>(static_cast<int64_t>(bits() >> 40) - (1 << 23)) * 0x1p-23f; });
  return dtype == DType::F32 ? t : cast(t, dtype);
}

}  // namespace

BenchInputs::BenchInputs(const Model& model, BenchInputSpec spec) : model_(model), spec_(std::move(spec)), data_(data_options(model)) {
  parse_shapes();
  parse_dims();
  const Graph& graph = *model_.graph;
  bool free = false;
  int64_t first = 0;  // of a made-up input
  for (ValueId id : graph.inputs()) {
    const Value& value = graph.value(id);
    if (value.constant.defined()) continue;
    if (spec_.file.empty()) {
      made_.push_back(plan_input(value));
      free = free || std::count(made_.back().shape.begin(), made_.back().shape.end(), -1) > 0;
      if (first == 0 && !made_.back().shape.empty()) first = made_.back().shape[0];
    } else {
      free = free || !value.type.has_shape || (!value.type.shape.empty() && value.type.shape[0].size < 0);
    }
  }
  if (!free) fixed_ = std::max<int64_t>(1, spec_.file.empty() ? first : data_.rows_per_sample);
}

void BenchInputs::parse_shapes() {
  std::vector<std::string> names;
  for (ValueId id : model_.graph->inputs()) names.push_back(model_.graph->value(id).name);
  for (const std::string& text : spec_.shapes) {
    const auto [name, list] = parse_pair(text, "--shape");
    if (std::find(names.begin(), names.end(), name) == names.end())
      throw Error(ErrorKind::Usage, "the model has no input '" + name + "'" + did_you_mean(name, names), "--shape");
    Shape shape;
    for (size_t at = 0; at < list.size();) {
      const size_t end = std::min(list.find_first_of(",x", at), list.size());
      const std::string size = list.substr(at, end - at);
      shape.push_back(size == "B" ? -1 : parse_size(size, "--shape"));
      at = end + 1;
      if (at == list.size()) throw Error(ErrorKind::Usage, "'" + list + "' ends where a size is expected", "--shape");
    }
    shapes_[name] = shape;
  }
}

void BenchInputs::parse_dims() {
  std::set<std::string> symbols;
  for (ValueId id : model_.graph->inputs())
    for (const Dim& d : model_.graph->value(id).type.shape)
      if (d.size < 0 && !d.symbol.empty()) symbols.insert(d.symbol);
  for (const std::string& text : spec_.dims) {
    const auto [symbol, size] = parse_pair(text, "--dim");
    if (!symbols.count(symbol))
      throw Error(ErrorKind::Usage, "no input has a dimension '" + symbol + "'" + did_you_mean(symbol, {symbols.begin(), symbols.end()}),
                  "--dim");
    dims_[symbol] = parse_size(size, "--dim");
  }
}

BenchInputs::Made BenchInputs::plan_input(const Value& value) const {
  const std::string what = "input '" + value.name + "'";
  if (!value.type.opaque.empty() || value.type.dtype == DType::Undefined || value.type.dtype == DType::String ||
      value.type.dtype == DType::C64 || value.type.dtype == DType::C128 || bits_of(value.type.dtype) < 8)
    throw Error(ErrorKind::Usage, what + " can't be made up: give --input DATA");
  Made made{value.name, value.type.dtype, {}};
  if (const auto it = shapes_.find(value.name); it != shapes_.end()) {
    made.shape = it->second;
    return made;
  }
  if (!value.type.has_shape)
    throw Error(ErrorKind::Usage, what + " has no declared shape: give --shape " + value.name + "=B,… (B is the batch)");
  const std::string batch = !value.type.shape.empty() && value.type.shape[0].size < 0 ? value.type.shape[0].symbol : "";
  for (size_t i = 0; i < value.type.shape.size(); ++i) {
    const Dim& d = value.type.shape[i];
    const auto given = dims_.find(d.symbol);
    if (d.size >= 0) made.shape.push_back(d.size);
    else if (!d.symbol.empty() && given != dims_.end()) made.shape.push_back(given->second);
    else if (i == 0 || (!batch.empty() && batch != "?" && d.symbol == batch)) made.shape.push_back(-1);
    else
      throw Error(ErrorKind::Usage, what + " is " + declared(value) + ", whose dimension " + std::to_string(i) + " is unknown: give " +
                                        (d.symbol.empty() || d.symbol == "?" ? "" : "--dim " + d.symbol + "=SIZE or ") + "--shape " +
                                        value.name + "=B,… (B is the batch), or --input DATA");
  }
  return made;
}

Inputs BenchInputs::make(int64_t batch) const {
  if (fixed_ > 0 && batch != fixed_)
    throw Error(ErrorKind::Usage,
                "the batch is fixed at " + std::to_string(fixed_) +
                    (spec_.shapes.empty() ? " by the model" : ": write B in --shape where the batch is"),
                "--batch " + std::to_string(batch));
  if (!spec_.file.empty()) return read(batch);
  Inputs inputs;
  for (const Made& m : made_) {
    Shape shape = m.shape;
    std::replace(shape.begin(), shape.end(), int64_t{-1}, batch);
    inputs[m.name] = made_up(m.dtype, shape);
  }
  return inputs;
}

Inputs BenchInputs::read(int64_t batch) const {
  DataOptions options = data_;
  options.rows_per_sample = batch;
  options.limit = 1;
  const auto data = open_dataset(spec_.file, options);
  Sample sample;
  if (!data->next(sample)) throw Error(ErrorKind::Malformed, "has no samples", spec_.file);
  return std::move(sample.inputs);
}

std::vector<Inputs> BenchInputs::make_up_to(int64_t batch) const {
  const Inputs full = make(batch);
  std::vector<Inputs> all;
  for (int64_t count = fixed_ > 0 ? fixed_ : 1; count <= batch; ++count) {
    Inputs some;
    for (const auto& [name, tensor] : full) {
      const auto made = std::find_if(made_.begin(), made_.end(), [&n = name](const Made& m) { return m.name == n; });
      const bool leading = made != made_.end() ? !made->shape.empty() && made->shape[0] == -1 : tensor.rank() > 0 && tensor.dim(0) == batch;
      const bool elsewhere = made != made_.end() && std::count(made->shape.begin(), made->shape.end(), -1) != (leading ? 1 : 0);
      if (elsewhere || (leading && (tensor.dtype() == DType::String || bits_of(tensor.dtype()) < 8))) {
        some = make(count);
        break;
      }
      some[name] = leading ? tensor.slice_front(0, count) : tensor;
    }
    all.push_back(std::move(some));
  }
  return all;
}

}  // namespace infopt
