// What is known of a value, as text.
#pragma once
#include <string>

#include "lib/ir/graph.h"

namespace infopt {

std::string to_string(const Type& type);  ///< "float32[1,n,?]"

}  // namespace infopt
