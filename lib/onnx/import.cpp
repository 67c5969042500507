#include "lib/onnx/import.h"

#include "lib/onnx/functions.h"
#include "lib/onnx/graph_reader.h"
#include "lib/onnx/wire.h"
#include "onnx/defs/schema.h"

namespace infopt {
namespace {

constexpr int64_t kOldestIr = 3, kNewestIr = onnx::IR_VERSION;

std::map<std::string, int64_t> read_opsets(const onnx::ModelProto& proto) {
  std::map<std::string, int64_t> opsets;
  for (const auto& entry : proto.opset_import()) {
    const auto [it, fresh] = opsets.emplace(canonical_domain(entry.domain()), entry.version());
    if (!fresh && it->second != entry.version())
      throw Error(ErrorKind::Malformed, "imports two versions of the domain '" + entry.domain() + "'");
  }
  if (opsets.empty()) throw Error(ErrorKind::Malformed, "imports no opset (opset_import is missing)");
  const auto it = opsets.find("");
  if (it == opsets.end()) return opsets;
  const int64_t newest = onnx::OpSchemaRegistry::DomainToVersionRange::Instance().Map().at("").second;
  if (it->second < 1) throw Error(ErrorKind::Malformed, "imports opset " + std::to_string(it->second));
  if (it->second > newest)
    throw Error(ErrorKind::Unsupported,
                "opset " + std::to_string(it->second) + " is newer than " + std::to_string(newest) + ", the newest that infopt knows");
  return opsets;
}

void check_versions(const onnx::ModelProto& proto) {
  if (!proto.has_graph()) throw Error(ErrorKind::Malformed, "has no graph: not an ONNX model");
  if (proto.ir_version() > kNewestIr)
    throw Error(ErrorKind::Unsupported, "IR version " + std::to_string(proto.ir_version()) + " is newer than " + std::to_string(kNewestIr));
  if (proto.ir_version() < 1) throw Error(ErrorKind::Malformed, "has no IR version: not an ONNX model");
  if (proto.ir_version() < kOldestIr)
    throw Error(ErrorKind::Unsupported, "IR version " + std::to_string(proto.ir_version()) + " is older than " + std::to_string(kOldestIr));
}

/// What infopt passes on without looking into it.
std::string rest_of(const onnx::ModelProto& proto) {
  onnx::ModelProto rest;
  *rest.mutable_training_info() = proto.training_info();
  *rest.mutable_configuration() = proto.configuration();
  return rest.SerializeAsString();
}

Model read(TensorSource& source, const ImportOptions& options) {
  if (source.bytes.empty()) throw Error(ErrorKind::Malformed, "is empty");
  onnx::ModelProto proto;
  {
    const std::string skeleton = wire::strip(wire::Message::Model, source.bytes, kInlineBytes);
    if (!proto.ParseFromString(skeleton)) throw Error(ErrorKind::Malformed, "isn't an ONNX model");
  }
  check_versions(proto);
  Model model;
  GraphReader::Context context{source, proto.ir_version(), read_opsets(proto)};
  if (options.inline_functions) {
    inline_functions(proto);
    context.opsets = read_opsets(proto);  // those that the functions' bodies need besides
  }
  model.graph = GraphReader(proto.graph(), context).read();
  model.ir_version = proto.ir_version();
  model.model_version = proto.model_version();
  model.producer_name = proto.producer_name();
  model.producer_version = proto.producer_version();
  model.domain = proto.domain();
  model.doc = proto.doc_string();
  model.metadata = decode_metadata(proto.metadata_props());
  for (const auto& f : proto.functions()) model.functions.push_back(f.SerializeAsString());
  model.opaque = rest_of(proto);
  return model;
}

}  // namespace

Model read_model(const std::string& path, const ImportOptions& options) {
  const auto file = MappedFile::open(path);
  TensorSource source{view_of(*file), file, folder_of(path)};
  try {
    Model model = read(source, options);
    model.path = path;
    for (const auto& [location, mapped] : source.external) model.external_files.push_back(location);
    return model;
  } catch (const Error& e) {
    throw e.within(path);
  }
}

Model parse_model(const std::string& bytes, const ImportOptions& options) {
  auto copy = std::make_shared<const std::string>(bytes);
  TensorSource source{*copy, copy, {}};
  return read(source, options);
}

}  // namespace infopt
