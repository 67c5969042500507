#include "lib/onnx/export.h"

#include <bit>
#include <cstdio>
#include <cstring>

#include "lib/base/atomic_file.h"
#include "lib/onnx/graph_writer.h"
#include "lib/onnx/wire.h"

namespace infopt {
namespace {

/// The model's message with its larger tensors left out, and those tensors beside it.
struct Skeleton {
  onnx::ModelProto proto;
  std::vector<std::pair<onnx::TensorProto*, Tensor>> blobs;

  explicit Skeleton(const Model& model) {
    ValueNames names(*model.graph);
    proto = make_model_proto(model, names, [this](const Tensor& t, onnx::TensorProto* out) {
      put_small(t, out);
      if (t.bytes() <= kInlineBytes) return;
      out->mutable_segment()->set_begin(static_cast<int64_t>(blobs.size()));
      blobs.emplace_back(out, t);
    });
  }

  wire::Rope rope() const {
    std::string bytes;
    guarded(ErrorKind::Limit, "the model without its weights is too large for protobuf", [&] {
      if (!proto.SerializeToString(&bytes)) throw Error(ErrorKind::Limit, "the model without its weights is larger than 2 GB");
    });
    return wire::expand(wire::Message::Model, bytes, [&](uint64_t blob) { return blobs[blob].second.bytes(); });
  }
};

/// 128 bits over a sequence of bytes, from two multiply-and-rotate lanes. For names, not for secrets.
class ContentHash {
 public:
  void add(const void* data, size_t bytes) {
    const auto* p = static_cast<const unsigned char*>(data);
    uint64_t word;
    for (; bytes >= 8; p += 8, bytes -= 8) {
      std::memcpy(&word, p, 8);
      mix(word);
    }
    word = 0;
    if (bytes) std::memcpy(&word, p, bytes);
    mix(word ^ (static_cast<uint64_t>(bytes) << 56));
  }
  std::string hex() {
    for (int i = 0; i < 4; ++i) mix(static_cast<uint64_t>(i));
    char text[33];
    std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(a_), static_cast<unsigned long long>(b_));
    return text;
  }

 private:
  void mix(uint64_t word) {
    a_ = std::rotl((a_ ^ word) * 0x9e3779b97f4a7c15u, 29) + b_;
    b_ = std::rotl((b_ + word) * 0xc2b2ae3d27d4eb4fu, 31) ^ a_;
  }
  uint64_t a_ = 0x243f6a8885a308d3u, b_ = 0x13198a2e03707344u;
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

/// Writes the tensors of at least `smallest` bytes to a file beside `path` and makes the skeleton refer to it.
void move_outside(Skeleton& skeleton, const std::string& path, uint64_t smallest) {
  ContentHash hash;
  bool any = false;
  for (const auto& [proto, tensor] : skeleton.blobs)
    if (tensor.bytes() >= smallest) hash.add(tensor.raw(), tensor.bytes()), any = true;
  if (!any) return;
  const std::string suffix = "." + hash.hex() + ".data";
  AtomicFile file(path + suffix);
  uint64_t offset = 0;
  const std::string zeros(4096, '\0');
  for (auto& [proto, tensor] : skeleton.blobs) {
    if (tensor.bytes() < smallest) continue;
    const uint64_t start = aligned(offset, tensor.bytes());
    file.write(zeros.data(), start - offset);
    file.write(tensor.raw(), tensor.bytes());
    offset = start + tensor.bytes();
    proto->clear_segment();
    proto->set_data_location(onnx::TensorProto::EXTERNAL);
    set_entry(proto, "location", file_name(path) + suffix);
    set_entry(proto, "offset", std::to_string(start));
    set_entry(proto, "length", std::to_string(tensor.bytes()));
  }
  file.commit();
}

template <class Sink> void pour(const Skeleton& skeleton, const wire::Rope& rope, Sink sink) {
  for (const auto& piece : rope.pieces) {
    if (const auto* text = std::get_if<std::string>(&piece)) {
      sink(text->data(), text->size());
    } else {
      const Tensor& t = skeleton.blobs[std::get<uint64_t>(piece)].second;
      sink(reinterpret_cast<const char*>(t.raw()), t.bytes());
    }
  }
}

}  // namespace

void write_model(const Model& model, const std::string& path, const ExportOptions& options) {
  Skeleton skeleton(model);
  wire::Rope rope = skeleton.rope();
  if (options.external_data || rope.bytes > options.largest_file) {
    move_outside(skeleton, path, options.smallest_external);
    rope = skeleton.rope();
  }
  if (rope.bytes > options.largest_file)
    throw Error(ErrorKind::Limit, "the model without its external data has " + std::to_string(rope.bytes) + " bytes, more than a file may have", path);
  AtomicFile file(path);
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
