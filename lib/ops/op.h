// What infopt knows of an operator: where it lies in the standard, and its CPU kernel. One file an operator family:
// lib/ops/<stem>.cpp defines `std::vector<infopt::OpDef> op_<stem>()`, and CMake makes the table from the file names.
#pragma once
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/datum.h"
#include "lib/base/tensor.h"
#include "lib/ir/graph.h"

namespace infopt {

/// How the elements of a 3-, 4- or 5-D tensor lie in memory. The shape is always the logical one, N, C, spatial….
enum class Layout : uint8_t { Plain, ChannelsLast };

/// A value where it lies: a plain tensor in the device's memory, or what the host has, or both.
struct Placed {
  Tensor device = {};
  Datum host = {};
};

/// What a kernel sees while it runs. Inputs and outputs are those of the node.
class KernelContext {
 public:
  virtual ~KernelContext() = default;

  virtual size_t inputs() const = 0;
  virtual size_t outputs() const = 0;
  /// False where the optional input is left out.
  virtual bool has(size_t i) const = 0;
  /// The input in plain layout (converted if need be). Throws Error(Malformed) where it is left out.
  virtual const Tensor& in(size_t i) = 0;
  /// The input as it lies. For kernels that can work in any layout.
  virtual const Tensor& in_any(size_t i, Layout& layout) = 0;
  /// False where the input holds a sequence or an empty optional: `in` and `in_any` then throw Error(Malformed).
  virtual bool is_tensor(size_t i) const { return has(i); }
  /// The input, whatever it holds; a tensor in plain layout.
  virtual Datum datum(size_t i) { return in(i); }
  /// False where nobody needs the output: it may be left unset.
  virtual bool wanted(size_t i) const = 0;
  /// Makes output i: fresh memory, uninitialized.
  virtual Tensor& out(size_t i, DType dtype, Shape shape, Layout layout = Layout::Plain) = 0;
  /// Makes output i in input j's memory if nobody else needs that input and the bytes fit, else in fresh memory. The
  /// kernel must then not read input j's element after writing that element's place.
  virtual Tensor& out_reusing(size_t i, size_t j, DType dtype, Shape shape, Layout layout = Layout::Plain) = 0;
  /// Output i is this tensor: an input passed on or reshaped, or one that the kernel made.
  virtual void set(size_t i, Tensor tensor, Layout layout = Layout::Plain) = 0;
  /// Output i is this, tensor or not.
  virtual void set_datum(size_t i, Datum datum) { set(i, datum.tensor()); }
  /// Where the session has a device: its part in this run, else null. A kernel that is on_device() gets and makes tensors in the device's
  /// memory through the functions above; these two are for small tensors of the host: shapes, axes, sizes.
  virtual class DeviceRun* device() { return nullptr; }
  /// The input in the host's memory, plain (copied from the device if need be, which waits for it).
  virtual const Tensor& host(size_t i) { return in(i); }
  /// Output i is this tensor of the host's memory.
  virtual void set_host(size_t i, Tensor tensor) { set(i, std::move(tensor)); }
  /// Runs one of the node's bodies (numbered as Node::bodies() gives them) on its inputs, and returns its outputs.
  virtual std::vector<Datum> run_body(size_t body, std::vector<Datum> inputs) = 0;
  /// The same for a kernel that is on_device(): its bodies run there, and what they take and give stays where it is.
  virtual std::vector<Placed> run_body_placed(size_t body, std::vector<Placed> inputs);
  /// The input where it lies.
  virtual Placed placed(size_t i) { return {{}, datum(i)}; }
};

/// What a convolution or product does to its result before it stores it.
struct PostActivation {
  enum Kind { None, Clip, HardSwish, Gelu, GeluTanh, Silu } kind = None;  ///< HardSwish: convolutions only
  float low = 0, high = 0;
};

/// Values that are the same in every run, whether initializers or made by nodes.
class KnownValues {
 public:
  virtual ~KnownValues() = default;
  /// Null where the value isn't the same in every run. Stays valid while the plan is made.
  virtual const Tensor* constant(ValueId value) = 0;
};

/// What a kernel is made from. Valid only while it is being made; what it needs later it copies.
struct KernelSpec {
  const Graph& graph;
  const Node& node;
  int64_t opset;  ///< of the node's domain
  PostActivation post = {};
  KnownValues* known = nullptr;  ///< null: initializers alone
  /// The constant behind an input, null where it isn't constant.
  const Tensor* constant(size_t i) const { return known ? known->constant(node.input(i)) : graph.constant(node.input(i)); }
};

/// Whether a kernel makes item i (place i of the first axis) of its outputs from item i of its inputs, so that a batch may run in parts.
enum class ByItem {
  No,
  First,  ///< from input 0's; the inputs behind it are weights, if they are constants
  All     ///< from every input's, of one rank; constants may broadcast over the items
};

/// One node's kernel, shared by all threads that run the session: `run` is const, and what it caches it guards itself.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void run(KernelContext& context) const = 0;
  /// True where its tensors are in the memory of the session's device.
  virtual bool on_device() const { return false; }
  virtual ByItem by_item() const { return ByItem::No; }
  /// The algorithm, element types and layout, in a few words, for `inspect --plan`.
  virtual std::string describe() const { return {}; }
  /// The float32 function of one element that it applies to input 0 (lib/ops/elementwise.h), or null.
  virtual const struct FloatMap* as_map() const { return nullptr; }
  /// The operation on two broadcast operands that it is (lib/ops/broadcast.h), or null.
  virtual const struct BinaryOp* as_binary() const { return nullptr; }
};

/// A kernel of one function: most are.
using KernelFunction = std::function<void(KernelContext&)>;
std::unique_ptr<Kernel> make_kernel(KernelFunction function, ByItem by_item = ByItem::No);

struct OpDef {
  std::string name;
  std::string domain = {};
  int64_t since = 1, until = std::numeric_limits<int64_t>::max();  ///< opset versions that this kernel knows, inclusive
  /// Makes the kernel. Throws Error(Unsupported) with a reason where this node isn't one it can run.
  std::unique_ptr<Kernel> (*cpu)(const KernelSpec&) = nullptr;
  /// Same inputs, other elements every time (RandomNormal…), or an effect besides the outputs: never folded.
  bool nondeterministic = false;
  bool fuses_activation = false;  ///< its kernel obeys KernelSpec::post
};

/// All operators, by the table that CMake makes; the first definition that fits the version.
const OpDef* find_op(const std::string& domain, const std::string& name, int64_t opset);
const std::vector<OpDef>& all_ops();

}  // namespace infopt
