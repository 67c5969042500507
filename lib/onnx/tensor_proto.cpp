#include <algorithm>
#include <charconv>
#include <cstring>

#include "lib/onnx/proto.h"

namespace infopt {
namespace {

using onnx::TensorProto;

[[noreturn]] void misfit(DType dtype, const Shape& shape, const std::string& has) {
  throw Error(ErrorKind::Malformed, "has " + has + ", which doesn't fit " + std::string(name_of(dtype)) + to_string(shape));
}

size_t alignment_of(DType dtype) {
  const size_t bytes = bits_of(dtype) / 8;
  return dtype == DType::C64 ? 4 : bytes < 1 ? 1 : bytes > 8 ? 8 : bytes;
}

/// Bytes that may lie in the file. A bool must be 0 or 1 to be read as one.
Tensor view(DType dtype, const Shape& shape, std::string_view bytes, const std::shared_ptr<const void>& keep) {
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.data()) % alignment_of(dtype) == 0;
  const bool clean = dtype != DType::Bool || std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0 || c == 1; });
  if (clean && keep) return aligned ? Tensor(dtype, shape, keep, bytes.data()) : Tensor::unaligned(dtype, shape, keep, bytes.data());
  Tensor t(dtype, shape);
  if (!bytes.empty()) std::memcpy(t.mutable_raw(), bytes.data(), bytes.size());
  if (!clean)
    for (size_t i = 0; i < bytes.size(); ++i) t.mutable_raw()[i] = std::byte{bytes[i] != 0};
  release_mapped_pages(bytes.data(), bytes.size());
  return t;
}

int64_t number(const std::string& text, const char* what) {
  int64_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status != std::errc() || end != text.data() + text.size() || value < 0)
    throw Error(ErrorKind::Malformed, std::string("external data's ") + what + " '" + text + "' is no size");
  return value;
}

Tensor decode_external(const TensorProto& proto, DType dtype, const Shape& shape, TensorSource& source) {
  std::string location;
  uint64_t offset = 0, length = 0;
  bool has_length = false;
  for (const auto& entry : proto.external_data()) {
    if (entry.key() == "location") location = entry.value();
    if (entry.key() == "offset") offset = static_cast<uint64_t>(number(entry.value(), "offset"));
    if (entry.key() == "length") length = static_cast<uint64_t>(number(entry.value(), "length")), has_length = true;
  }
  const uint64_t need = bytes_of(dtype, element_count(shape));
  if (dtype == DType::String) throw Error(ErrorKind::Malformed, "strings can't be external data");
  const auto file = source.open_external(location);
  if (has_length && length != need) misfit(dtype, shape, std::to_string(length) + " bytes of external data");
  const std::string_view all = view_of(*file);
  if (offset > all.size() || need > all.size() - offset)
    throw Error(ErrorKind::Malformed, "external data at byte " + std::to_string(offset) + ", " + std::to_string(need) +
                                          " bytes, isn't within '" + location + "' of " + std::to_string(all.size()) + " bytes");
  return view(dtype, shape, all.substr(offset, need), file);
}

template <class T, class Field>
Tensor copied(DType dtype, const Shape& shape, const Field& field, int64_t per_element = 1) {
  if (field.size() % per_element != 0 || field.size() / per_element != element_count(shape))
    misfit(dtype, shape, std::to_string(field.size()) + " numbers");
  Tensor t(dtype, shape);
  T* out = reinterpret_cast<T*>(t.mutable_raw());
  std::copy(field.begin(), field.end(), out);
  return t;
}

/// int32_data holds all types up to 32 bits: one element a number from 8 bits on, one byte a number below.
Tensor from_int32_data(const TensorProto& proto, DType dtype, const Shape& shape) {
  const size_t bits = std::max<size_t>(bits_of(dtype), 8), width = bits / 8;
  Tensor t(dtype, shape);
  if (static_cast<size_t>(proto.int32_data_size()) != t.bytes() / width)
    misfit(dtype, shape, std::to_string(proto.int32_data_size()) + " numbers");
  std::byte* out = t.mutable_raw();
  const int64_t low = -(int64_t{1} << (bits - 1)), high = int64_t{1} << bits;
  for (int32_t v : proto.int32_data()) {
    if (v < low || v >= high)
      throw Error(ErrorKind::Malformed, "holds " + std::to_string(v) + ", which " + std::string(name_of(dtype)) + " can't");
    if (dtype == DType::Bool) v = v != 0;
    std::memcpy(out, &v, width);  // little-endian, like every machine infopt is built for
    out += width;
  }
  return t;
}

