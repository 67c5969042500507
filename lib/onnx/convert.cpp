#include "lib/onnx/convert.h"

#include "lib/onnx/graph_reader.h"
#include "lib/onnx/graph_writer.h"
#include "onnx/version_converter/convert.h"

namespace infopt {
namespace {

/// Large initializers travel as graph inputs, which the converter doesn't look into.
std::map<std::string, Tensor> take_weights(Model& model, ValueNames& names) {
  std::map<std::string, Tensor> weights;
  GraphEdit edit(*model.graph);
  for (size_t i = 0; i < model.graph->value_capacity(); ++i) {
    const auto id = static_cast<ValueId>(i);
    if (!model.graph->value_alive(id)) continue;
    const Value& v = model.graph->value(id);
    if (!v.is_constant() || v.constant.bytes() <= kInlineBytes) continue;
    weights[names.of(*model.graph, id)] = v.constant;
    edit.value_for_import(id).constant = {};
    edit.set_graph_input(id, true);
  }
  return weights;
}

}  // namespace

void convert_whole(Model& model, int64_t to) {
  Model stripped = model;
  stripped.graph = model.graph->clone();
  ValueNames names(*stripped.graph);
  const auto weights = take_weights(stripped, names);
  const onnx::ModelProto proto = make_model_proto(stripped, names, encode_tensor);
  onnx::ModelProto converted;
  guarded(ErrorKind::Unsupported, "ONNX's version converter can't carry the model to opset " + std::to_string(to),
          [&] { converted = onnx::version_conversion::ConvertVersion(proto, static_cast<int>(to)); });
  TensorSource nowhere;
  GraphReader::Context context{nowhere, onnx::IR_VERSION, model.graph->opsets};
  context.opsets[""] = to;
  auto graph = GraphReader(converted.graph(), context).read();
  GraphEdit edit(*graph);
  for (ValueId id : std::vector<ValueId>(graph->inputs())) {
    const auto it = weights.find(graph->value(id).name);
    if (it == weights.end()) continue;
    edit.set_graph_input(id, false);
    edit.set_constant(id, it->second);
  }
  edit->doc = model.graph->doc;
  edit->metadata = model.graph->metadata;
  edit->quantization_annotations = model.graph->quantization_annotations;
  edit.finish();
  model.graph = std::move(graph);
}

}  // namespace infopt
