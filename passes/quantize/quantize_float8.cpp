// Before: a float graph. After: Conv, Gemm and MatMul with constant weights read 8-bit floats behind QuantizeLinear/DequantizeLinear: weights with a
// scale for each output channel, activations with one for the tensor, from calibration. Everything between stays in float.
//
// The formats are those of the OCP 8-bit Floating Point Specification 1.0. A scale makes the largest magnitude the format's largest value; relative
// precision is the same over most of the range, so that outliers cost little. What is lost is lost by rounding: weights are rounded by GPTQ
// (passes/support/gptq.h) on the grid of such floats, and layers that add most noise go back to float where the outputs have too much.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "calibration/calibration.h"
#include "calibration/observer.h"
#include "lib/base/error.h"
#include "lib/base/float8.h"
#include "lib/base/memory.h"
#include "passes/pass.h"
#include "passes/support/groups.h"
#include "passes/support/input_moments.h"
#include "passes/support/layer_bias.h"
#include "passes/support/layers.h"
#include "passes/support/measure_layers.h"
#include "passes/support/noise_alone.h"
#include "passes/support/output_judge.h"
#include "passes/support/recurrent_weights.h"
#include "passes/support/round_weights.h"
#include "passes/support/signal_to_noise.h"
#include "passes/support/tied.h"
#include "passes/support/weight_tables.h"

namespace infopt {
namespace {

constexpr int kMostRounds = 3;
constexpr double kClearly = 1;   // dB by which outputs must be better without corrected biases
constexpr double kMargin = 0.2;  // dB, for what rounding the weights anew moves the outputs by
constexpr int64_t kFewestJudges = 4, kMostAsked = 8;  // samples: that judge the whole, and what each input costs

struct CodedFloats {
  std::vector<int8_t> codes;  ///< the bits, W[out][in][tap]
  std::vector<float> scales;
  std::vector<float> shift = {};  ///< see CodedWeights
  std::optional<double> sqnr_db;
};

float rounded(float value, DType type) { return to_scalar<float>(cast(Tensor::scalar(value), type)); }

/// largest / the format's largest value, as `type` can hold it; 1 where all is zero.
float scale_of(double largest, DType format, DType type) {
  if (!(largest > 0)) return 1;
  const double most = format == DType::F8E4M3FN ? 448.0 : 57344.0;
  const float least = type == DType::F16 ? 0x1p-14f : 0x1p-126f;  // the type's least normal number
  return std::max(rounded(static_cast<float>(largest / most), type), least);
}

CodedFloats encode(const Layer& layer, const std::vector<float>& weights, bool per_channel, DType format, DType type) {
  CodedFloats out;
  const size_t each = per_channel ? weights.size() / static_cast<size_t>(layer.out) : weights.size();
  double signal = 0, noise = 0;
  for (size_t from = 0; from < weights.size(); from += each) {
    double largest = 0;
    for (size_t i = from; i < from + each; ++i) {
      if (!std::isfinite(weights[i])) throw Error(ErrorKind::Malformed, "its weights have a NaN or an infinity");
      largest = std::max(largest, std::fabs(static_cast<double>(weights[i])));
    }
    const float scale = scale_of(largest, format, type);
    out.scales.push_back(scale);
    for (size_t i = from; i < from + each; ++i) {
      const uint8_t code = encode_small_float(format, weights[i] / scale);
      const double w = static_cast<double>(weights[i]), d = static_cast<double>(decode_small_float(format, code) * scale) - w;
      out.codes.push_back(static_cast<int8_t>(code));
      signal += w * w;
      noise += d * d;
    }
  }
  out.sqnr_db = sqnr_db(signal, noise);
  return out;
}

/// Activations through float8 and back, once for all readers of a value.
class ActivationTrips {
 public:
  ActivationTrips(GraphEdit& edit, DType format, const std::map<ValueId, double>& largest) : edit_(edit), format_(format), largest_(largest) {}

