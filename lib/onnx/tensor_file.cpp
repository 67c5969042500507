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

/// A tensor that is a part of another message, whose bytes aren't walked: segments, which strip() refuses elsewhere, are refused here.
Tensor decode_part(const onnx::TensorProto& proto, TensorSource& source) {
  if (proto.has_segment()) throw Error(ErrorKind::Unsupported, "has a tensor in segments");
  return decode_tensor(proto, source);
}

Datum decode_sequence(const onnx::SequenceProto& proto, TensorSource& source) {
  if (proto.elem_type() != onnx::SequenceProto::TENSOR && proto.elem_type() != onnx::SequenceProto::UNDEFINED)
    throw Error(ErrorKind::Unsupported, "is a sequence of something other than tensors");
  Sequence s;
  for (const auto& t : proto.tensor_values()) s.elements.push_back(decode_part(t, source));
  return Datum::sequence(std::move(s));
}

Datum decode_optional(const onnx::OptionalProto& proto, TensorSource& source) {
  switch (proto.elem_type()) {
    case onnx::OptionalProto::UNDEFINED: return Datum::nothing();
    case onnx::OptionalProto::TENSOR: return proto.has_tensor_value() ? Datum(decode_part(proto.tensor_value(), source)) : Datum::nothing();
    case onnx::OptionalProto::SEQUENCE: return proto.has_sequence_value() ? decode_sequence(proto.sequence_value(), source) : Datum::nothing();
    default: throw Error(ErrorKind::Unsupported, "is an optional of something other than a tensor or a sequence");
  }
}

}  // namespace

Datum read_datum_file(const std::string& path, const Type& declared) {
  onnx::TypeProto type;
  if (declared.opaque.empty() || !type.ParseFromString(declared.opaque)) return read_tensor_file(path).tensor;
  const auto file = MappedFile::open(path);
  const std::string bytes(view_of(*file));
  TensorSource nowhere;
  try {
    if (type.has_sequence_type()) {
      onnx::SequenceProto proto;
      if (!proto.ParseFromString(bytes)) throw Error(ErrorKind::Malformed, "isn't a sequence");
      return decode_sequence(proto, nowhere);
    }
    if (type.has_optional_type()) {
      onnx::OptionalProto proto;
      if (!proto.ParseFromString(bytes)) throw Error(ErrorKind::Malformed, "isn't an optional");
      return decode_optional(proto, nowhere);
    }
    throw Error(ErrorKind::Unsupported, "is of a type that infopt doesn't read: neither tensor, sequence nor optional");
  } catch (const Error& e) {
    throw e.within(path);
  }
}

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
