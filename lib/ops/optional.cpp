// Optional, OptionalHasElement, OptionalGetElement. An optional that holds something is, here, that something.
#include "lib/ops/kernel_util.h"

namespace infopt {
namespace {

std::unique_ptr<Kernel> optional(const KernelSpec&) {
  return make_kernel([](KernelContext& c) { c.set_datum(0, c.has(0) ? c.datum(0) : Datum::nothing()); });
}

std::unique_ptr<Kernel> has_element(const KernelSpec&) {
  return make_kernel([](KernelContext& c) { c.set(0, Tensor::scalar(c.has(0) && !c.datum(0).is_nothing())); });
}

std::unique_ptr<Kernel> get_element(const KernelSpec&) {
  return make_kernel([](KernelContext& c) {
    Datum d = c.datum(0);
    if (d.is_nothing()) malformed("OptionalGetElement of an empty optional");
    c.set_datum(0, std::move(d));
  });
}

}  // namespace

std::vector<OpDef> op_optional() {
  return {{.name = "Optional", .cpu = &optional},
          {.name = "OptionalHasElement", .cpu = &has_element},
          {.name = "OptionalGetElement", .cpu = &get_element}};
}

}  // namespace infopt