  void insert(const LayerPlan& l) {
    const Graph& graph = edit_.graph();
    const ValueId x = graph.node(l.layer.node).input(0);
    auto [it, fresh] = trips_.emplace(x, kNone);
    if (fresh) {
      const DType type = graph.constant(l.layer.weights)->dtype();
      const ValueId scale = edit_.add_constant(cast(Tensor::scalar(scale_of(largest_.at(x), format_, type)), type));
      const ValueId codes = edit_.add({.op = "QuantizeLinear"}, {x, scale, zero(-1)});
      it->second = edit_.add({.op = "DequantizeLinear"}, {codes, scale, zero(-1)});
    }
    edit_.set_input(l.layer.node, 0, it->second);
  }

  /// Once all are in. ONNX Runtime (1.32) takes a Relu before QuantizeLinear for one that the codes' range makes needless, as if the zero
  /// point were an integer, and fails at a Clip there. As Max and Min they are left alone.
  void shield() {
    for (const auto& [x, trip] : trips_) {
      const Node* p = edit_.graph().producer(x);
      if (!p || !edit_.graph().sole_consumer(x) || (!p->is("Relu") && !p->is("Clip"))) continue;
      const NodeId node = p->id;
      const ValueId v = p->input(0), low = p->is("Clip") ? p->input(1) : edit_.add_constant(cast(Tensor::scalar(0.0f), edit_.graph().constant(edit_.graph().producer(edit_.graph().producer(trip)->input(0))->input(1))->dtype())),
                    high = p->is("Clip") ? p->input(2) : kNone;
      if (low == kNone && high == kNone) continue;
      const ValueId above = low == kNone || high == kNone ? v : edit_.add({.op = "Max"}, {v, low}, node);
      edit_.set_op(node, high == kNone ? "Max" : "Min");
      edit_.set_inputs(node, {above, high == kNone ? low : high});
    }
  }

  /// A vector of zeros, or a scalar for −1.
  ValueId zero(int64_t count) {
    auto [it, fresh] = zeros_.emplace(count, kNone);
    if (fresh) it->second = edit_.add_constant(Tensor::zeros(format_, count < 0 ? Shape{} : Shape{count}));
    return it->second;
  }

 private:
  GraphEdit& edit_;
  const DType format_;
  const std::map<ValueId, double>& largest_;
  std::map<ValueId, ValueId> trips_;
  std::map<int64_t, ValueId> zeros_;
};

class Float8Pass {
 public:
  Float8Pass(GraphEdit& edit, PassContext& context, const Options& options)
      : edit_(edit), graph_(edit.graph()), context_(context), options_(options), format_(options.text("type") == "float8e4m3fn" ? DType::F8E4M3FN : DType::F8E5M2),
        static_(options.text("activations") == "static"), gptq_(context.calibration && options.text("rounding") == "gptq") {}

  void run() {
    const auto transposed = transpose_constants(edit_);
    if (context_.calibration) seen_ = context_.calibration->observe(graph_);
    plan();
    if (static_) collect();
    if (context_.calibration) {
      judging_ = judging_samples(graph_, seen_, kFewestJudges);
      if (gptq_) held_ = held_for_judging(judging_, context_.calibration->data().size());
      judge_.emplace(graph_, *context_.calibration, context_.threads, judging_, held_);
    }
    store_recurrent();
    const std::shared_ptr<Graph> original = graph_.clone();
    choose(*original);
    if (static_ && !context_.calibration->obstacles().empty())
      context_.report.warnings.push_back(listed(context_.calibration->obstacles()) + "; of layers that lie behind, the weights alone become float8");
    write_tables();
    std::vector<Layer> stored;
    for (const LayerPlan& l : layers_) stored.push_back(l.layer);
    share_with_bodies(edit_, stored);
    restore_transposes(edit_, transposed);
    for (LayerReport& r : reports_) context_.report.layers.push_back(std::move(r));
  }

 private:
  /// Before the others, with half of the noise that the outputs may have; where float8 adds more, as int8.
  void store_recurrent() {
    RecurrentOptions o{.formats = {{format_}, {.dtype = DType::I8}}, .min_sqnr_db = options_.number("min_sqnr_db") + 3, .min_weights = options_.integer("min_weights"), .gptq = gptq_};
    store_recurrent_weights(edit_, context_, o);
  }

