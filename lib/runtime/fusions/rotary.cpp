// Rotary embedding as exporters write it, in one pass over the rows of x; cos and sin broadcast to x:
//   x·cos + Concat(−x₂, x₁)·sin                              with x₁, x₂ the halves of x's last axis, by Slice or Split
//   x·cos + Reshape(Concat(Unsqueeze(−x₂), Unsqueeze(x₁)))·sin   with x₁, x₂ its even and odd elements
//   Concat(x₁·cos − x₂·sin, x₂·cos + x₁·sin)                 and the same of even and odd elements with Unsqueeze and Reshape
// A Transpose before x becomes strides. The bits are those of the single operators.
#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/base/vector_math.h"
#include "lib/ops/broadcast.h"
#include "lib/runtime/fusions/axes.h"
#include "lib/runtime/fusions/rules.h"
#include "lib/runtime/fusions/value_facts.h"

namespace infopt {
namespace {

constexpr int64_t kToTheEnd = 0x7fffffff;  // as a Slice's end, from here on

/// Where the last axis is cut in two.
struct Cut {
  enum Kind { Floor, Ceil, At } kind = Floor;  ///< in the middle, rounded, or at `first`
  int64_t first = 0;
  int64_t whole = -1;  ///< what the axis is at most as long as; −1: anything
  bool exact = false;  ///< it must be as long as that
};

/// x₁ (index 0) or x₂ (1).
struct Part {
  ValueId x = kNone;
  size_t index = 0;
  bool pairs = false;  ///< even and odd elements, not halves
  Cut cut = {};
  const Node* node = nullptr;
};

struct Rotation {
  ValueId x = kNone, cos = kNone, sin = kNone;
  bool pairs = false, full = false;  ///< full: cos and sin are as long as x's rows, else half as long
  Cut cut = {};
  std::vector<int64_t> perm = {};
  std::vector<const Node*> covers = {};
};

/// The one integer of a constant.
std::optional<int64_t> integer(PlanView& view, ValueId value) {
  const Tensor* t = value == kNone ? nullptr : view.constant(value);
  if (!t || !is_integer(t->dtype()) || t->size() != 1) return std::nullopt;
  return to_vector<int64_t>(*t)[0];
}

class Matcher {
 public:
  explicit Matcher(PlanView& view) : view_(view) {}

  std::optional<Rotation> match(const Node& last) {
    if (!(is_binary(&last, "Add") ? match_sum(last) : match_joined(last)) || !is_float32(view_, r_.x)) return std::nullopt;
    peel();
    r_.covers.erase(std::remove(r_.covers.begin(), r_.covers.end(), &last), r_.covers.end());
    return r_;
  }

 private:
  /// The value's maker, where nobody else reads it; covered from now on.
  const Node* step(ValueId value, const char* op) {
    const Node* node = view_.constant(value) ? nullptr : view_.only_for_one(value);
    if (!node || !node->is(op)) return nullptr;
    r_.covers.push_back(node);
    return node;
  }

  /// x·cos + turned(x)·sin.
  bool match_sum(const Node& add) {
    for (const size_t straight : {0u, 1u})
      for (const size_t turned : {0u, 1u}) {
        r_ = {};
        const Node *a = step(add.input(straight), "Mul"), *b = step(add.input(1 - straight), "Mul");
        if (!is_binary(a, "Mul") || !is_binary(b, "Mul")) return false;
        if (!match_turned(b->input(turned)) || (a->input(0) != r_.x && a->input(1) != r_.x)) continue;
        r_.full = true;
        r_.cos = other_input(*a, a->input(0) == r_.x ? 0 : 1);
        r_.sin = other_input(*b, turned);
        return true;
      }
    return false;
  }

  /// (−x₂, x₁) put together.
  bool match_turned(ValueId value) {
    ValueId first, second;
    const Node* node = view_.only_for_one(value);
    if (!node || !operands_of_joined(*node, first, second)) return false;
    const Node* negated = step(first, "Neg");
    if (!negated) return false;
    const std::optional<Part> high = part(negated->input(0)), low = part(second);
    return fits(low, high) && check_axes();
  }

