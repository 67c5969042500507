// The name that was meant, for messages about names that don't exist.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace infopt {

/// Levenshtein distance in bytes, a swap of neighbours counting as one edit; `-` and `_` count as the same, and so do cases.
size_t edit_distance(std::string_view a, std::string_view b);
/// The candidate that begins with `name`, else the nearest one (the first of equals); empty where none is near enough to have
/// been meant.
std::string nearest(std::string_view name, const std::vector<std::string>& candidates);
/// "; did you mean 'x'?" or, where nothing is near, "; there are: a, b, c" (nothing where there are no candidates).
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace infopt