Tensor from_typed_data(const TensorProto& proto, DType dtype, const Shape& shape) {
  switch (dtype) {
    case DType::F32: return copied<float>(dtype, shape, proto.float_data());
    case DType::C64: return copied<float>(dtype, shape, proto.float_data(), 2);
    case DType::F64: return copied<double>(dtype, shape, proto.double_data());
    case DType::C128: return copied<double>(dtype, shape, proto.double_data(), 2);
    case DType::I64: return copied<int64_t>(dtype, shape, proto.int64_data());
    case DType::U64: return copied<uint64_t>(dtype, shape, proto.uint64_data());
    case DType::U32:
      if (std::any_of(proto.uint64_data().begin(), proto.uint64_data().end(), [](uint64_t v) { return v >> 32 != 0; }))
        throw Error(ErrorKind::Malformed, "holds a number that uint32 can't");
      return copied<uint32_t>(dtype, shape, proto.uint64_data());
    case DType::String: {
      if (proto.string_data_size() != element_count(shape)) misfit(dtype, shape, std::to_string(proto.string_data_size()) + " strings");
      Tensor t(dtype, shape);
      std::copy(proto.string_data().begin(), proto.string_data().end(), t.mutable_strings().begin());
      return t;
    }
    default: return from_int32_data(proto, dtype, shape);
  }
}

/// Before memory is asked for: no shape may want more elements than the message has numbers.
void check_count(const TensorProto& proto, DType dtype, const Shape& shape) {
  const uint64_t numbers = static_cast<uint64_t>(proto.float_data_size()) + static_cast<uint64_t>(proto.int32_data_size()) +
                           static_cast<uint64_t>(proto.string_data_size()) + static_cast<uint64_t>(proto.int64_data_size()) +
                           static_cast<uint64_t>(proto.double_data_size()) + static_cast<uint64_t>(proto.uint64_data_size());
  const uint64_t per_number = bits_of(dtype) > 0 && bits_of(dtype) < 8 ? 8 / bits_of(dtype) : 1;
  if (static_cast<uint64_t>(element_count(shape)) > numbers * per_number) misfit(dtype, shape, std::to_string(numbers) + " numbers");
}

}  // namespace

Tensor decode_tensor(const TensorProto& proto, TensorSource& source) {
  const DType dtype = dtype_from_onnx(proto.data_type());
  const Shape shape(proto.dims().begin(), proto.dims().end());
  const uint64_t need = bytes_of(dtype, element_count(shape));
  if (proto.data_location() == TensorProto::EXTERNAL) return decode_external(proto, dtype, shape, source);
  if (!proto.has_segment() && !proto.has_raw_data()) {
    check_count(proto, dtype, shape);
    return from_typed_data(proto, dtype, shape);
  }
  if (dtype == DType::String) throw Error(ErrorKind::Malformed, "strings can't be raw data");
  std::string_view bytes = proto.raw_data();
  const bool inside = proto.has_segment();
  if (inside)
    bytes = source.bytes.substr(static_cast<size_t>(proto.segment().begin()),
                                static_cast<size_t>(proto.segment().end() - proto.segment().begin()));
  if (bytes.size() != need) misfit(dtype, shape, std::to_string(bytes.size()) + " bytes");
  return view(dtype, shape, bytes, inside ? source.keep : nullptr);
}

void encode_header(const Tensor& tensor, TensorProto* proto) {
  for (int64_t d : tensor.shape()) proto->add_dims(d);
  proto->set_data_type(static_cast<int32_t>(tensor.dtype()));
}

void encode_tensor(const Tensor& tensor, TensorProto* proto) {
  encode_header(tensor, proto);
  if (tensor.dtype() == DType::String)
    for (const std::string& s : tensor.strings()) proto->add_string_data(s);
  else proto->set_raw_data(tensor.raw(), tensor.bytes());
}

}  // namespace infopt
