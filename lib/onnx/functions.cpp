#include "lib/onnx/functions.h"

#include <map>
#include <string>

#include "lib/base/error.h"
#include "lib/onnx/proto.h"
#include "onnx/inliner/inliner.h"

namespace infopt {
namespace {

constexpr int64_t kMaxNodes = 1000000;

/// Counts the nodes that remain once every call is inlined.
class Sizes {
 public:
  explicit Sizes(const onnx::ModelProto& model) {
    for (const auto& f : model.functions()) functions_[key(f.domain(), f.name(), f.overload())].function = &f;
  }

  template <class Nodes> int64_t of(const Nodes& nodes) {
    int64_t total = 0;
    for (const onnx::NodeProto& n : nodes) {
      total += of_call(n);
      for (const auto& a : n.attribute()) {
        total += of(a.g().node());
        for (const auto& g : a.graphs()) total += of(g.node());
      }
      if (total > kMaxNodes) throw Error(ErrorKind::Limit, "with its functions inlined the model has more than a million nodes");
    }
    return total;
  }

 private:
  struct Entry {
    const onnx::FunctionProto* function = nullptr;
    int64_t nodes = 0;
    bool open = false, known = false;
  };

  static std::string key(const std::string& domain, const std::string& name, const std::string& overload) {
    return canonical_domain(domain) + '\0' + name + '\0' + overload;
  }

  int64_t of_call(const onnx::NodeProto& n) {
    const auto it = functions_.find(key(n.domain(), n.op_type(), n.overload()));
    if (it == functions_.end()) return 1;
    Entry& entry = it->second;
    if (entry.open) throw Error(ErrorKind::Malformed, "the function '" + n.op_type() + "' calls itself");
    if (!entry.known) {
      entry.open = true;
      entry.nodes = of(entry.function->node());
      entry.open = false;
      entry.known = true;
    }
    return entry.nodes;
  }

  std::map<std::string, Entry> functions_;
};

}  // namespace

void inline_functions(onnx::ModelProto& model) {
  if (model.functions_size() == 0) return;
  Sizes(model).of(model.graph().node());
  guarded(ErrorKind::Unsupported, "the model's functions can't be inlined", [&] { onnx::inliner::InlineLocalFunctions(model, true); });
}

}  // namespace infopt
