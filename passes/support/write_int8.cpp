#include "passes/support/write_int8.h"

#include <algorithm>
#include <cmath>

#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/body_weights.h"
#include "passes/support/layer_bias.h"
#include "passes/support/qdq_writer.h"
#include "passes/support/quantize_weights.h"
#include "passes/support/signal_to_noise.h"

namespace infopt {
namespace {

class Writer {
 public:
  Writer(GraphEdit& edit, Int8Plan& plan, PassContext& context, const Options& options)
      : edit_(edit), graph_(edit.graph()), plan_(plan), context_(context), options_(options), qdq_(edit, context.profile), clips_(!context.profile.activations_symmetric) {}

  void write() {
    find_tied();
    find_activations();
    std::vector<Prepared> prepared(plan_.layers.size());
    parallel_for(static_cast<int64_t>(prepared.size()), context_.threads, [&](int64_t i, int) {
      const LayerPlan& p = plan_.layers[static_cast<size_t>(i)];
      if (p.form != LayerForm::Float32) prepared[static_cast<size_t>(i)] = prepare(p);
    });
    for (size_t i = 0; i < prepared.size(); ++i) {
      const LayerPlan& p = plan_.layers[i];
      if (p.form == LayerForm::Int8Static) write_static(p, prepared[i]);
      else if (p.form == LayerForm::Int8Dynamic) write_dynamic(p, prepared[i]);
      else if (p.form == LayerForm::Int8Storage) write_storage(p, prepared[i]);
      else restore_transpose(p);
      prepared[i] = {};
    }
    for (const EmbeddingPlan& e : plan_.embeddings) write_embedding(e);
    for (const StoredWeights& s : plan_.stored) write_stored(s);
    for (const auto& [value, layer] : plan_.captured) write_captured(value, layer);
    write_activations();
  }

 private:
  struct Prepared {
    QuantizedWeights q;
    std::vector<double> shift;    ///< see output_shift; empty where the bias isn't corrected
    std::vector<double> factors;  ///< that the weights are equalized with; empty for none
  };
  Prepared prepare(const LayerPlan& p);
  std::vector<float> weights_of(const LayerPlan& p, const std::vector<double>& factors) const;
  LayerBias bias_of(const LayerPlan& p, const Prepared& z) const;
  Quantization activation(ValueId v);
  DType type_of(ValueId v) const;
  Quantization range_of(ValueId v) const;
  void write_static(const LayerPlan& p, Prepared& z);
  void write_dynamic(const LayerPlan& p, Prepared& z);
  ValueId by_channel(const Layer& layer, const std::vector<float>& values);
  ValueId integer_product(const LayerPlan& p, const Prepared& z, ValueId x, ValueId zero);
  void write_storage(const LayerPlan& p, Prepared& z);
  void write_embedding(const EmbeddingPlan& e);
  /// A table that a layer reads too: its codes once, a row's scale looked up beside the row.
  struct Tied {
    ValueId codes = kNone;
    std::vector<float> scales;
    std::vector<double> factors;
  };
  void find_tied();
  void restore_transpose(const LayerPlan& p);
  Tied* share_table(const LayerPlan& p, const Prepared& z);
  ValueId transposed(ValueId codes) { return edit_.add({.op = "Transpose", .attributes = {{"perm", std::vector<int64_t>{1, 0}, {}}}}, {codes}); }
  ValueId layer_weights(const LayerPlan& p, const Prepared& z);
  ValueId tied_rows(const Node& n, const Tied& t);
  void write_stored(const StoredWeights& s);
  ValueId decoded_apart(ValueId value);
  void write_captured(ValueId value, const Layer& layer);
  ValueId recurrent_codes(const Tensor& w, const std::string& label);
  /// A value to quantize: what makes it (the operator before an absorbed activation), and the integer operators that read it.
  struct Activation {
    ValueId value = kNone;
    NodeId maker = kNone;
    bool made_integer = false, absorb = false;
    std::vector<Use> readers;
  };
  void find_activations();
  void add_activation(ValueId v);
  void write_activations();
  void replace(ValueId from, ValueId to);
  void write_activation(const Activation& a);
  void quantize_constants(const Node& n);
  LayerReport& report(const LayerPlan& p) { return plan_.reports[p.report]; }

