// How the renderers write figures and names; names come from models and may hold anything.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/report/report.h"

namespace infopt::format {

/// The same text with what isn't UTF-8 replaced by U+FFFD.
std::string utf8(std::string_view text);
std::string bytes(int64_t count);             ///< "12.3 MB" (of 1,000,000 bytes)
std::string count(int64_t n);                 ///< "1234", "12.3 k", "1.23 M", "4.56 G"
std::string decibel(double value);            ///< "31.2 dB"; "∞ dB" for equal outputs
std::string percent(double share);            ///< "71.3 %" of 0.713
std::string milliseconds(double value);       ///< three digits that matter: "1.23 ms"
std::string number(double value);             ///< six digits that matter
std::string seconds(double value);            ///< "1.23 s"

/// The figure by which layers are ranked: local, else accumulated, else estimated.
std::optional<double> layer_sqnr(const LayerReport& layer);
/// Layers with such a figure, the worst first; equals in graph order; at most `most`.
std::vector<const LayerReport*> worst_layers(const Report& report, size_t most);
/// Layers whose form is float32, the most MACs first.
std::vector<const LayerReport*> float_layers(const Report& report);
/// "all met", or the gates that an attempt doesn't meet.
std::string missed(const Attempt& attempt);
/// "31.2 dB, drop 0.002, size 0.270, latency 0.512", of what is known; or why nothing came of it.
std::string figures(const Attempt& attempt);
/// "passed", "failed", or "no gates".
std::string verdict(const Report& report);
size_t gates_failed(const Report& report);

}  // namespace infopt::format
