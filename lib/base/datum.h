// What a value holds while a model runs: a tensor, a sequence of tensors, or, where an optional is empty, nothing.
#pragma once
#include <memory>
#include <vector>

#include "lib/base/tensor.h"

namespace infopt {

struct Sequence {
  DType dtype = DType::Undefined;  ///< of its tensors; Undefined where it is empty and nothing said
  std::vector<Tensor> elements;
};

/// An optional that holds something is that something. Copies share their memory. Undefined until it is given something.
class Datum {
 public:
  Datum() = default;
  Datum(Tensor tensor) : tensor_(std::move(tensor)) {}  // NOLINT: a tensor is a datum
  /// Throws Error(Malformed) where the tensors differ in type.
  static Datum sequence(Sequence sequence);
  static Datum nothing();

  bool is_tensor() const { return tensor_.defined(); }
  bool is_sequence() const { return sequence_ != nullptr; }
  bool is_nothing() const { return nothing_; }
  bool defined() const { return is_tensor() || is_sequence() || is_nothing(); }
  /// Throw Error(Malformed) where it is something else.
  const Tensor& tensor() const;
  const Sequence& sequence() const;
  const char* kind() const;  ///< "a tensor", "a sequence", "an empty optional"

 private:
  Tensor tensor_;
  std::shared_ptr<const Sequence> sequence_;
  bool nothing_ = false;
};

}  // namespace infopt
