#include "lib/runtime/stretch.h"

#include <algorithm>
#include <exception>
#include <functional>
#include <memory>
#include <set>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/runtime/cpu/dnnl_adapter.h"
#include "lib/runtime/run.h"

namespace infopt {
namespace {

// Of a step's inputs and outputs: a batch up to the first stays whole, parts of others have about the second. The bits may depend on it, so the
// processor's caches may not.
constexpr int64_t kWholeBytes = 8 << 20, kPartBytes = 4 << 20;

using Values = std::set<ValueId>;

bool joins(const PlanStep& step, const Values& constants) {
  const ByItem by = step.kernel->by_item();
  if (by == ByItem::No || !step.captures.empty() || !step.bodies.empty() || step.inputs.empty() || step.inputs[0] == kNone || constants.count(step.inputs[0])) return false;
  return by == ByItem::All || std::all_of(step.inputs.begin() + 1, step.inputs.end(), [&](ValueId v) { return v == kNone || constants.count(v); });
}

Stretch make_stretch(const Plan& plan, size_t begin, size_t end, const Values& constants) {
  Stretch s{begin, end, {}, {}, {}};
  Values inputs, operands, made, outputs;
  for (size_t i = begin; i < end; ++i) {
    const PlanStep& step = plan.steps()[i];
    for (size_t k = 0; k < step.inputs.size(); ++k) {
      const ValueId v = step.inputs[k];
      if (v == kNone || made.count(v)) continue;
      if (!constants.count(v)) inputs.insert(v);
      else if (step.kernel->by_item() == ByItem::All) operands.insert(v);
    }
    for (ValueId v : step.outputs)
      if (v != kNone) {
        made.insert(v);
        if (plan.tapped(v)) outputs.insert(v);
      }
  }
  for (size_t i = end; i < plan.steps().size(); ++i) {
    for (ValueId v : plan.steps()[i].inputs)
      if (made.count(v)) outputs.insert(v);
    for (ValueId v : plan.steps()[i].captures)
      if (made.count(v)) outputs.insert(v);
  }
  for (ValueId v : plan.fetches())
    if (made.count(v)) outputs.insert(v);
  s.inputs.assign(inputs.begin(), inputs.end());
  s.constants.assign(operands.begin(), operands.end());
  s.outputs.assign(outputs.begin(), outputs.end());
  return s;
}

bool sliceable(const Tensor& t) { return t.defined() && t.rank() >= 3 && t.size() > 0 && bits_of(t.dtype()) >= 8; }

/// The size of a part, none of which has more than `most` items.
int64_t equal_parts(int64_t items, int64_t most) {
  const int64_t parts = (items + most - 1) / most;
  return (items + parts - 1) / parts;
}

}  // namespace

std::vector<Stretch> find_stretches(const Plan& plan) {
  Values constants;
  for (const auto& [v, tensor] : plan.constants())
    if (!plan.fed(v)) constants.insert(v);
  std::vector<Stretch> found;
  const auto& steps = plan.steps();
  for (size_t begin = 0; begin < steps.size(); ++begin) {
    size_t end = begin;
    while (end < steps.size() && joins(steps[end], constants)) ++end;
    if (end - begin < 2) continue;
    found.push_back(make_stretch(plan, begin, end, constants));
    begin = end;
  }
  return found;
}

StretchOutputs::StretchOutputs(const Stretch& stretch, int64_t items)
    : stretch_(stretch), items_(items), tensors_(stretch.outputs.size()), layouts_(stretch.outputs.size(), Layout::Plain) {}

bool StretchOutputs::has(ValueId value) const { return std::binary_search(stretch_.outputs.begin(), stretch_.outputs.end(), value); }

Tensor StretchOutputs::place(ValueId value, int64_t first, DType dtype, const Shape& shape, Layout layout) {
  const auto at = std::lower_bound(stretch_.outputs.begin(), stretch_.outputs.end(), value);
  if (at == stretch_.outputs.end() || *at != value || shape.empty() || bits_of(dtype) < 8) return {};
  const auto i = static_cast<size_t>(at - stretch_.outputs.begin());
  Shape whole = shape;
  whole[0] = items_;
  std::lock_guard lock(mutex_);
  if (!tensors_[i].defined()) {
    tensors_[i] = Tensor(dtype, whole);
    layouts_[i] = layout;
  }
  if (tensors_[i].dtype() != dtype || tensors_[i].shape() != whole || layouts_[i] != layout || first + shape[0] > items_) return {};
  return tensors_[i].slice_front(first, shape[0]);
}

void StretchOutputs::keep(ValueId value, int64_t first, const Tensor& part, Layout layout) {
  if (!has(value)) return;
  Tensor to = place(value, first, part.dtype(), part.shape(), layout);
  if (!to.defined()) throw Error(ErrorKind::Defect, "parts of a batch that don't fit together");
  if (to.raw() != part.raw()) std::copy_n(part.raw(), part.bytes(), to.mutable_raw());
}

namespace {

/// Of one batch: the runs of its parts, used again for other parts, and the first error in the order of the items.
class Parts {
 public:
  explicit Parts(std::function<std::unique_ptr<Run>()> make) : make_(std::move(make)) {}