  /// Rows are looked up as int8 with a scale each: ONNX's Gather takes no float8.
  void write_tables() {
    if (options_.text("embeddings") != "int8") return;
    WeightsOptions tables;
    tables.min_weights = options_.integer("min_weights");
    TablesWriter writer(edit_);
    for (const TablePlan& t : plan_tables(graph_, context_, tables)) writer.write_lookup(t, GridFit::LeastSquares);
  }

  void plan() {
    const std::vector<const GroupRule*> groups = assign_groups(graph_, context_.groups);
    for (NodeId id : graph_.order()) {
      const Node& n = graph_.node(id);
      const auto layer = layer_of(graph_, id);
      auto r = product_report(graph_, n, layer, seen_);
      if (!r) continue;
      if (layer) judge(n, *layer, groups[static_cast<size_t>(id)], *r);
      reports_.push_back(std::move(*r));
    }
  }

  bool computed(const Layer& layer) const {
    const ValueId x = graph_.node(layer.node).input(0);
    return !seen_.empty() && seen_[static_cast<size_t>(x)].dtype != DType::Undefined;
  }

  /// Fills in form and reason, and adds the layer where it is quantized.
  void judge(const Node&, const Layer& layer, const GroupRule* rule, LayerReport& r) {
    const std::string wish = rule ? rule->weights : "", activations = rule ? rule->activations : "";
    if (r.weight_elements < options_.integer("min_weights")) {
      r.reason = "too few weights to gain from it";
    } else if ((!wish.empty() && wish != "float8") || (rule && rule->form == "float")) {
      r.reason = "group " + rule->name + " keeps its weights in " + (wish.empty() ? "float" : wish);
    } else {
      const bool free = activations.empty() || activations == "float8";
      r.form = static_ && free && computed(layer) ? LayerForm::Float8 : LayerForm::WeightOnly;
      r.weights = std::string(name_of(format_)) + (scale_per_channel(layer) ? ", per channel" : ", one scale");
      r.reason = wish.empty() ? "asked for" : "group " + rule->name;
      if (static_ && !free) r.reason += "; group " + rule->name + " keeps its activations in " + activations;
      else if (static_ && !computed(layer)) r.reason += "; its input can't be calibrated: it lies behind what infopt can't run";
      layers_.push_back({layer, r.form, reports_.size()});
    }
  }

  /// A transposed convolution in groups stores channels of all groups on one axis, where no vector of scales can tell them apart.
  bool scale_per_channel(const Layer& l) const { return options_.flag("per_channel") && !(l.transposed && l.groups > 1); }

  void collect() {
    std::map<ValueId, int64_t> wanted;
    for (const LayerPlan& l : layers_)
      if (l.form == LayerForm::Float8) wanted.emplace(graph_.node(l.layer.node).input(0), l.layer.input_axis);
    std::vector<CollectRequest> requests;
    for (const auto& [value, axis] : wanted) requests.push_back({value, axis});
    const StatisticsSet& statistics = context_.calibration->collect(graph_, requests);
    ObserverOptions o;
    o.percentile = context_.percentile;
    o.symmetric = true;
    for (const auto& [value, axis] : wanted) {
      const Range range = find_observer(context_.method).range(statistics.tensors.at(value), o);
      largest_[value] = std::max(std::fabs(range.low), std::fabs(range.high));
    }
  }

