#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>

#include "lib/base/error.h"
#include "lib/base/threads.h"
#include "lib/data/npz_writer.h"
#include "lib/data/test_data.h"
#include "lib/onnx/import.h"
#include "lib/onnx/tensor_file.h"
#include "lib/runtime/session.h"
#include "recipes/measure.h"
#include "tools/command.h"

namespace infopt {
namespace {

struct RunOptions {
  int threads = 1;
  std::string model, input, output, test_data;
  DeviceChoice device;
  int64_t samples = 0;
};

struct Tolerance { double relative = 1e-3, absolute = 1e-7; };

/// "rtol atol" in tolerance.txt beside the model or the test data, if there.
Tolerance read_tolerance(const std::string& folder) {
  std::ifstream file(folder + "/tolerance.txt");
  Tolerance t;
  if (!file) return t;
  if (!(file >> t.relative >> t.absolute)) throw Error(ErrorKind::Malformed, "two numbers were expected, rtol and atol", folder + "/tolerance.txt");
  return t;
}

/// Empty where the two agree; else how they differ.
std::string difference(const Tensor& got, const Tensor& wanted, Tolerance tolerance) {
  if (got.dtype() != wanted.dtype()) return "is " + std::string(name_of(got.dtype())) + ", not " + std::string(name_of(wanted.dtype()));
  if (got.shape() != wanted.shape()) return "has shape " + to_string(got.shape()) + ", not " + to_string(wanted.shape());
  if (got.dtype() == DType::String) return got.strings() == wanted.strings() ? "" : "has other strings";
  const auto a = to_vector<double>(got), b = to_vector<double>(wanted);
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    if (std::fabs(a[i] - b[i]) <= tolerance.absolute + tolerance.relative * std::fabs(b[i])) continue;
    std::ostringstream text;
    text << "has " << a[i] << " where " << b[i] << " is expected, at element " << i;
    return text.str();
  }
  return "";
}

std::string difference(const Datum& got, const Datum& wanted, Tolerance tolerance) {
  if (got.is_tensor() && wanted.is_tensor()) return difference(got.tensor(), wanted.tensor(), tolerance);
  if (got.is_nothing() && wanted.is_nothing()) return "";
  if (!got.is_sequence() || !wanted.is_sequence()) return std::string("is ") + got.kind() + ", not " + wanted.kind();
  const auto &a = got.sequence().elements, &b = wanted.sequence().elements;
  if (a.size() != b.size()) return "has " + std::to_string(a.size()) + " elements, not " + std::to_string(b.size());
  for (size_t i = 0; i < a.size(); ++i)
    if (const std::string what = difference(a[i], b[i], tolerance); !what.empty()) return "at " + std::to_string(i) + " " + what;
  return "";
}

int run_test_data(const RunOptions& o) {
  const Model model = read_model(o.model);
  const Session session(*model.graph, {.threads = o.threads, .device = open_device(o.device)});
  const auto sets = find_test_data(o.test_data);
  if (sets.empty()) throw Error(ErrorKind::Io, "has no test_data_set_* folders", o.test_data);
  const Tolerance tolerance = read_tolerance(o.test_data);
  int failed = 0;
  for (const TestDataSet& set : sets) {
    std::map<std::string, Datum> inputs;
    for (const auto& [k, path] : set.inputs) {
      if (k >= model.graph->inputs().size()) throw Error(ErrorKind::Malformed, "the model has no input " + std::to_string(k), path);
      const Value& input = model.graph->value(model.graph->inputs()[k]);
      inputs[input.name] = read_datum_file(path, input.type);
    }
    const auto outputs = session.run_data(inputs);
    for (const auto& [k, path] : set.outputs) {
      if (k >= outputs.size()) throw Error(ErrorKind::Malformed, "the model has no output " + std::to_string(k), path);
      const Value& output = model.graph->value(model.graph->outputs()[k]);
      const std::string what = difference(outputs[k], read_datum_file(path, output.type), tolerance);
      if (what.empty()) continue;
      ++failed;
      std::fprintf(stderr, "infopt: %s: output '%s' %s\n", set.folder.c_str(), output.name.c_str(), what.c_str());
    }
  }
  std::printf("%zu test data sets, %d outputs differ\n", sets.size(), failed);
  return failed ? exit_code(ErrorKind::Gate) : 0;
}

/// The rows of a padded sample's output that are data.
Tensor without_padding(const Tensor& t, const Sample& sample, int64_t rows) {
  return sample.valid_rows < rows && t.rank() > 0 && t.dim(0) == rows && t.dtype() != DType::String ? t.slice_front(0, sample.valid_rows) : t;
}

int run_inputs(const RunOptions& o) {
  if (o.output.empty()) throw Error(ErrorKind::Usage, "give -o OUT.npz beside --input");
  const Model model = read_model(o.model);
  const Session session(*model.graph, {.threads = o.threads, .device = open_device(o.device)});
  DataOptions options = data_options(model);
  options.limit = o.samples;
  const auto data = open_dataset(o.input, options);
  NpzWriter writer(o.output);
  Sample sample;
  while (data->next(sample)) {
    std::vector<Tensor> outputs;
    try {
      outputs = session.run(sample.inputs);
    } catch (const Error& e) {
      throw e.within(sample.where);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Tensor& t = outputs[i];
      const std::string& name = model.graph->value(model.graph->outputs()[i]).name;
      if (t.rank() == 0) writer.append(name, t.reshaped({1}));
      else writer.append(name, without_padding(t, sample, options.rows_per_sample));
    }
  }
  writer.commit();
  return 0;
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("run", "Run a model: on an .npz, or on ONNX test data, whose outputs are then compared");
  const auto o = std::make_shared<RunOptions>();
  command->add_option("model", o->model, "the ONNX model")->required()->type_name("MODEL.onnx");
  auto* input = command->add_option("--input", o->input, "inputs by name, samples along the first axis")->type_name("IN.npz");
  command->add_option("-o,--output", o->output, "outputs by name")->type_name("OUT.npz");
  auto* test = command->add_option("--test-data", o->test_data, "a folder of test_data_set_*; tolerance.txt there may hold \"rtol atol\"")->type_name("DIR");
  command->add_option("--samples", o->samples, "at most so many samples")->check(CLI::PositiveNumber)->type_name("N");
  command->add_option("--threads", o->threads, "threads of one run; the outputs don't depend on it")->check(CLI::Range(1, 1024))->type_name("N");
  add_device_options(*command, o->device);
  input->excludes(test);
  command->callback([o, &context] {
    if (o->input.empty() && o->test_data.empty()) throw Error(ErrorKind::Usage, "run needs --input IN.npz or --test-data DIR");
    context.exit_code = o->test_data.empty() ? run_inputs(*o) : run_test_data(*o);
  });
}

}  // namespace infopt
