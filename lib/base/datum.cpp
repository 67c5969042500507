#include "lib/base/datum.h"

#include "lib/base/error.h"

namespace infopt {

Datum Datum::sequence(Sequence sequence) {
  for (const Tensor& t : sequence.elements) {
    if (sequence.dtype == DType::Undefined) sequence.dtype = t.dtype();
    if (t.dtype() != sequence.dtype)
      throw Error(ErrorKind::Malformed, "a sequence of " + std::string(name_of(sequence.dtype)) + " can't hold " + std::string(name_of(t.dtype())));
  }
  Datum d;
  d.sequence_ = std::make_shared<const Sequence>(std::move(sequence));
  return d;
}

Datum Datum::nothing() {
  Datum d;
  d.nothing_ = true;
  return d;
}

const Tensor& Datum::tensor() const {
  if (!is_tensor()) throw Error(ErrorKind::Malformed, std::string("a tensor is needed, not ") + kind());
  return tensor_;
}

const Sequence& Datum::sequence() const {
  if (!is_sequence()) throw Error(ErrorKind::Malformed, std::string("a sequence is needed, not ") + kind());
  return *sequence_;
}

const char* Datum::kind() const { return is_tensor() ? "a tensor" : is_sequence() ? "a sequence" : is_nothing() ? "an empty optional" : "nothing"; }

}  // namespace infopt
