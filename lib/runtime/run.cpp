#include "lib/runtime/run.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/runtime/layout.h"

namespace infopt {

class StepContext : public KernelContext {
 public:
  StepContext(Run& run, const PlanStep& step) : run_(run), step_(step) {}

  size_t inputs() const override { return step_.inputs.size(); }
  size_t outputs() const override { return step_.outputs.size(); }
  bool has(size_t i) const override { return i < step_.inputs.size() && step_.inputs[i] != kNone; }

  const Tensor& in(size_t i) override { return run_.plain(input_id(i)); }

  const Tensor& in_any(size_t i, Layout& layout) override {
    const Run::Slot& slot = run_.slot(input_id(i));
    if (!slot.tensor.defined()) return slot.other.tensor();
    layout = slot.layout;
    return slot.tensor;
  }

  bool is_tensor(size_t i) const override { return has(i) && run_.slot(step_.inputs[i]).tensor.defined(); }
  Datum datum(size_t i) override { return run_.datum(input_id(i)); }

  bool wanted(size_t i) const override { return i < step_.outputs.size() && step_.outputs[i] != kNone; }

  Tensor& out(size_t i, DType dtype, Shape shape, Layout layout) override { return put(i, Tensor(dtype, std::move(shape)), layout); }

  Tensor& out_reusing(size_t i, size_t j, DType dtype, Shape shape, Layout layout) override {
    const ValueId id = input_id(j);
    const Tensor& input = run_.slot(id).tensor;
    const bool last = std::find(step_.free_after.begin(), step_.free_after.end(), id) != step_.free_after.end();
    if (!last || !wanted(i) || !input.unique() || dtype == DType::String || bytes_of(dtype, element_count(shape)) != input.bytes())
      return out(i, dtype, std::move(shape), layout);
    // The input's slot keeps its share until the step ends, so that references to it stay good.
    if (dtype == input.dtype()) return put(i, input.reshaped(std::move(shape)), layout);
    const auto keep = std::make_shared<Tensor>(input);
    return put(i, Tensor(dtype, std::move(shape), keep, keep->raw()), layout);
  }

  void set(size_t i, Tensor tensor, Layout layout) override { put(i, std::move(tensor), layout); }

  void set_datum(size_t i, Datum datum) override {
    if (datum.is_tensor()) put(i, datum.tensor(), Layout::Plain);
    else if (wanted(i)) run_.slot(step_.outputs[i]) = {{}, Layout::Plain, std::move(datum)};
  }

  std::vector<Datum> run_body(size_t body, std::vector<Datum> inputs) override {
    const Plan& plan = *step_.bodies.at(body);
    Run run(plan, &run_, nullptr);
    const auto& names = plan.graph().inputs();
    if (inputs.size() != names.size())
      throw Error(ErrorKind::Malformed, "a body takes " + std::to_string(names.size()) + " inputs and was given " + std::to_string(inputs.size()));
    for (size_t i = 0; i < inputs.size(); ++i) run.feed(names[i], std::move(inputs[i]));
    return run.execute();
  }

 private:
  ValueId input_id(size_t i) const {
    if (!has(i)) throw Error(ErrorKind::Malformed, "its input " + std::to_string(i) + " is missing");
    return step_.inputs[i];
  }

  Tensor& put(size_t i, Tensor tensor, Layout layout) {
    if (!wanted(i)) {
      unwanted_ = std::move(tensor);
      return unwanted_;
    }
    Run::Slot& slot = run_.slot(step_.outputs[i]);
    slot.tensor = std::move(tensor);
    slot.layout = slot.tensor.rank() < 3 ? Layout::Plain : layout;
    return slot.tensor;
  }

  Run& run_;
  const PlanStep& step_;
  Tensor unwanted_;
};

Run::Run(const Plan& plan, const Run* parent, const Tap* tap) : plan_(plan), parent_(parent), tap_(tap), slots_(plan.graph().value_capacity()) {
  for (const auto& [id, tensor] : plan.constants()) slot(id).tensor = tensor;
  if (!parent) return;
  for (ValueId id : plan.outer_values()) slot(id) = parent->slot(plan.graph().value(id).outer);
}

void Run::feed(ValueId value, Datum datum) {
  Slot& s = slot(value);
  if (datum.is_tensor()) s = {datum.tensor()};
  else s = {{}, Layout::Plain, std::move(datum)};
}

const Tensor& Run::plain(ValueId id) {
  Slot& s = slot(id);
  if (!s.tensor.defined()) return s.other.tensor();
  if (s.layout != Layout::Plain) s = {convert_layout(s.tensor, s.layout, Layout::Plain), Layout::Plain};
  return s.tensor;
}

Datum Run::datum(ValueId id) {
  if (const Slot& s = slot(id); s.other.defined()) return s.other;
  return slot(id).defined() ? Datum(plain(id)) : Datum();
}

void Run::run_step(size_t index) {
  const PlanStep& step = plan_.steps()[index];
  const bool given = std::all_of(step.outputs.begin(), step.outputs.end(), [&](ValueId o) { return o == kNone || slot(o).defined(); });
  if (!given) {
    for (ValueId v : step.inputs)
      if (v != kNone && !slot(v).defined())
        throw Error(ErrorKind::Malformed, "the value '" + plan_.graph().value(v).name + "' that it reads has no elements: an input was not given");
    StepContext context(*this, step);
    const auto start = plan_.profiling() ? Plan::Clock::now() : Plan::Clock::time_point{};
    step.kernel->run(context);
    if (plan_.profiling()) {
      static const Tensor none;
      const ValueId first = step.outputs.empty() ? kNone : step.outputs[0];
      plan_.add_time(index, start, Plan::Clock::now(), first == kNone ? none : slot(first).tensor);
    }
  }
  if (tap_)
    for (ValueId o : step.tapped)
      if (slot(o).tensor.defined()) (*tap_)(o, slot(o).tensor, slot(o).layout);
  for (ValueId v : step.free_after) slot(v) = {};
}

std::vector<Datum> Run::execute() {
  if (tap_)
    for (ValueId id : plan_.graph().inputs())
      if (plan_.tapped(id) && slot(id).tensor.defined()) (*tap_)(id, slot(id).tensor, slot(id).layout);
  for (size_t s = 0; s < plan_.steps().size(); ++s) {
    try {
      run_step(s);
    } catch (const Error& e) {
      throw e.within(plan_.graph().label(plan_.steps()[s].node));
    } catch (const std::bad_alloc&) {
      throw Error(ErrorKind::Limit, "there isn't enough memory", plan_.graph().label(plan_.steps()[s].node));
    } catch (const std::length_error&) {
      throw Error(ErrorKind::Limit, "more elements than memory can hold", plan_.graph().label(plan_.steps()[s].node));
    }
  }
  std::vector<Datum> out;
  for (ValueId id : plan_.fetches()) {
    out.push_back(datum(id));
    if (!out.back().defined()) throw Error(ErrorKind::Malformed, "the output '" + plan_.graph().value(id).name + "' was not computed");
  }
  return out;
}

}  // namespace infopt
