// NaN and Inf in tensors.
#pragma once
#include <string>

#include "lib/base/tensor.h"

namespace infopt {

/// Index of the first element that is NaN or infinite; -1 where there is none. Integer, bool and string tensors have none.
int64_t first_nonfinite(const Tensor& t);
/// Throws Error(Malformed) with `where` and "holds NaN at [0,3,2]" for the first such element.
void check_finite(const Tensor& t, const std::string& where);

}  // namespace infopt
