// What the files that call oneDNN share: its engine and stream, names of layouts, its errors as infopt's. Included by lib/runtime/cpu/dnnl_*.cpp alone.
#pragma once
#include <omp.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "lib/base/error.h"
#include "lib/base/share.h"
#include "lib/base/tensor.h"
#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

using dnnl::memory;
using Tag = memory::format_tag;

#if DNNL_VERSION_MAJOR >= 3
#define INFOPT_DNNL3 1
#else
#define INFOPT_DNNL3 0
#endif

inline const dnnl::engine& engine() {
  static const dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

/// oneDNN's loops take as many threads as this run may use.
inline dnnl::stream& stream() {
  thread_local dnnl::stream s(engine());
  if (omp_get_max_threads() != run_threads()) omp_set_num_threads(run_threads());
  return s;
}

inline memory::dims dims_of(const Shape& shape) { return {shape.begin(), shape.end()}; }

inline Tag channels_last(size_t rank) { return rank == 3 ? Tag::nwc : rank == 4 ? Tag::nhwc : Tag::ndhwc; }

inline memory view(const memory::desc& desc, const void* data) { return memory(desc, engine(), const_cast<void*>(data)); }

/// The weights of a convolution as oneDNN names them: (g, M/g, C/g, k…), or without g where there is one group.
inline memory::desc weight_desc(const Shape& w, const ConvGeometry& g) {
  memory::dims dims, strides;
  int64_t kernel = 1;
  for (size_t i = 2; i < w.size(); ++i) kernel *= w[i];
  const int64_t outer = w[0] / g.groups, inner = w[1];
  if (g.groups > 1) {
    dims.push_back(g.groups);
    strides.push_back(outer * inner * kernel);
  }
  if (g.transposed) {  // ONNX: (C, M/g, k); oneDNN: (g, M/g, C/g, k)
    dims.insert(dims.end(), {inner, outer});
    strides.insert(strides.end(), {kernel, inner * kernel});
  } else {
    dims.insert(dims.end(), {outer, inner});
    strides.insert(strides.end(), {inner * kernel, kernel});
  }
  for (size_t i = 2; i < w.size(); ++i) {
    kernel /= w[i];
    dims.push_back(w[i]);
    strides.push_back(kernel);
  }
  return memory::desc(dims, memory::data_type::f32, strides);
}

inline memory::desc any_of(const memory::desc& desc) {
#if INFOPT_DNNL3
  return memory::desc(desc.get_dims(), desc.get_data_type(), Tag::any);
#else
  return memory::desc(desc.dims(), desc.data_type(), Tag::any);
#endif
}

template <class F> void translate(F f) {
  try {
    f();
  } catch (const dnnl::error& e) {
    throw Error(e.status == dnnl_out_of_memory ? ErrorKind::Limit : ErrorKind::Unsupported, std::string("oneDNN can't run it: ") + e.what());
  }
}

}  // namespace infopt::cpu
