#include "lib/runtime/run.h"

#include <algorithm>
#include <new>
#include <stdexcept>

#include "lib/base/error.h"
#include "lib/runtime/layout.h"
#include "lib/runtime/stretch.h"

namespace infopt {

class StepContext : public KernelContext {
 public:
  StepContext(Run& run, const PlanStep& step) : run_(run), step_(step) {}

  size_t inputs() const override { return step_.inputs.size(); }
  size_t outputs() const override { return step_.outputs.size(); }
  bool has(size_t i) const override { return i < step_.inputs.size() && step_.inputs[i] != kNone; }

  const Tensor& in(size_t i) override {
    if (on_device()) return run_.device_plain(input_id(i));
    return on_device_alone(i) ? run_.slot(input_id(i)).device : run_.plain(input_id(i));
  }

  const Tensor& in_any(size_t i, Layout& layout) override {
    if (on_device()) {
      const Run::Slot& slot = run_.on_device(input_id(i));
      layout = slot.device_layout;
      return slot.device;
    }
    if (on_device_alone(i)) return layout = run_.slot(input_id(i)).device_layout, run_.slot(input_id(i)).device;
    const Run::Slot& slot = run_.on_host(input_id(i));
    if (!slot.tensor.defined()) return slot.other.tensor();
    layout = slot.layout;
    return slot.tensor;
  }

  bool is_tensor(size_t i) const override {
    if (!has(i)) return false;
    const Run::Slot& slot = run_.slot(step_.inputs[i]);
    return slot.tensor.defined() || slot.device.defined();
  }
  DeviceRun* device() override { return run_.device_; }
  const Tensor& host(size_t i) override { return run_.plain(input_id(i)); }
  void set_host(size_t i, Tensor tensor) override { put_host(i, std::move(tensor), Layout::Plain); }
  Datum datum(size_t i) override { return run_.datum(input_id(i)); }

  bool wanted(size_t i) const override { return i < step_.outputs.size() && step_.outputs[i] != kNone; }

  Tensor& out(size_t i, DType dtype, Shape shape, Layout layout) override {
    if (run_.outputs_ && wanted(i))
      if (Tensor place = run_.outputs_->place(step_.outputs[i], run_.first_item_, dtype, shape, shape.size() < 3 ? Layout::Plain : layout); place.defined()) return put_host(i, std::move(place), layout);
    return put(i, on_device() ? run_.device_->make(dtype, std::move(shape)) : Tensor(dtype, std::move(shape)), layout);
  }

  Tensor& out_reusing(size_t i, size_t j, DType dtype, Shape shape, Layout layout) override {
    if (on_device()) return out(i, dtype, std::move(shape), layout);
    const ValueId id = input_id(j);
    const Tensor& input = run_.slot(id).tensor;
    const bool last = std::find(step_.free_after.begin(), step_.free_after.end(), id) != step_.free_after.end();
    if (!last || !wanted(i) || (run_.outputs_ && run_.outputs_->has(step_.outputs[i])) || !input.unique() || dtype == DType::String || bytes_of(dtype, element_count(shape)) != input.bytes())
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
    Run run(plan, &run_, nullptr, nullptr);
    const auto& names = plan.graph().inputs();
    if (inputs.size() != names.size())
      throw Error(ErrorKind::Malformed, "a body takes " + std::to_string(names.size()) + " inputs and was given " + std::to_string(inputs.size()));
    for (size_t i = 0; i < inputs.size(); ++i) run.feed(names[i], std::move(inputs[i]));
    return run.execute();
  }
  std::vector<Placed> run_body_placed(size_t body, std::vector<Placed> inputs) override {
    const Plan& plan = *step_.bodies.at(body);
    Run run(plan, &run_, nullptr, run_.device_);
    const auto& names = plan.graph().inputs();
    if (inputs.size() != names.size())
      throw Error(ErrorKind::Malformed, "a body takes " + std::to_string(names.size()) + " inputs and was given " + std::to_string(inputs.size()));
    for (size_t i = 0; i < inputs.size(); ++i) run.feed_placed(names[i], std::move(inputs[i]));
    run.execute_steps();
    std::vector<Placed> out;
    for (size_t i = 0; i < plan.fetches().size(); ++i) out.push_back(run.placed_fetch(i));
    return out;
  }
  Placed placed(size_t i) override { return run_.placed(input_id(i)); }

 private:
  /// Only the shape of what is on the device is asked for.
  bool on_device_alone(size_t i) const {
    if (!step_.shape_only) return false;
    const Run::Slot& slot = run_.slot(input_id(i));
    return slot.device.defined() && !slot.tensor.defined();
  }
  bool on_device() const { return step_.kernel->on_device(); }

  ValueId input_id(size_t i) const {
    if (!has(i)) throw Error(ErrorKind::Malformed, "its input " + std::to_string(i) + " is missing");
    return step_.inputs[i];
  }

  Tensor& put(size_t i, Tensor tensor, Layout layout) {
    if (!on_device()) return put_host(i, std::move(tensor), layout);
    if (!wanted(i)) {
      unwanted_ = std::move(tensor);
      return unwanted_;
    }
    Run::Slot& slot = run_.slot(step_.outputs[i]);
    slot.device = std::move(tensor);
    slot.device_layout = slot.device.rank() < 3 ? Layout::Plain : layout;
    return slot.device;
  }