  GraphEdit& edit_;
  const Graph& graph_;
  Int8Plan& plan_;
  PassContext& context_;
  const Options& options_;
  QdqWriter qdq_;
  bool clips_;  ///< an unsigned code with zero point 0 stands for a Relu
  std::map<ValueId, Quantization> activations_;
  std::map<ValueId, DType> types_;  ///< of their codes
  std::map<size_t, Tied> tied_;  ///< by the layer's report, which is its own
  std::map<std::pair<ValueId, int64_t>, ValueId> stored_;  ///< tied weights, by value and axis
  std::map<std::pair<ValueId, int64_t>, ValueId> products_;  ///< of products with ranges at run time, not equalized
  struct Dynamic { ValueId codes, scale, zero; };
  std::map<std::pair<ValueId, bool>, Dynamic> dynamic_;  ///< by value, and whether its channels are equalized first
  std::vector<Activation> todo_;
};

std::vector<float> Writer::weights_of(const LayerPlan& p, const std::vector<double>& factors) const {
  std::vector<float> weights = read_weights(p.layer, *graph_.constant(p.layer.weights));
  for (size_t from = 0; from < weights.size() && !factors.empty(); from += factors.size())
    for (size_t i = 0; i < factors.size(); ++i) weights[from + i] = static_cast<float>(static_cast<double>(weights[from + i]) * factors[i]);
  return weights;
}

/// Codes, scales and shift of one layer, from the graph as it was: layers are prepared side by side.
Writer::Prepared Writer::prepare(const LayerPlan& p) {
  Prepared z;
  if (p.form == LayerForm::Int8Dynamic && !p.layer.convolution)
    if (const auto it = plan_.equalize.find(graph_.node(p.layer.node).input(0)); it != plan_.equalize.end()) z.factors = it->second;
  const std::vector<float> weights = weights_of(p, z.factors);
  const LayerInputs inputs = inputs_of(graph_, plan_, p.layer, z.factors);
  try {
    z.q = quantize_weights(p.layer, weights, options_.flag("per_channel") && context_.profile.weights_per_channel, inputs.shares);
  } catch (const Error& e) {
    throw e.within(graph_.label(p.layer.node));
  }
  if (plan_.corrects_biases && !inputs.means.empty()) z.shift = output_shift(p.layer, weights, z.q, inputs);
  report(p).weight_sqnr_db = sqnr_db(z.q.signal, z.q.noise);
  return z;
}

/// The layer's bias, less what its codes add on average.
LayerBias Writer::bias_of(const LayerPlan& p, const Prepared& z) const {
  LayerBias bias = find_bias(graph_, p.layer);
  for (size_t c = 0; c < z.shift.size(); ++c) bias.values[c] -= z.shift[c];
  return bias;
}

Quantization Writer::range_of(ValueId v) const {
  const auto it = plan_.statistics.find(v);
  if (it == plan_.statistics.end()) throw Error(ErrorKind::Defect, "an activation without statistics is to be quantized", graph_.value(v).name);
  const Profile& profile = context_.profile;
  ObserverOptions o;
  o.percentile = context_.percentile;
  o.symmetric = profile.activations_symmetric;
  Range range = find_observer(context_.method).range(it->second, o);
  // Below here HardSwish gives nothing: the codes are better spent above.
  const Node* next = graph_.sole_consumer(v);
  if (next && next->is("HardSwish")) range.low = std::max(range.low, -3.0);
  const DType type = type_of(v);
  const bool is_signed = type == DType::I8 || type == DType::I16;
  return quantization_of(range, is_signed, is_signed && profile.activations_symmetric, static_cast<int>(bits_of(type)));
}

/// Of its codes; what only moves elements has its input's.
DType Writer::type_of(ValueId v) const {
  const Node* p = graph_.producer(v);
  if (p && only_moves(*p) && plan_.regions.is_integer(p->id)) return type_of(p->input(0));
  const auto it = plan_.wide.find(v);
  return it == plan_.wide.end() ? qdq_.narrow() : it->second;
}

/// An activation's scale; what only moves elements has its input's.
Quantization Writer::activation(ValueId v) {
  const auto it = activations_.find(v);
  if (it != activations_.end()) return it->second;
  const Node* p = graph_.producer(v);
  const Quantization q = p && only_moves(*p) && plan_.regions.is_integer(p->id) ? activation(p->input(0)) : range_of(v);
  return activations_[v] = q;
}

void Writer::write_static(const LayerPlan& p, Prepared& z) {
  const Node& n = graph_.node(p.layer.node);
  const float input_scale = activation(n.input(0)).scale;
  LayerBias bias = bias_of(p, z);
  const bool had = bias.node != kNone && graph_.node(bias.node).input(bias.input) != kNone;
  if (had || (bias.node != kNone && !z.shift.empty())) {
    if (const int64_t widened = fit_bias(p.layer, [&] { return weights_of(p, z.factors); }, bias.values, input_scale, z.q))
      edit_.note(graph_.label(n.id) + ": " + std::to_string(widened) + " channels have a wider weight scale, so that their bias fits int32");
    set_bias(edit_, bias, qdq_.bias(bias.values, input_scale, z.q.scales));
  }
  edit_.set_input(n.id, 1, layer_weights(p, z));
}

/// A constant with one number for each output channel, in the shape in which it meets the layer's output.
ValueId Writer::by_channel(const Layer& layer, const std::vector<float>& values) {
  if (!layer.convolution) return qdq_.vector(values);
  Shape shape(graph_.constant(layer.weights)->shape().size() - 1, 1);  // the axis of samples is left out
  shape[0] = layer.out;
  return edit_.add_constant(Tensor::vector(values).reshaped(shape));
}

/// The sums of products of codes, in int32.
ValueId Writer::integer_product(const LayerPlan& p, const Prepared& z, ValueId x, ValueId zero) {
  const Node n = graph_.node(p.layer.node);
  ValueId codes = kNone;
  ValueId& shared = z.factors.empty() ? products_.emplace(std::pair{p.layer.weights, p.layer.out_axis}, kNone).first->second : codes;
  if (p.layer.convolution) {
    // Unsigned, about 128: ONNX Runtime (1.32) puts weights first in the product, and has no fast kernel where those are signed.
    if (shared == kNone) {
      const Tensor stored = write_weights(p.layer, graph_.constant(p.layer.weights)->shape(), z.q.codes);
      Tensor unsigned_codes(DType::U8, stored.shape());
      for (int64_t i = 0; i < stored.size(); ++i) unsigned_codes.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(stored.data<int8_t>()[i] + 128);
      shared = edit_.add_constant(std::move(unsigned_codes));
    }
    return edit_.add({.op = "ConvInteger", .attributes = n.attributes}, {x, shared, zero, edit_.add_constant(Tensor::scalar<uint8_t>(128))});
  }
  // W[out][in] to the (K, N) of MatMulInteger, whatever the order in the file.
  Layer layer = p.layer;
  layer.out_axis = 1;
  if (shared == kNone) {
    const Tied* tied = share_table(p, z);
    shared = tied ? transposed(tied->codes) : edit_.add_constant(write_weights(layer, {layer.in, layer.out}, z.q.codes));
  }
  return edit_.add({.op = "MatMulInteger"}, {x, shared, zero});
}

void Writer::write_dynamic(const LayerPlan& p, Prepared& z) {
  const Node n = graph_.node(p.layer.node);
  const ValueId x = n.input(0);
  const std::vector<double>& factors = z.factors;
  auto [it, fresh] = dynamic_.emplace(std::pair{x, !factors.empty()}, Dynamic{});
  if (fresh) {
    ValueId source = x;
    if (!factors.empty()) {
      std::vector<float> inverse;
      for (double f : factors) inverse.push_back(static_cast<float>(1 / f));
      source = edit_.add({.op = "Mul"}, {x, qdq_.vector(inverse)});
    }
    it->second = {edit_.add_value(), edit_.add_value(), edit_.add_value()};
    edit_.add_node({.op = "DynamicQuantizeLinear"}, {source}, {it->second.codes, it->second.scale, it->second.zero});
  }
  const ValueId sums = integer_product(p, z, it->second.codes, it->second.zero);
  const ValueId wide = edit_.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(DType::F32), {}}}}, {sums});
  const ValueId weight_scale = z.q.scales.size() == 1 ? qdq_.scalar(z.q.scales[0]) : by_channel(p.layer, z.q.scales);
  const ValueId scale = edit_.add({.op = "Mul"}, {it->second.scale, weight_scale});
  ValueId y = edit_.add({.op = "Mul"}, {wide, scale});
  const LayerBias bias = bias_of(p, z);
  if (n.is("MatMul")) {
    if (!z.shift.empty()) write_bias(edit_, p.layer, bias, bias.values);
  } else if (bias.node == kNone) {  // a bias for each row: added as it is
    y = edit_.add({.op = "Add"}, {y, n.input(2)});
  } else if (n.input(2) != kNone || !z.shift.empty()) {
    y = edit_.add({.op = "Add"}, {y, by_channel(p.layer, {bias.values.begin(), bias.values.end()})});
  }
  replace(n.outputs[0], y);
  edit_.remove_node(n.id);
}

