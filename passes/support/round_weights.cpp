#include "passes/support/round_weights.h"

#include <algorithm>
#include <memory>

#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "passes/support/collect_moments.h"
#include "passes/support/gptq.h"
#include "passes/support/layer_bias.h"
#include "passes/support/sparsegpt.h"

namespace infopt {
namespace {

class Rounder {
 public:
  Rounder(const Graph& graph, const std::vector<WeightsPlan>& plan, const WeightsOptions& options, PassContext& context, const TakeCodes& take, const std::function<void(GraphEdit&)>& prepare)
      : graph_(graph), plan_(plan), options_(options), context_(context), take_(take), prepare_(prepare) {}

  void run() {
    std::vector<bool> done(plan_.size(), false);
    if (options_.gptq && options_.sequential) {
      quantized_ = graph_.clone();
      edit_ = std::make_unique<GraphEdit>(*quantized_);
      if (prepare_) prepare_(*edit_);
      edit_->finish();
    }
    if (options_.needs_data()) round_with_data(done);
    for (size_t i = 0; i < plan_.size(); ++i)
      if (!done[i]) round(i, nullptr, false);
  }

 private:
  void round_with_data(std::vector<bool>& done);
  void round(size_t index, const InputMoments* moments, bool biases);
  CodedWeights round_groups(const WeightsPlan& p, const std::vector<float>& weights, const InputMoments& moments, bool biases) const;

  const Graph& graph_;
  const std::vector<WeightsPlan>& plan_;
  const WeightsOptions& options_;
  PassContext& context_;
  const TakeCodes& take_;
  const std::function<void(GraphEdit&)>& prepare_;
  std::shared_ptr<Graph> quantized_;  ///< with the weights that are rounded so far
  std::unique_ptr<GraphEdit> edit_;
};

void Rounder::round_with_data(std::vector<bool>& done) {
  std::vector<Layer> layers;
  std::vector<size_t> places;
  for (size_t i = 0; i < plan_.size(); ++i)
    if (plan_[i].moments) layers.push_back(plan_[i].layer), places.push_back(i);
  std::vector<SharedInput> shared = find_shared_inputs(graph_, layers);
  const PlaceWeights weights = options_.gptq && options_.weighs_places ? PlaceWeights(graph_, layers, context_) : PlaceWeights();
  MomentsRun moments(graph_, quantized_.get(), layers, shared, context_, options_.hold_out, &weights);
  int64_t rounded = 0;
  for (std::span<SharedInput> rest(shared); !rest.empty();) {
    const std::span<SharedInput> now = rest.first(together(rest, edit_ != nullptr));
    moments.collect(now);
    for (SharedInput& s : now) {
      const bool biases = options_.biases && std::all_of(s.layers.begin(), s.layers.end(), [&](size_t l) { return find_bias(graph_, layers[l]).node != kNone; });
      if (biases) s.moments->center();
      for (size_t l : s.layers) {
        round(places[l], s.moments.get(), biases);
        done[places[l]] = true;
        context_.tell(++rounded, static_cast<int64_t>(layers.size()), "layers rounded");
      }
      s.moments.reset();
    }
    if (edit_) edit_->finish();
    rest = rest.subspan(now.size());
  }
}

void Rounder::round(size_t index, const InputMoments* moments, bool biases) {
  const WeightsPlan& p = plan_[index];
  const Tensor& stored = *graph_.constant(p.layer.weights);
  const std::vector<float> weights = read_weights(p.layer, stored);
  try {
    const int64_t k = p.layer.in * p.layer.taps;
    const CodedWeights codes = moments ? round_groups(p, weights, *moments, biases) : round_to_nearest(weights, fit_grid(weights, p.layer.out, k, p.format, options_.fit));
    if (edit_ && !codes.shift.empty()) shift_bias(*edit_, p.layer, codes.shift);
    if (edit_) edit_->set_input(p.layer.node, 1, edit_->add_constant(cast(write_weights(p.layer, stored.shape(), decode(codes)), stored.dtype())));
    take_(index, codes, weights);
  } catch (const Error& e) {
    throw e.within(graph_.label(p.layer.node));
  }
}

CodedWeights Rounder::round_groups(const WeightsPlan& p, const std::vector<float>& weights, const InputMoments& moments, bool biases) const {
  const int64_t rows = p.layer.out / p.layer.groups;
  const double damp = damp_for(options_.damp, moments.k(), moments.places());
  GptqOptions options{.act_order = options_.act_order, .damp = damp, .fit = options_.fit, .nearest = !options_.gptq, .threads = p.layer.groups > 1 ? 1 : context_.threads};
  std::vector<CodedWeights> parts(static_cast<size_t>(p.layer.groups));
  const size_t each = weights.size() / parts.size();
  parallel_for(p.layer.groups, context_.threads, [&](int64_t g, int) {
    const auto from = weights.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(g) * each);
    const std::vector<float> given(from, from + static_cast<std::ptrdiff_t>(each));
    const std::vector<float> own = options_.fits_outputs ? moments.corrected(given, rows, g, damp, options.threads) : given;
    GptqOptions mine = options;
    if (std::find(given.begin(), given.end(), 0.0f) != given.end())  // what is zero stays zero
      for (float w : given) mine.keep.push_back(w != 0);
    if (options_.sparsity > 0) mine.act_order = false;  // the order that the mask is chosen in
    if (options_.sparsity > 0) mine.keep = sparsegpt(own, rows, moments.h(g), {options_.pattern, options_.sparsity, options_.damp, 0, grouped_columns(p.layer), options.threads}).mask;
    CodedWeights& part = parts[static_cast<size_t>(g)] = gptq(own, rows, moments.h(g), p.format, mine);
    if (biases) part.shift = moments.shift(given, decode(part), g);
  });
  CodedWeights all = std::move(parts[0]);
  for (size_t g = 1; g < parts.size(); ++g) {
    all.shift.insert(all.shift.end(), parts[g].shift.begin(), parts[g].shift.end());
    all.codes.insert(all.codes.end(), parts[g].codes.begin(), parts[g].codes.end());
    all.grid.scales.insert(all.grid.scales.end(), parts[g].grid.scales.begin(), parts[g].grid.scales.end());
    all.grid.zeros.insert(all.grid.zeros.end(), parts[g].grid.zeros.begin(), parts[g].grid.zeros.end());
  }
  all.grid.out = p.layer.out;
  return all;
}

}  // namespace

void round_weights(const Graph& graph, const std::vector<WeightsPlan>& plan, const WeightsOptions& options, PassContext& context, const TakeCodes& take,
                   const std::function<void(GraphEdit&)>& prepare) {
  Rounder(graph, plan, options, context, take, prepare).run();
}

}  // namespace infopt
