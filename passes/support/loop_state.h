// State that a Loop or a Scan carries and never changes: exports of recurrent nets pass their weights so.
#pragma once
#include "lib/ir/edit.h"

namespace infopt {

/// Before: a Loop or Scan hands v to its body as state, and the body hands it back as it got it.
/// After: the body reads v as a value of the graph around it, and who read the final state reads v. Graph by graph: call it for each.
void hoist_constant_state(GraphEdit& edit);

}  // namespace infopt