void Writer::write_storage(const LayerPlan& p, Prepared& z) {
  const Node& n = graph_.node(p.layer.node);
  const LayerBias bias = bias_of(p, z);
  if (!z.shift.empty()) write_bias(edit_, p.layer, bias, bias.values);
  auto [it, fresh] = stored_.emplace(std::pair{p.layer.weights, p.layer.out_axis}, kNone);
  if (fresh) it->second = layer_weights(p, z);
  edit_.set_input(n.id, 1, it->second);
}

/// Layers whose codes a table shares. A target that wants its weights as they stand gets two copies where they are transposed.
void Writer::find_tied() {
  if (!options_.flag("per_channel") || !context_.profile.weights_per_channel) return;
  for (const EmbeddingPlan& e : plan_.embeddings) {
    if (!e.tied) continue;
    const LayerPlan& p = plan_.layers[*e.tied];
    if (p.form != LayerForm::Float32 && (p.layer.out_axis == 0 || context_.profile.folds_transposes)) tied_.emplace(p.report, Tied{});
  }
}

/// What the layer's weights were before they were seen as a constant.
void Writer::restore_transpose(const LayerPlan& p) {
  const auto it = plan_.transposed.find(p.layer.weights);
  if (it != plan_.transposed.end()) edit_.set_input(p.layer.node, 1, transposed(it->second));
}

