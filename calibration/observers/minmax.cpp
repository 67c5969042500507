// All that was seen: no value is clipped.
#include "calibration/observer.h"

namespace infopt {

ObserverDef observer_minmax() {
  return {"minmax", "the extremes that were seen", [](const TensorStatistics& s, const ObserverOptions&) { return Range{s.min, s.max}; }};
}

}  // namespace infopt
