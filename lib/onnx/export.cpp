#include "lib/onnx/export.h"

#include "lib/base/atomic_file.h"
#include "lib/base/hash.h"
#include "lib/base/mapped_file.h"
#include "lib/onnx/graph_writer.h"
#include "lib/onnx/wire.h"

namespace infopt {
namespace {

/// The model's message with its larger tensors left out, and those tensors beside it.
struct Skeleton {
  onnx::ModelProto proto;
  std::vector<std::pair<onnx::TensorProto*, Tensor>> blobs;

  explicit Skeleton(const Model& model, bool sparse = false) {
    ValueNames names(*model.graph);
    proto = make_model_proto(model, names, [this](const Tensor& t, onnx::TensorProto* out) {
      put_small(t, out);
      if (t.bytes() <= kInlineBytes) return;
      out->mutable_segment()->set_begin(static_cast<int64_t>(blobs.size()));
      blobs.emplace_back(out, t);
    }, sparse);
  }

  wire::Rope rope() const {
    std::string bytes;
    guarded(ErrorKind::Limit, "the model without its weights is too large for protobuf", [&] {
      if (!proto.SerializeToString(&bytes)) throw Error(ErrorKind::Limit, "the model without its weights is larger than 2 GB");
    });
    return wire::expand(wire::Message::Model, bytes, [&](uint64_t blob) { return blobs[blob].second.bytes(); });
  }
};

/// Larger tensors start at a page, so that they can be mapped.
uint64_t aligned(uint64_t offset, uint64_t bytes) {
  const uint64_t step = bytes >= 4096 ? 4096 : 64;
  return (offset + step - 1) / step * step;
}

std::string file_name(const std::string& path) { return path.substr(path.rfind('/') + 1); }

void set_entry(onnx::TensorProto* proto, const char* key, std::string value) {
  auto* entry = proto->add_external_data();
  entry->set_key(key);
  entry->set_value(std::move(value));
}

/// Tensors that go to a file beside the model, and where in it.
struct Outside {
  std::string path;
  std::vector<std::pair<uint64_t, Tensor>> tensors;
};

/// Makes the skeleton refer to a file beside `path` for its tensors of at least `smallest` bytes.
Outside move_outside(Skeleton& skeleton, const std::string& path, uint64_t smallest) {
  Hasher hash;
  for (const auto& [proto, tensor] : skeleton.blobs) {
    if (tensor.bytes() < smallest) continue;
    hash.number(static_cast<int64_t>(tensor.bytes())).bytes(tensor.raw(), tensor.bytes());
    release_mapped_pages(tensor.raw(), tensor.bytes());
  }
  Outside outside{path + "." + hash.hex() + ".data", {}};
  uint64_t offset = 0;
  for (auto& [proto, tensor] : skeleton.blobs) {
    if (tensor.bytes() < smallest) continue;
    offset = aligned(offset, tensor.bytes());
    outside.tensors.emplace_back(offset, tensor);
    proto->clear_segment();
    proto->set_data_location(onnx::TensorProto::EXTERNAL);
    set_entry(proto, "location", file_name(outside.path));
    set_entry(proto, "offset", std::to_string(offset));
    set_entry(proto, "length", std::to_string(tensor.bytes()));
    offset += tensor.bytes();
  }
  return outside;
}

void write_outside(const Outside& outside) {
  if (outside.tensors.empty()) return;
  AtomicFile file(outside.path);
  const std::string zeros(4096, '\0');
  uint64_t at = 0;
  for (const auto& [offset, tensor] : outside.tensors) {
    file.write(zeros.data(), offset - at);
    file.write(tensor.raw(), tensor.bytes());
    release_mapped_pages(tensor.raw(), tensor.bytes());
    at = offset + tensor.bytes();
  }
  file.commit();
}

template <class Sink>
void pour(const Skeleton& skeleton, const wire::Rope& rope, Sink sink) {
  for (const auto& piece : rope.pieces) {
    if (const auto* text = std::get_if<std::string>(&piece)) {
      sink(text->data(), text->size());
    } else {
      const Tensor& t = skeleton.blobs[std::get<uint64_t>(piece)].second;
      sink(reinterpret_cast<const char*>(t.raw()), t.bytes());
      release_mapped_pages(t.raw(), t.bytes());
    }
  }
}

}  // namespace

void write_model(const Model& model, const std::string& path, const ExportOptions& options) {
  Skeleton skeleton(model, options.sparse_initializers);
  wire::Rope rope = skeleton.rope();
  Outside outside;
  if (options.external_data || rope.bytes > options.largest_file) {
    outside = move_outside(skeleton, options.data_path.empty() ? path : options.data_path, options.smallest_external);
    rope = skeleton.rope();
  }
  if (rope.bytes > options.largest_file)
    throw Error(ErrorKind::Limit,
                "the model without its external data has " + std::to_string(rope.bytes) + " bytes, more than a file may have", path);
  AtomicFile file(path);
  write_outside(outside);
  pour(skeleton, rope, [&](const char* data, size_t bytes) { file.write(data, bytes); });
  file.commit();
}

std::string serialize_model(const Model& model) {
  const Skeleton skeleton(model);
  const wire::Rope rope = skeleton.rope();
  std::string bytes;
  bytes.reserve(rope.bytes);
  pour(skeleton, rope, [&](const char* data, size_t n) { bytes.append(data, n); });
  return bytes;
}

}  // namespace infopt