Writer::Tied* Writer::share_table(const LayerPlan& p, const Prepared& z) {
  const auto it = tied_.find(p.report);
  if (it == tied_.end()) return nullptr;
  Layer rows = p.layer;
  rows.out_axis = 0;
  it->second = {edit_.add_constant(write_weights(rows, {rows.out, rows.in}, z.q.codes)), z.q.scales, z.factors};
  return &it->second;
}

/// The layer's int8 weights, dequantized, in the order that it reads.
ValueId Writer::layer_weights(const LayerPlan& p, const Prepared& z) {
  const Tied* tied = share_table(p, z);
  if (!tied) return qdq_.weights(p.layer, graph_.constant(p.layer.weights)->shape(), z.q);
  const auto dequantized = [&](ValueId codes, int64_t axis) { return qdq_.dequantize(codes, qdq_.vector(z.q.scales), edit_.add_constant(Tensor::zeros(DType::I8, {p.layer.out})), axis, true); };
  if (p.layer.out_axis == 0) return dequantized(tied->codes, 0);
  // In storage form all of it is folded; an integer kernel wants DequantizeLinear right before it.
  return p.form == LayerForm::Int8Storage ? transposed(dequantized(tied->codes, 0)) : dequantized(transposed(tied->codes), 1);
}

ValueId Writer::tied_rows(const Node& n, const Tied& t) {
  const ValueId rows = edit_.add({.op = "Gather", .name = n.name, .attributes = n.attributes}, {t.codes, n.input(1)});
  const ValueId column = edit_.add_constant(Tensor::vector(t.scales).reshaped({static_cast<int64_t>(t.scales.size()), 1}));
  const ValueId scale = edit_.add({.op = "Gather", .attributes = n.attributes}, {column, n.input(1)});
  const ValueId wide = edit_.add({.op = "Cast", .attributes = {{"to", static_cast<int64_t>(DType::F32), {}}}}, {rows});
  const ValueId y = edit_.add({.op = "Mul"}, {wide, scale});
  if (t.factors.empty()) return y;
  std::vector<float> inverse;
  for (double f : t.factors) inverse.push_back(static_cast<float>(1 / f));
  return edit_.add({.op = "Mul"}, {y, qdq_.vector(inverse)});
}