  /// (x₁·cos − x₂·sin, x₂·cos + x₁·sin) put together.
  bool match_joined(const Node& last) {
    ValueId first, second;
    r_ = {};
    if (!operands_of_joined(last, first, second)) return false;
    const Node *real = step(first, "Sub"), *imaginary = step(second, "Add");
    if (!is_binary(real, "Sub") || !is_binary(imaginary, "Add")) return false;
    const Rotation before = r_;
    for (const bool swapped : {false, true}) {
      const Node* muls[] = {step(real->input(0), "Mul"), step(real->input(1), "Mul"), step(imaginary->input(swapped ? 1 : 0), "Mul"), step(imaginary->input(swapped ? 0 : 1), "Mul")};
      if (!std::all_of(std::begin(muls), std::end(muls), [](const Node* n) { return is_binary(n, "Mul"); })) return false;
      // x₁·cos, x₂·sin, x₂·cos, x₁·sin
      for (const size_t i : {0u, 1u}) {
        const ValueId x1 = muls[0]->input(i), cos = other_input(*muls[0], i);
        for (const size_t j : {0u, 1u}) {
          const ValueId x2 = muls[1]->input(j), sin = other_input(*muls[1], j);
          if (!multiplies(*muls[2], x2, cos) || !multiplies(*muls[3], x1, sin)) continue;
          if (!fits(part(x1), part(x2)) || !check_axes()) continue;
          r_.cos = cos, r_.sin = sin;
          return true;
        }
      }
      r_ = before;
    }
    return false;
  }

  static bool multiplies(const Node& mul, ValueId a, ValueId b) { return (mul.input(0) == a && mul.input(1) == b) || (mul.input(0) == b && mul.input(1) == a); }

  /// The two that a Concat over the last axis joins: halves; or that Unsqueeze, Concat and Reshape interleave: pairs.
  bool operands_of_joined(const Node& node, ValueId& first, ValueId& second) {
    const Node* concat = &node;
    r_.covers.push_back(&node);
    r_.pairs = node.is("Reshape");
    shape_ = kNone;
    last_axes_.clear();
    if (r_.pairs) {
      if (node.i("allowzero", 0) != 0) return false;
      shape_ = node.input(1);
      concat = step(node.input(0), "Concat");
    }
    if (!concat || !concat->is("Concat") || concat->inputs.size() != 2) return false;
    first = concat->input(0), second = concat->input(1);
    // Unsqueeze's axis counts in the rank that it makes.
    last_axes_.push_back({concat->i("axis", 0), r_.pairs});
    if (!r_.pairs) return true;
    for (ValueId* v : {&first, &second}) {
      const Node* unsqueeze = step(*v, "Unsqueeze");
      if (!unsqueeze) return false;
      const std::vector<int64_t> given = unsqueeze->ints("axes");
      const std::optional<int64_t> axis = given.size() == 1 ? given[0] : integer(view_, unsqueeze->input(1));
      if (!axis) return false;
      last_axes_.push_back({*axis, true});
      *v = unsqueeze->input(0);
    }
    return true;
  }

  bool fits(const std::optional<Part>& low, const std::optional<Part>& high) {
    if (!low || !high || low->x != high->x || low->index != 0 || high->index != 1 || low->pairs != r_.pairs || high->pairs != r_.pairs) return false;
    if (low->cut.kind != high->cut.kind || low->cut.first != high->cut.first) return false;
    if (low->cut.whole >= 0 && high->cut.whole >= 0 && low->cut.whole != high->cut.whole) return false;
    r_.x = low->x;
    r_.cut = low->cut.whole >= 0 ? low->cut : high->cut;
    r_.covers.insert(r_.covers.end(), {low->node, high->node});
    return true;
  }

  bool is_last(int64_t axis, int64_t rank) const { return axis == -1 || (rank > 0 && axis == rank - 1); }

  /// What was joined was joined along x's last axis, and brought back to x's shape.
  bool check_axes() {
    const int64_t rank = rank_of(view_, r_.x);
    for (const auto& [axis, more] : last_axes_)
      if (!is_last(axis, rank > 0 && more ? rank + 1 : rank)) return false;
    return !r_.pairs || is_shape_of_x(shape_, rank);
  }