  /// Calls use(run) with a run that nobody else has meanwhile.
  template <class F> void lend(int64_t first, F use) {
    try {
      auto run = take();
      use(*run);
      std::lock_guard lock(mutex_);
      idle_.push_back(std::move(run));
    } catch (...) {
      std::lock_guard lock(mutex_);
      if (!error_ || first < error_at_) error_ = std::current_exception(), error_at_ = first;
    }
  }
  void end() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::unique_ptr<Run> take() {
    std::unique_lock lock(mutex_);
    if (idle_.empty()) {
      lock.unlock();
      return make_();
    }
    auto run = std::move(idle_.back());
    idle_.pop_back();
    return run;
  }

  std::function<std::unique_ptr<Run>()> make_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Run>> idle_;
  std::exception_ptr error_;
  int64_t error_at_ = 0;
};

/// Whether so many parts keep the threads busy, each part on one of them; else all threads share one part after another.
bool one_thread_each(int64_t parts) {
  const int64_t threads = run_threads(), rounds = (parts + threads - 1) / threads;
  return 4 * parts >= 3 * rounds * threads;
}

}  // namespace

int64_t Run::items_of(const Stretch& stretch, std::vector<Shape>& shapes) const {
  if (stretch.inputs.empty()) return 0;
  const Shape& first = slot(stretch.inputs[0]).tensor.shape();
  for (ValueId v : stretch.inputs) {
    const Tensor& t = slot(v).tensor;
    if (!sliceable(t) || t.shape().size() != first.size() || t.dim(0) != first[0]) return 0;
    shapes.push_back(t.shape());
  }
  for (ValueId v : stretch.constants) {
    const Shape& shape = slot(v).tensor.shape();
    if (shape.size() > first.size() || (shape.size() == first.size() && shape[0] != 1)) return 0;
  }
  for (size_t s = stretch.begin; s < stretch.end; ++s)
    for (ValueId v : plan_.steps()[s].outputs)
      if (v != kNone && slot(v).defined()) return 0;  // given from outside
  return first[0];
}

void Run::run_part(const Run& whole, const Stretch& stretch, int64_t first, int64_t count, StretchOutputs& outputs) {
  outputs_ = &outputs;
  first_item_ = first;
  for (ValueId v : stretch.inputs) slot(v) = {whole.slot(v).tensor.slice_front(first, count), whole.slot(v).layout};
  for (size_t s = stretch.begin; s < stretch.end; ++s) run_named_step(s);
  for (ValueId v : stretch.outputs) slot(v) = {};
}

void Run::note_part(const PlanStep& step) {
  size_t bytes = 0;
  for (size_t i = 0; i < (step.kernel->by_item() == ByItem::All ? step.inputs.size() : 1); ++i)
    if (step.inputs[i] != kNone) bytes += slot(step.inputs[i]).tensor.bytes();
  for (ValueId v : step.outputs) {
    if (v == kNone) continue;
    bytes += slot(v).tensor.bytes();
    outputs_->keep(v, first_item_, slot(v).tensor, slot(v).layout);
  }
  part_bytes_ = std::max(part_bytes_, bytes);
}

bool Run::run_in_parts(const Stretch& stretch) {
  std::vector<Shape> shapes;
  const int64_t items = items_of(stretch, shapes);
  if (items < 2) return false;
  auto outputs = std::make_unique<StretchOutputs>(stretch, items);
  Parts parts([this] { return std::make_unique<Run>(plan_, parent_, nullptr); });
  std::optional<int64_t> at_once = plan_.items_at_once(stretch, shapes);
  int64_t done = 0;
  if (!at_once) {  // the first item tells how large the steps' tensors are
    const RunThreads one(1);
    const cpu::ShapesOnly trial;
    parts.lend(0, [&](Run& run) {
      run.run_part(*this, stretch, 0, 1, *outputs);
      const int64_t each = std::max<int64_t>(1, static_cast<int64_t>(run.part_bytes_)), most = std::max<int64_t>(1, kPartBytes / each);
      at_once = each * items <= kWholeBytes || most >= items ? items : equal_parts(items, most);
    });
    parts.end();
    plan_.note_items_at_once(stretch, shapes, *at_once);
    if (*at_once == 1 && !trial.skipped()) done = 1;
    else outputs = std::make_unique<StretchOutputs>(stretch, items);
  }
  if (*at_once == items) return false;
  const int64_t size = *at_once, count = (items - done + size - 1) / size;
  const auto run_one = [&](int64_t i) {
    const int64_t first = done + i * size;
    parts.lend(first, [&](Run& run) { run.run_part(*this, stretch, first, std::min(size, items - first), *outputs); });
  };
  if (one_thread_each((items + size - 1) / size)) share_items(count, run_one);
  else
    for (int64_t i = 0; i < count; ++i) run_one(i);
  parts.end();
  for (size_t i = 0; i < stretch.outputs.size(); ++i) slot(stretch.outputs[i]) = {outputs->tensor(i), outputs->layout(i)};
  for (size_t s = stretch.begin; s < stretch.end; ++s) finish_step(plan_.steps()[s]);
  return true;
}

}  // namespace infopt