void Writer::write_embedding(const EmbeddingPlan& e) {
  const Node& n = graph_.node(e.gather);
  if (e.tied) {
    const LayerPlan& p = plan_.layers[*e.tied];
    if (p.form == LayerForm::Float32 && (p.layer.weights == e.table || plan_.transposed.contains(p.layer.weights))) {
      edit_.note(graph_.label(n.id) + ": its table stays in float, as " + report(p).node + " reads it");
      return;
    }
    if (const auto it = tied_.find(p.report); it != tied_.end() && it->second.codes != kNone) {
      edit_.note(graph_.label(n.id) + ": its table shares the int8 weights of " + report(p).node);
      const ValueId y = tied_rows(n, it->second);
      replace(n.outputs[0], y);
      edit_.remove_node(e.gather);
      return;
    }
  }
  const Tensor& table = *graph_.constant(e.table);
  Layer layer;  // columns as output channels
  layer.out = table.dim(1), layer.in = table.dim(0), layer.out_axis = 1;
  auto [it, fresh] = stored_.emplace(std::pair{e.table, int64_t{-1}}, kNone);
  const QuantizedWeights q = quantize_weights(layer, read_weights(layer, table), true);
  if (fresh) it->second = edit_.add_constant(write_weights(layer, table.shape(), q.codes));
  const ValueId old = n.outputs[0];
  const ValueId rows = edit_.add({.op = "Gather", .name = n.name, .attributes = n.attributes}, {it->second, n.input(1)});
  const ValueId y = qdq_.dequantize(rows, qdq_.vector(q.scales), edit_.add_constant(Tensor::zeros(DType::I8, {layer.out})), -1, true);
  edit_.note(graph_.label(n.id) + ": table of " + to_string(table.shape()) + " as int8, " + (q.noise > 0 ? std::to_string(static_cast<int>(10 * std::log10(q.signal / q.noise))) + " dB" : "exact"));
  replace(old, y);
  edit_.remove_node(e.gather);
}

void Writer::write_stored(const StoredWeights& s) {
  const Tensor& w = *graph_.constant(graph_.node(s.node).input(s.input));
  edit_.note(graph_.label(s.node) + ": weights of " + to_string(w.shape()) + " kept as int8");
  edit_.set_input(s.node, s.input, recurrent_codes(w, graph_.label(s.node)));
}

/// Weights of LSTM, GRU or RNN, decoded from int8.
ValueId Writer::recurrent_codes(const Tensor& w, const std::string& label) {
  Layer layer;  // (directions, rows, columns): a scale for each row, the same in all directions
  layer.out = w.dim(1), layer.in = w.dim(2), layer.out_axis = 0;
  const auto values = to_vector<float>(w);
  std::vector<float> scales(static_cast<size_t>(layer.out), 0);
  const auto columns = static_cast<size_t>(layer.in);
  auto row = [&](size_t i) { return i / columns % scales.size(); };
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) throw Error(ErrorKind::Malformed, "its weights have a NaN or an infinity", label);
    scales[row(i)] = std::max(scales[row(i)], std::fabs(values[i]) / 127.0f);
  }
  for (float& f : scales) f = f > 0 ? f : 1.0f;
  Tensor codes(DType::I8, w.shape());
  for (size_t i = 0; i < values.size(); ++i) codes.mutable_data<int8_t>()[i] = static_cast<int8_t>(std::clamp(std::nearbyint(static_cast<double>(values[i]) / static_cast<double>(scales[row(i)])), -127.0, 127.0));
  const ValueId zero = edit_.add_constant(Tensor::zeros(DType::I8, {layer.out}));
  return qdq_.dequantize(edit_.add_constant(std::move(codes)), qdq_.vector(scales), zero, 1, true);
}

/// Whoever still reads the float weights, bodies among them, reads int8 codes: those of a layer that multiplies by them too, where there is one.
void Writer::write_captured(ValueId value, const Layer& layer) {
  if (graph_.value(value).uses.empty() || graph_.is_output(value)) return;
  for (const LayerPlan& p : plan_.layers)
    if (p.form == LayerForm::Float32 && p.layer.weights == value) return;
  const int64_t axis = layer.out_axis;
  ValueId stored = kNone;
  if (const auto it = stored_.find({value, axis}); it != stored_.end()) stored = it->second;
  if (stored == kNone) stored = decoded_apart(value);
  if (stored == kNone) {
    const Tensor& w = *graph_.constant(value);
    const QuantizedWeights q = quantize_weights(layer, read_weights(layer, w), options_.flag("per_channel") && context_.profile.weights_per_channel);
    const auto product = axis == 1 ? products_.find({value, axis}) : products_.end();
    stored = is_recurrent(layer) ? recurrent_codes(w, graph_.value(value).name) : product == products_.end() ? qdq_.weights(layer, w.shape(), q) : qdq_.weights(layer, product->second, q);
    edit_.note(graph_.value(value).name + ": weights of " + to_string(w.shape()) + " that a body reads kept as int8");
  }
  edit_.replace_uses(value, stored);
}