  /// The value holds x's shape, or says it with zeros; one size may be −1 or any number, as then only x's own fits the number of elements.
  bool is_shape_of_x(ValueId value, int64_t rank) const {
    if (const Node* node = view_.producer(value); node && node->is("Shape") && node->input(0) == r_.x && !node->find("start") && !node->find("end")) return true;
    if (rank < 1) return false;
    int64_t open = 0;
    const auto dimension = [&](int64_t axis, std::optional<int64_t> known, ValueId dim) {
      if (known == 0) return axis + 1 < rank;  // what is reshaped has other axes at the end
      if (known) return (*known > 0 && declared(axis) == *known) || ++open == 1;
      return is_dimension(dim, axis, rank);
    };
    if (const Tensor* t = view_.constant(value)) {
      if (!is_integer(t->dtype()) || t->size() != rank) return false;
      const std::vector<int64_t> sizes = to_vector<int64_t>(*t);
      for (int64_t i = 0; i < rank; ++i)
        if (!dimension(i, sizes[static_cast<size_t>(i)], kNone)) return false;
      return true;
    }
    const Node* concat = view_.producer(value);
    if (!concat || !concat->is("Concat") || static_cast<int64_t>(concat->inputs.size()) != rank) return false;
    for (int64_t i = 0; i < rank; ++i) {
      const ValueId dim = concat->inputs[static_cast<size_t>(i)];
      if (!dimension(i, integer(view_, dim), dim)) return false;
    }
    return true;
  }

  int64_t declared(int64_t axis) const {
    const Type& type = view_.graph().value(r_.x).type;
    return type.has_shape && axis < static_cast<int64_t>(type.shape.size()) ? type.shape[static_cast<size_t>(axis)].size : -1;
  }

  /// x's axis is so long, by Shape and Gather.
  bool is_dimension(ValueId value, int64_t axis, int64_t rank) const { return is_dimension_of(value, r_.x, axis, rank); }
  bool is_dimension_of(ValueId value, ValueId x, int64_t axis, int64_t rank) const {
    const Node* node = bare(value);
    if (node && node->is("Gather")) {
      const Node* shape = view_.producer(node->input(0));
      const std::optional<int64_t> index = integer(view_, node->input(1));
      if (!shape || !shape->is("Shape") || shape->input(0) != x || shape->find("start") || shape->find("end") || !index) return false;
      return *index == axis || (*index < 0 && rank > 0 && *index + rank == axis) || (*index == -1 && axis == -1);
    }
    return node && node->is("Shape") && node->input(0) == x && axis == -1 && node->i("start", 0) == -1 && !node->find("end");
  }
  /// The maker of the number, past what only changes its type or shape.
  const Node* bare(ValueId value) const {
    const Node* node = view_.producer(value);
    for (int depth = 0; node && depth < 8; ++depth) {
      if (!node->is("Unsqueeze") && !node->is("Squeeze") && !node->is("Cast") && !node->is("Identity") && !node->is("Floor")) break;
      if (node->is("Cast") && !is_integer(static_cast<DType>(node->i("to", 0)))) return nullptr;
      node = view_.producer(node->input(0));
    }
    return node;
  }
  bool is_length(ValueId value, ValueId x) const {
    const int64_t rank = rank_of(view_, x);
    return is_dimension_of(value, x, -1, rank) || (rank > 0 && is_dimension_of(value, x, rank - 1, rank));
  }
  bool is_half_length(ValueId value, ValueId x) const {
    const Node* div = bare(value);
    return is_binary(div, "Div") && integer(view_, div->input(1)) == 2 && is_length(div->input(0), x);
  }

  std::optional<Part> part(ValueId value) const {
    const Node* node = view_.constant(value) ? nullptr : view_.producer(value);
    if (!node || node->inputs.empty()) return std::nullopt;
    Part p{.x = node->input(0), .node = node};
    if (node->is("Split")) return part_of_split(*node, value, p);
    if (!node->is("Slice") || node->input(1) == kNone) return std::nullopt;
    const std::optional<int64_t> start = integer(view_, node->input(1)), end = integer(view_, node->input(2)), axis = integer(view_, node->input(3));
    const std::optional<int64_t> stride = node->input(4) == kNone ? 1 : integer(view_, node->input(4));
    if (!axis || !is_last(*axis, rank_of(view_, p.x)) || !stride) return std::nullopt;
    const auto reaches_end = [&] {
      if (end && *end > 0 && *end < kToTheEnd) p.cut.whole = *end;
      return end ? *end > 0 : is_length(node->input(2), p.x);
    };
    if (*stride == 2) {
      p.pairs = true;
      if (!start || (*start != 0 && *start != 1) || !reaches_end()) return std::nullopt;
      p.index = static_cast<size_t>(*start);
      return p;
    }
    if (*stride != 1) return std::nullopt;
    p.index = start == 0 ? 0 : 1;
    const ValueId at = node->input(p.index == 0 ? 2 : 1);
    const std::optional<int64_t> first = p.index == 0 ? end : start;
    if (first && *first > 0) p.cut.kind = Cut::At, p.cut.first = *first;
    else if (first || !is_half_length(at, p.x)) return std::nullopt;
    if (p.index == 1 && !reaches_end()) return std::nullopt;
    return p;
  }

