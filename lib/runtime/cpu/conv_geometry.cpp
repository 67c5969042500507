#include "lib/runtime/cpu/conv_geometry.h"

namespace infopt::cpu {

bool is_column(const Shape& src, const Shape& weights, const Shape& dst, const ConvGeometry& g) {
  return src.size() == 4 && src[3] == 1 && dst[3] == 1 && weights[3] == 1 && src[2] > 1 && g.pads_begin[1] == 0 && g.pads_end[1] == 0;
}

}  // namespace infopt::cpu
