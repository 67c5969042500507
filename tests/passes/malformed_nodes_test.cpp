#include "lib/base/error.h"
#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

TEST(Optimizations, SurviveNodesThatLackInputsOrOutputs) {
  for (const PassDef& pass : all_passes()) {
    if (pass.contract == Contract::Lossy || pass.needs_opset > 17) continue;
    for (const char* op : {"Identity", "Add", "Mul", "Div", "Conv", "Gemm", "MatMul", "BatchNormalization", "Transpose", "Reshape", "Expand", "Cast", "Pad", "MaxPool", "Clip", "Erf", "If", "Concat", "Shape", "Constant"}) {
      SCOPED_TRACE(pass.name + " of " + op);
      Model model = model_of("g (float[N] x) => (float[N] y) { a = Relu(x) y = Neg(a) }");
      {
        GraphEdit edit(*model.graph);
        edit.add_node({op}, {}, {});
        const ValueId made = edit.add_value("made");
        edit.add_node({op}, {kNone, kNone}, {made});
        edit.add_node({op}, {made, kNone}, {kNone});
        edit.add_node({op}, {made, made}, {});
        edit.add_node({"Mul"}, {kNone, made}, {edit.add_value("product")});
      }
      Options options;
      for (const OptionDef& o : pass.options) options.set(o.name, o.otherwise);
      Report report;
      const std::vector<GroupRule> none;
      try {
        run_pipeline(model, {{pass.name, options}}, {.profile = find_profile("ort-cpu"), .groups = none}, report);
      } catch (const Error& e) {
        EXPECT_NE(e.kind(), ErrorKind::Defect) << e.what();
      }
    }
  }
}

}  // namespace
}  // namespace infopt
