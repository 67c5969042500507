#include "lib/onnx/proto.h"

#include <algorithm>

namespace infopt {

DType dtype_from_onnx(int32_t number) {
  if (number > 0 && number < kDTypeCount) return static_cast<DType>(number);
  if (number == onnx::TensorProto::FLOAT6E2M3 || number == onnx::TensorProto::FLOAT6E3M2)
    throw Error(ErrorKind::Unsupported, "6-bit floats (element type " + std::to_string(number) + ")");
  throw Error(ErrorKind::Malformed, "unknown element type " + std::to_string(number));
}

Type decode_type(const onnx::TypeProto& proto) {
  Type type;
  if (!proto.has_tensor_type()) {
    if (proto.value_case() != onnx::TypeProto::VALUE_NOT_SET) type.opaque = proto.SerializeAsString();
    return type;
  }
  const auto& tensor = proto.tensor_type();
  if (tensor.elem_type() != 0) type.dtype = dtype_from_onnx(tensor.elem_type());
  type.has_shape = tensor.has_shape();
  for (const auto& d : tensor.shape().dim()) {
    Dim dim;
    if (d.has_dim_value()) dim.size = d.dim_value() < 0 ? -1 : d.dim_value();
    if (d.has_dim_param()) dim.symbol = d.dim_param();
    type.shape.push_back(std::move(dim));
  }
  return type;
}

void encode_type(const Type& type, onnx::TypeProto* proto) {
  if (!type.opaque.empty()) {
    proto->ParseFromString(type.opaque);
    return;
  }
  if (type.dtype == DType::Undefined) return;
  auto* tensor = proto->mutable_tensor_type();
  tensor->set_elem_type(static_cast<int32_t>(type.dtype));
  if (!type.has_shape) return;
  auto* shape = tensor->mutable_shape();
  for (const Dim& d : type.shape) {
    auto* dim = shape->add_dim();
    if (d.size >= 0) dim->set_dim_value(d.size);
    else if (!d.symbol.empty()) dim->set_dim_param(d.symbol);
  }
}

void guarded(ErrorKind kind, const std::string& what, const std::function<void()>& work) {
  try {
    work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Error(ErrorKind::Limit, what + ": out of memory");
  } catch (const std::exception& e) {
    std::string text = e.what();
    std::replace(text.begin(), text.end(), '\n', ' ');
    while (!text.empty() && text.back() == ' ') text.pop_back();
    throw Error(kind, what + ": " + text);
  }
}

}  // namespace infopt
