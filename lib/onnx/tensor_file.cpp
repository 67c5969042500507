#include "lib/onnx/tensor_file.h"

#include "lib/base/atomic_file.h"
#include "lib/onnx/proto.h"
#include "lib/onnx/wire.h"
#include "onnx/onnx-data.pb.h"

namespace infopt {
namespace {

/// SequenceProto and OptionalProto have messages in field 3, where a tensor has its segment, and a name in field 1, where
/// a tensor has its dimensions.
bool is_sequence(std::string_view bytes) {
  wire::Reader reader(bytes);
  wire::Field f;
  bool parts = false, named = false, data = false;
  while (reader.next(f)) {
    parts = parts || (f.number == 3 && f.type == 2);
    named = named || (f.number == 1 && f.type == 2);
    data = data || (f.number >= 4 && f.number <= 11);
  }
  return parts || (named && !data);
}

}  // namespace

NamedTensor read_tensor_file(const std::string& path) {
  const auto file = MappedFile::open(path);
  TensorSource source{view_of(*file), file, folder_of(path)};
  try {
    if (source.bytes.empty()) throw Error(ErrorKind::Malformed, "is empty");
    if (is_sequence(source.bytes)) throw Error(ErrorKind::Unsupported, "isn't a tensor; sequences and optionals aren't supported");
    onnx::TensorProto proto;
    if (!proto.ParseFromString(wire::strip(wire::Message::Tensor, source.bytes, kInlineBytes)))
      throw Error(ErrorKind::Malformed, "isn't a tensor");
    return {proto.name(), decode_tensor(proto, source)};
  } catch (const Error& e) {
    throw e.within(path);
  }
}

void write_tensor_file(const std::string& path, const Tensor& tensor, const std::string& name) {
  onnx::TensorProto proto;
  proto.set_name(name);
  encode_header(tensor, &proto);
  const bool inside = tensor.dtype() == DType::String;
  if (inside) {
    proto.Clear();
    proto.set_name(name);
    encode_tensor(tensor, &proto);
  }
  std::string head = proto.SerializeAsString();
  if (!inside) {
    wire::put_varint(head, 9 << 3 | 2);
    wire::put_varint(head, tensor.bytes());
  }
  AtomicFile file(path);
  file.write(head);
  if (!inside) file.write(tensor.raw(), tensor.bytes());
  file.commit();
}

}  // namespace infopt