  std::optional<Part> part_of_split(const Node& node, ValueId value, Part p) const {
    if (node.outputs.size() != 2 || !is_last(node.i("axis", 0), rank_of(view_, p.x))) return std::nullopt;
    p.index = node.outputs[0] == value ? 0 : 1;
    p.cut.kind = Cut::Ceil;
    std::vector<int64_t> sizes = node.ints("split");
    if (node.input(1) != kNone) {
      const Tensor* t = view_.constant(node.input(1));
      if (!t || t->dtype() != DType::I64) return std::nullopt;
      sizes = to_vector<int64_t>(*t);
    } else if (sizes.empty()) {
      return p;
    }
    if (sizes.size() != 2 || sizes[0] < 1 || sizes[1] < 1) return std::nullopt;
    p.cut = {Cut::At, sizes[0], sizes[0] + sizes[1], true};
    return p;
  }

  /// Transposes before x that leave its last axis in its place.
  void peel() {
    const Node* node = view_.producer(r_.x);
    if (view_.constant(r_.x) || !node || !node->is("Transpose") || !node->find("perm")) return;
    const std::vector<int64_t> perm = node->ints("perm");
    const int64_t rank = static_cast<int64_t>(perm.size());
    std::vector<bool> seen(perm.size());
    for (int64_t p : perm) {
      if (p < 0 || p >= rank || seen[static_cast<size_t>(p)]) return;
      seen[static_cast<size_t>(p)] = true;
    }
    if (rank < 2 || perm.back() != rank - 1) return;
    if (view_.hidden(r_.x)) r_.covers.push_back(node);
    r_.perm = perm;
    r_.x = node->input(0);
  }

  PlanView& view_;
  Rotation r_;
  ValueId shape_ = kNone;
  std::vector<std::pair<int64_t, bool>> last_axes_;  ///< each must be the last: of x's axes, or of one more
};

/// Goes through the rows of a shape, with each operand's place.
class Rows {
 public:
  Rows(const Shape& sizes, std::vector<Shape> strides, int64_t at) : sizes_(sizes), strides_(std::move(strides)), index_(sizes.size()), place_(strides_.size()) {
    for (size_t d = sizes.size(); d-- > 0; at /= sizes[d]) {
      index_[d] = at % sizes[d];
      for (size_t k = 0; k < place_.size(); ++k) place_[k] += index_[d] * strides_[k][d];
    }
  }
  int64_t place(size_t operand) const { return place_[operand]; }
  void next() {
    for (size_t d = sizes_.size(); d-- > 0;) {
      const bool more = ++index_[d] < sizes_[d];
      for (size_t k = 0; k < place_.size(); ++k) place_[k] += more ? strides_[k][d] : -(sizes_[d] - 1) * strides_[k][d];
      if (more) return;
      index_[d] = 0;
    }
  }

 private:
  const Shape& sizes_;
  std::vector<Shape> strides_;
  Shape index_, place_;
};

class RotaryKernel : public Kernel {
 public:
  explicit RotaryKernel(const Rotation& r) : cut_(r.cut), pairs_(r.pairs), full_(r.full), perm_(r.perm) {}