  /// All layers' codes: by GPTQ where that is asked for and their inputs can be seen, else the nearest.
  void round(const Graph& original) {
    coded_.assign(layers_.size(), {});
    std::vector<WeightsPlan> plans;
    std::vector<size_t> places;
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].form == LayerForm::Float32) continue;
      const Layer& l = layers_[i].layer;
      const Tensor& weights = *graph_.constant(l.weights);
      if (gptq_ && computed(l) && InputMoments::possible(l) && weights.dtype() == DType::F32) {
        plans.push_back({l, {format_, scale_per_channel(l) ? 0 : -1, true}, layers_[i].report, true});
        places.push_back(i);
        continue;
      }
      try {
        coded_[i] = encode(l, read_weights(l, weights), scale_per_channel(l), format_, weights.dtype());
      } catch (const Error& e) {
        throw e.within(reports_[layers_[i].report].node);
      }
    }
    if (plans.empty()) return;
    WeightsOptions options;
    options.gptq = true;
    options.fits_outputs = false;  // with so fine a grid it learns the samples by heart
    options.biases = biases_;
    options.hold_out = held_;
    round_weights(
        original, plans, options, context_,
        [&](size_t index, const CodedWeights& codes, const std::vector<float>& weights) { coded_[places[index]] = coded(codes, weights, reports_[plans[index].report]); },
        [&](GraphEdit& copy) {
          ActivationTrips trips(copy, format_, largest_);
          for (const LayerPlan& l : layers_)
            if (l.form == LayerForm::Float8) trips.insert(l);
        });
    trim_memory();
  }

  static CodedFloats coded(const CodedWeights& codes, const std::vector<float>& weights, LayerReport& report) {
    CodedFloats out{{codes.codes.begin(), codes.codes.end()}, codes.grid.scales, codes.shift, {}};
    out.sqnr_db = sqnr_db(weights, decode(codes));
    report.algorithm = "gptq";
    return out;
  }

  /// Rounds and writes all layers. Where the outputs have less than min_sqnr_db, first those activations stay in float that cost the outputs most,
  /// the weights keeping their codes; then the noisiest layers go back to float, weights and all.
  void choose(const Graph& original) {
    const EditLog log = edit_.log();
    const double enough = options_.number("min_sqnr_db");
    const double share = options_.number("max_fallback");
    int64_t left = share > 0 ? static_cast<int64_t>(std::ceil(share * static_cast<double>(layers_.size()))) : 0;  // of a few layers one at least
    auto measure = [&] { return context_.calibration ? judge_->decibels(graph_) : std::nullopt; };
    auto start_over = [&] {
      edit_.restore(original);
      edit_.log() = log;
    };
    std::optional<double> db;
    auto write_all = [&] {
      round(original);
      write();
      edit_.finish();
      db = measure();
      return !db || *db >= enough;
    };
    bool done = write_all();
    if (!done && static_) {
      const double before = *db;
      asked_ = reports_;
      const std::vector<std::vector<size_t>> order = costliest_inputs(original);
      auto enough_with = [&](size_t count) {  // the codes of weights hardly hang on it: they stay while this is searched
        start_over();
        store(order, count, before);
        write();
        edit_.finish();
        return measure().value_or(enough) >= enough + kMargin;
      };
      size_t fewest = order.empty() ? 0 : 1, most = order.size();
      while (fewest < most) {
        const size_t middle = (fewest + most) / 2;
        if (enough_with(middle)) most = middle;
        else fewest = middle + 1;
      }
      for (int attempt = 0; !done && most > 0 && attempt < kMostRounds && fewest <= most; ++attempt, fewest += std::max<size_t>(1, most / 8)) {
        start_over();
        store(order, fewest, before);
        done = write_all();
        most = order.size();
      }
    }
    if (!done && gptq_) {  // means say little of samples of another scale
      const double with = *db;
      biases_ = false;
      start_over();
      done = write_all();
      if (!done && *db < with + kClearly) {
        biases_ = true;
        start_over();
        done = write_all();
      }
    }
    for (int attempt = 0; !done; ++attempt) {
      std::vector<size_t> quantized;
      for (size_t i = 0; i < layers_.size(); ++i)
        if (layers_[i].form != LayerForm::Float32) quantized.push_back(i);
      if (attempt == kMostRounds || left == 0 || quantized.empty()) {
        context_.report.warnings.push_back("float8 leaves the outputs " + std::to_string(static_cast<int>(std::lround(*db))) + " dB, below quantize_float8.min_sqnr_db");
        break;
      }
      std::vector<size_t> chosen = dearest(measure_layers(original, graph_, layers_, {}, *context_.calibration), std::move(quantized), std::pow(10.0, (*db - enough) / 10));
      chosen.resize(std::min(chosen.size(), static_cast<size_t>(left)));
      left -= static_cast<int64_t>(chosen.size());
      for (size_t i : chosen) widen(layers_[i], *db);
      start_over();
      done = write_all();
    }
    for (size_t i = 0; i < layers_.size(); ++i)
      if (layers_[i].form != LayerForm::Float32) reports_[layers_[i].report].weight_sqnr_db = coded_[i].sqnr_db;
    if (context_.measure_layers && context_.calibration) {
      const LayerNoise noise = measure_layers(original, graph_, layers_, {}, *context_.calibration, true);
      for (size_t i = 0; i < layers_.size(); ++i) {
        reports_[layers_[i].report].accumulated_sqnr_db = noise.layer_db[i];
        reports_[layers_[i].report].local_sqnr_db = noise.local_db[i];
      }
    }
  }

  /// Of the candidates those that add most noise for the bytes that they save, until the others add no more than `keep` of all candidates' noise.
  std::vector<size_t> dearest(const LayerNoise& noise, std::vector<size_t> candidates, double keep) const {
    const auto price = [&](size_t i) { return noise.added[i] / static_cast<double>(std::max<int64_t>(1, reports_[layers_[i].report].weight_elements)); };
    std::stable_sort(candidates.begin(), candidates.end(), [&](size_t a, size_t b) { return price(a) > price(b); });
    double total = 0;
    for (size_t i : candidates) total += noise.added[i];
    size_t count = 0;
    for (double left = total; count < candidates.size() && (count == 0 || left > keep * total); ++count) left -= noise.added[candidates[count]];
    candidates.resize(count);
    return candidates;
  }

  /// Layers by the value that they read as codes, those first whose value costs the outputs most for the products that gain by it.
  std::vector<std::vector<size_t>> costliest_inputs(const Graph& original) {
    std::vector<ValueId> values;
    std::map<ValueId, std::vector<size_t>> readers;
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i].form != LayerForm::Float8) continue;
      const ValueId x = original.node(layers_[i].layer.node).input(0);
      if (readers[x].empty()) values.push_back(x);
      readers[x].push_back(i);
    }
    const std::vector<double> noise = noise_alone(
        original, values,
        [&](GraphEdit& copy, ValueId x) {
          ActivationTrips trips(copy, format_, largest_);
          for (size_t i : readers.at(x)) trips.insert(layers_[i]);
        },
        *context_.calibration, std::min(judging_, kMostAsked), context_.threads);
    std::vector<std::pair<double, std::vector<size_t>>> priced;
    for (size_t v = 0; v < noise.size(); ++v) {
      double products = 0;
      for (size_t i : readers.at(values[v])) products += static_cast<double>(std::max<int64_t>(reports_[layers_[i].report].macs, 1));
      priced.emplace_back(noise[v] / products, readers.at(values[v]));
    }
    std::stable_sort(priced.begin(), priced.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<std::vector<size_t>> order;
    for (auto& p : priced) order.push_back(std::move(p.second));
    return order;
  }

  /// Of the first `count` inputs' layers the weights alone have codes.
  void store(const std::vector<std::vector<size_t>>& order, size_t count, double output_db) {
    for (size_t o = 0; o < order.size(); ++o)
      for (size_t i : order[o]) {
        LayerReport& r = reports_[layers_[i].report];
        r = asked_[layers_[i].report];
        r.form = layers_[i].form = o < count ? LayerForm::WeightOnly : LayerForm::Float8;
        if (o < count) r.reason = "its input in float8 was among those that added most noise while the outputs had only " + std::to_string(static_cast<int>(std::lround(output_db))) + " dB";
      }
  }

  void widen(LayerPlan& l, double output_db) {
    LayerReport& r = reports_[l.report];
    r.form = l.form = LayerForm::Float32;
    r.weights = r.algorithm = "";
    r.reason = "in float8 it was among those that added most noise while the outputs had only " + std::to_string(static_cast<int>(std::lround(output_db))) + " dB";
  }

  void write() {
    ActivationTrips trips(edit_, format_, largest_);
    std::map<ValueId, ValueId> written;  // weights that several layers multiply by have the codes of the first
    for (size_t i = 0; i < layers_.size(); ++i) {
      const LayerPlan& l = layers_[i];
      if (l.form == LayerForm::Float32) continue;
      if (l.form == LayerForm::Float8) trips.insert(l);
      if (const auto first = written.find(l.layer.weights); first != written.end()) {
        edit_.set_input(l.layer.node, 1, first->second);
        continue;
      }
      const Tensor old = *graph_.constant(l.layer.weights);
      if (!coded_[i].shift.empty()) shift_bias(edit_, l.layer, coded_[i].shift);
      const Tensor bits = write_weights(l.layer, old.shape(), coded_[i].codes);
      Tensor codes(format_, old.shape());
      std::memcpy(codes.mutable_raw(), bits.raw(), bits.bytes());
      const bool channels = scale_per_channel(l.layer);
      GraphEdit::NewNode node{.op = "DequantizeLinear"};
      if (channels) node.attributes = {{"axis", l.layer.out_axis, {}}};
      const Tensor scales = channels ? Tensor::vector(coded_[i].scales) : Tensor::scalar(coded_[i].scales[0]);
      const ValueId scale = edit_.add_constant(cast(scales, old.dtype()));
      const ValueId decoded = edit_.add(std::move(node), {edit_.add_constant(std::move(codes)), scale, trips.zero(channels ? l.layer.out : -1)});
      written.emplace(l.layer.weights, decoded);
      edit_.set_input(l.layer.node, 1, decoded);
    }
    trips.shield();
  }

  GraphEdit& edit_;
  const Graph& graph_;
  PassContext& context_;
  const Options& options_;
  const DType format_;
  const bool static_, gptq_;
  bool biases_ = true;  ///< take up the mean error of their layer's codes
  std::vector<Observed> seen_;
  std::optional<OutputJudge> judge_;
  int64_t judging_ = 0, held_ = 0;  ///< samples that judge; of these those that the rounding doesn't see
  std::vector<LayerPlan> layers_;
  std::vector<CodedFloats> coded_;  ///< of each layer
  std::vector<LayerReport> reports_, asked_;  ///< asked_: before activations went back to float
  std::map<ValueId, double> largest_;
};