  Tensor& put_host(size_t i, Tensor tensor, Layout layout) {
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

Run::Run(const Plan& plan, const Run* parent, const Tap* tap, DeviceRun* device)
    : plan_(plan), parent_(parent), tap_(tap), slots_(plan.graph().value_capacity()), own_device_(plan.device() && !device ? plan.device()->begin() : nullptr),
      device_(device ? device : own_device_.get()) {
  for (const auto& [id, tensor] : plan.constants()) slot(id).tensor = tensor;
  if (!parent) return;
  for (ValueId id : plan.outer_values()) slot(id) = parent->slot(plan.graph().value(id).outer);
}

void Run::feed(ValueId value, Datum datum) {
  Slot& s = slot(value);
  if (datum.is_tensor()) s = {datum.tensor()};
  else s = {{}, Layout::Plain, std::move(datum)};
}

void Run::feed_device(ValueId value, Tensor tensor) {
  slot(value) = {};
  slot(value).device = std::move(tensor);
}

void Run::feed_placed(ValueId value, Placed given) {
  feed(value, std::move(given.host));
  slot(value).device = std::move(given.device);
}

Placed Run::placed(ValueId id) {
  Placed p;
  if (slot(id).device.defined()) p.device = device_plain(id);
  if (!slot(id).device.defined() || slot(id).tensor.defined()) p.host = datum(id);
  return p;
}

void Run::place_captures(const PlanStep& step) {
  for (ValueId v : step.captures) {
    const Slot& s = slot(v);
    if (!step.kernel->on_device()) on_host(v);
    else if (s.tensor.defined() && s.tensor.dtype() != DType::String) on_device(v);
  }
}

Run::Slot& Run::on_host(ValueId id) {
  Slot& s = slot(id);
  if (s.tensor.defined() || !s.device.defined()) return s;
  s.tensor = device_->to_host(s.device);
  s.layout = s.device_layout;
  return s;
}

Run::Slot& Run::on_device(ValueId id) {
  Slot& s = slot(id);
  if (s.device.defined()) return s;
  if (!s.tensor.defined()) s.other.tensor();  // says what it is
  const Tensor* constant = plan_.device_constant(id, *device_);
  s.device = constant ? *constant : device_->to_device(s.tensor);
  s.device_layout = s.layout;
  return s;
}

const Tensor& Run::device_plain(ValueId id) {
  Slot& s = on_device(id);
  if (s.device_layout != Layout::Plain) {
    s.device = device_->convert_layout(s.device, s.device_layout, Layout::Plain);
    s.device_layout = Layout::Plain;
  }
  return s.device;
}

const Tensor& Run::plain(ValueId id) {
  Slot& s = on_host(id);
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
    place_captures(step);
    StepContext context(*this, step);
    const auto start = plan_.profiling() ? Plan::Clock::now() : Plan::Clock::time_point{};
    step.kernel->run(context);
    if (plan_.profiling()) {
      static const Tensor none;
      const ValueId first = step.outputs.empty() ? kNone : step.outputs[0];
      if (step.kernel->on_device()) device_->wait();
      plan_.add_time(index, start, Plan::Clock::now(), first == kNone ? none : slot(first).device.defined() ? slot(first).device : slot(first).tensor);
    }
  }
  if (outputs_) note_part(step);
  finish_step(step);
}

void Run::show(ValueId id) {
  if (!summary_tap_) {
    if (on_host(id).tensor.defined()) (*tap_)(id, slot(id).tensor, slot(id).layout);
    return;
  }
  const Slot& s = slot(id);
  if (s.device.defined()) {
    const SummaryRequest request = summary_tap_->request(id);
    if (!request.histogram && !is_float(s.device.dtype())) return;
    if (device_->summarize(s.device, s.device_layout, request)) return summarized_.push_back(id);
  }
  if (on_host(id).tensor.defined()) summary_tap_->see(id, s.tensor, s.layout);
}

void Run::tell_summaries() {
  const auto summaries = device_->summaries();
  for (size_t i = 0; i < summaries.size(); ++i) summary_tap_->see(summarized_[i], summaries[i]);
}

void Run::finish_step(const PlanStep& step) {
  if (tap_ || summary_tap_)
    for (ValueId o : step.tapped) show(o);
  for (ValueId v : step.free_after) slot(v) = {};
}

void Run::run_named_step(size_t s) {
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

void Run::execute_steps() {
  if (tap_ || summary_tap_)
    for (ValueId id : plan_.graph().inputs())
      if (plan_.tapped(id) && (slot(id).tensor.defined() || slot(id).device.defined())) {
        if (summary_tap_) on_device(id);  // where a recorded run has it
        show(id);
      }
  auto stretch = plan_.stretches().begin();
  for (size_t s = 0; s < plan_.steps().size();) {
    if (stretch != plan_.stretches().end() && stretch->begin == s) {
      const Stretch& now = *stretch++;
      if (run_in_parts(now)) {
        s = now.end;
        continue;
      }
    }
    run_named_step(s++);
  }
}

Datum Run::fetch(size_t i) {
  const ValueId id = plan_.fetches().at(i);
  Datum d = datum(id);
  if (!d.defined()) throw Error(ErrorKind::Malformed, "the output '" + plan_.graph().value(id).name + "' was not computed");
  return d;
}

Placed Run::placed_fetch(size_t i) {
  const ValueId id = plan_.fetches().at(i);
  if (!slot(id).defined()) fetch(i);  // says so
  return placed(id);
}

Tensor Run::device_fetch(size_t i) {
  const ValueId id = plan_.fetches().at(i);
  return slot(id).device.defined() ? device_plain(id) : Tensor();
}

std::vector<Datum> Run::execute() {
  std::vector<Datum> out;
  try {
    execute_steps();
    for (size_t i = 0; i < plan_.fetches().size(); ++i) out.push_back(fetch(i));
  } catch (const Error&) {
    if (summary_tap_) try {
        tell_summaries();
      } catch (const Error&) {
        // The device can't say any more; what went wrong first is what counts.
      }
    throw;
  }
  if (summary_tap_) tell_summaries();
  return out;
}

}  // namespace infopt