/// A DequantizeLinear of its own for the codes that a layer has of the value; kNone where none has. Engines want the layer's for the layer alone.
ValueId Writer::decoded_apart(ValueId value) {
  for (const LayerPlan& p : plan_.layers) {
    if (p.layer.weights != value || !graph_.alive(p.layer.node)) continue;
    const Node* d = graph_.producer(graph_.node(p.layer.node).input(1));
    const Tensor* codes = d && d->is("DequantizeLinear") ? graph_.constant(d->input(0)) : nullptr;
    if (!codes || codes->shape() != graph_.constant(value)->shape()) continue;
    edit_.note(graph_.value(value).name + ": the codes of a layer's weights serve a body, too");
    return edit_.add({.op = "DequantizeLinear", .attributes = d->attributes}, d->inputs);
  }
  return kNone;
}

void Writer::quantize_constants(const Node& n) {
  if (!n.is("Add") && !n.is("Mul") && !n.is("Concat")) return;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    const Tensor* c = graph_.constant(n.input(i));
    if (c && c->dtype() == DType::F32) edit_.set_input(n.id, i, qdq_.constant(*c, context_.profile.activations_symmetric));
  }
}

/// Quantizes a value that integer operators read, or that one made.
void Writer::write_activation(const Activation& a) {
  const ValueId source = a.absorb ? graph_.node(a.maker).outputs[0] : a.value;
  const NodeId activation_node = graph_.value(a.value).producer;
  const ValueId d = qdq_.round_trip(source, activation(a.value), types_.at(a.value));
  if (!a.made_integer) {
    for (const Use& u : a.readers) edit_.set_input(u.node, static_cast<size_t>(u.index), d);
    return;
  }
  plan_.became[a.value] = d;
  const NodeId quantize = graph_.value(graph_.producer(d)->inputs[0]).producer;
  edit_.replace_uses_except(a.value, d, quantize);
  if (a.absorb) edit_.remove_node(activation_node);
}

void Writer::add_activation(ValueId v) {
  if (std::any_of(todo_.begin(), todo_.end(), [&](const Activation& a) { return a.value == v; })) return;
  Activation a;
  a.value = v;
  if (const Node* p = graph_.producer(v)) {
    const Node* before = graph_.producer(p->input(0));
    const bool follows = before && plan_.regions.is_integer(before->id) && absorbed_activation(graph_, *before) == p;
    a.maker = follows ? before->id : p->id;
    a.made_integer = plan_.regions.is_integer(a.maker);
    a.absorb = follows && clips_;
  }
  for (const Use& u : graph_.value(v).uses) {
    if (u.index < 0 || !plan_.regions.is_integer(u.node)) continue;
    const auto inputs = data_inputs(graph_, graph_.node(u.node), plan_.seen);
    const bool first_only = only_moves(graph_.node(u.node)) || layer_of(graph_, u.node) || graph_.node(u.node).is("Resize");
    if ((u.index == 0 || !first_only) && std::find(inputs.begin(), inputs.end(), v) != inputs.end()) a.readers.push_back(u);
  }
  todo_.push_back(std::move(a));
}

/// In the graph's order, and all before anything changes.
void Writer::find_activations() {
  for (NodeId id : graph_.order()) {
    const Node& n = graph_.node(id);
    if (!plan_.regions.is_integer(id)) continue;
    for (ValueId v : data_inputs(graph_, n, plan_.seen)) add_activation(v);
    if (keeps_float_output(graph_, plan_.regions, n, plan_.seen)) continue;
    const Node* next = absorbed_activation(graph_, n);
    add_activation(next ? next->outputs[0] : n.outputs[0]);
  }
  for (const Activation& a : todo_) activation(a.value), types_[a.value] = type_of(a.value);
}

/// What was to be quantized is made by another node now.
void Writer::replace(ValueId from, ValueId to) {
  plan_.became[from] = to;
  if (const auto it = activations_.find(from); it != activations_.end()) activations_.emplace(to, it->second);
  if (const auto it = types_.find(from); it != types_.end()) types_.emplace(to, it->second);
  for (Activation& a : todo_)
    if (a.value == from) a.value = to;
  edit_.replace_uses(from, to);
}

void Writer::write_activations() {
  const std::vector<NodeId> order = graph_.order();
  for (NodeId id : order)
    if (plan_.regions.is_integer(id)) quantize_constants(graph_.node(id));
  for (const Activation& a : todo_) write_activation(a);
}

}  // namespace

void write_int8(GraphEdit& edit, Int8Plan& plan, PassContext& context, const Options& options) { Writer(edit, plan, context, options).write(); }

}  // namespace infopt