  /// Inputs: x, cos, sin.
  void run(KernelContext& context) const override {
    const Tensor& x = floats(context, 0);
    Axes xs(x, perm_);
    if (xs.sizes.empty()) throw Error(ErrorKind::Malformed, "a rotation of one number");
    const int64_t n = xs.sizes.back(), half = first_of(n), width = full_ ? n : n / 2;
    if (cut_.whole >= 0 && (n > cut_.whole || (cut_.exact && n != cut_.whole)))
      throw Error(ErrorKind::Malformed, "a rotation of " + std::to_string(cut_.whole) + " elements where there are " + std::to_string(n));
    if ((pairs_ || !full_) && 2 * half != n) throw Error(ErrorKind::Malformed, "a rotation of " + std::to_string(n) + " elements by pairs");
    Tensor cos = floats(context, 1), sin = floats(context, 2);
    Shape lead(xs.sizes.begin(), xs.sizes.end() - 1);
    std::vector<Shape> strides{Shape(xs.strides.begin(), xs.strides.end() - 1)};
    for (Tensor* t : {&cos, &sin}) {
      const Axes axes = with_rows(*t, width);
      lead = broadcast_shape(lead, Shape(axes.sizes.begin(), axes.sizes.end() - 1));
      strides.push_back(Shape(axes.strides.begin(), axes.strides.end() - 1));
    }
    for (Shape& s : strides) s.insert(s.begin(), lead.size() - s.size(), 0);
    Shape shape = lead;
    shape.push_back(n);
    // In place where rows lie as the result's do and each is read once.
    const bool same = perm_.empty() && shape == x.shape() && 2 * half == n;
    Tensor& y = same ? context.out_reusing(0, 0, DType::F32, shape) : context.out(0, DType::F32, shape);
    const float *from = x.data<float>(), *c = cos.data<float>(), *s = sin.data<float>();
    float* to = y.mutable_data<float>();
    constexpr int64_t kLeastElements = 1 << 14;
    share_work(n == 0 ? 0 : y.size() / n, std::max<int64_t>(1, kLeastElements / std::max<int64_t>(n, 1)), [&](int64_t begin, int64_t end) {
      Rows rows(lead, strides, begin);
      for (int64_t r = begin; r < end; ++r, rows.next()) rotate(from + rows.place(0), to + r * n, c + rows.place(1), s + rows.place(2), n, half);
    });
  }

  std::string describe() const override { return pairs_ ? "float32 rotation of neighbours" : "float32 rotation of halves"; }

 private:
  static const Tensor& floats(KernelContext& context, size_t i) {
    const Tensor& t = context.in(i);
    if (t.dtype() != DType::F32) throw Error(ErrorKind::Malformed, "a rotation of " + std::string(name_of(t.dtype())) + " with float32");
    return t;
  }

  int64_t first_of(int64_t n) const { return pairs_ ? n / 2 : cut_.kind == Cut::At ? std::min(cut_.first, n) : cut_.kind == Cut::Ceil ? (n + 1) / 2 : n / 2; }

  /// cos or sin with rows of `width`, which one number is repeated to.
  static Axes with_rows(Tensor& t, int64_t width) {
    if (t.rank() == 0) t = t.reshaped({1});
    const int64_t own = t.dim(-1);
    if (own != 1 && own != width) throw Error(ErrorKind::Malformed, "shapes " + to_string(t.shape()) + " for a rotation by rows of " + std::to_string(width));
    Axes axes(t, {});
    if (own == width) return axes;
    Shape full = axes.sizes;
    full.back() = width;
    t = gather_strided(t, full, 0, axes.strides);
    return Axes(t, {});
  }

  void rotate(const float* x, float* y, const float* cos, const float* sin, int64_t n, int64_t half) const {
    if (pairs_) return full_ ? rotate_neighbours(x, y, half, cos, sin) : rotate_pairs(x, y, half, cos, sin);
    if (2 * half == n) return full_ ? rotate_halves(x, y, half, cos, sin, cos + half, sin + half) : rotate_halves(x, y, half, cos, sin, cos, sin);
    const int64_t rest = n - half;
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] * cos[i] + (i < rest ? -x[half + i] : x[i - rest]) * sin[i];
  }

  Cut cut_;
  bool pairs_, full_;
  std::vector<int64_t> perm_;
};

}  // namespace

std::optional<FusedStep> fuse_rotary(PlanView& view, const Node& node) {
  if (!node.is("Add") && !node.is("Concat") && !node.is("Reshape")) return std::nullopt;
  const std::optional<Rotation> r = Matcher(view).match(node);
  if (!r) return std::nullopt;
  FusedStep step;
  step.inputs = {r->x, r->cos, r->sin};
  for (const Node* covered : r->covers) step.covers.push_back(covered->id);
  step.kernel = std::make_unique<RotaryKernel>(*r);
  return step;
}

}  // namespace infopt
