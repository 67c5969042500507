// Carries out what plan_int8 decided.
#pragma once
#include "passes/support/plan_int8.h"

namespace infopt {

void write_int8(GraphEdit& edit, Int8Plan& plan, PassContext& context, const Options& options);

}  // namespace infopt