void run(GraphEdit& edit, PassContext& context, const Options& options) {
  if (options.text("activations") == "static" && !context.calibration)
    throw Error(ErrorKind::Usage, "the step quantize_float8 needs calibration data for static activations: give --calib DATA, or set quantize_float8.activations=none");
  Float8Pass(edit, context, options).run();
}

}  // namespace

PassDef pass_quantize_float8() {
  return {
      .name = "quantize_float8",
      .summary = "8-bit floats for weights and activations of convolutions and products",
      .contract = Contract::Lossy,
      .options =
          {
              {.name = "type", .help = "e4m3 has digits, e5m2 range", .otherwise = std::string("float8e4m3fn"), .choices = {"float8e4m3fn", "float8e5m2"}},
              {.name = "activations", .help = "static: a scale for the tensor from calibration; none: weights alone", .otherwise = std::string("static"), .choices = {"static", "none"}},
              {.name = "per_channel", .help = "a scale for each output channel of a weight", .otherwise = true},
              {.name = "rounding", .help = "of weights: gptq with the inputs in view where there is calibration data, or nearest", .otherwise = std::string("gptq"), .choices = {"gptq", "nearest"}},
              {.name = "min_weights", .help = "layers with fewer stay as they are", .otherwise = int64_t{400}, .least = 1},
              {.name = "embeddings", .help = "form of tables that are looked up in: int8 with a scale for each row, or float", .otherwise = std::string("int8"), .choices = {"int8", "float"}},
              {.name = "min_sqnr_db",
               .help = "what the outputs must keep on the first samples; else the activations that add most noise stay in float, and then whole layers",
               .otherwise = 25.0,
               .least = -100,
               .most = 200},
              {.name = "max_fallback", .help = "the share of the layers that may go back to float, weights and all", .otherwise = 0.5, .least = 0, .most = 1},
          },
      .needs_opset = 19,
      .run = run,
  };
}

}  // namespace infopt
