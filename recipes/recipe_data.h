// The data section of a recipe, read and written.
#pragma once
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace infopt {

/// Of a node that was checked. Throws Error(Usage) where mean or std don't fit the colours.
DataSpec read_data(const YamlNode& node);

/// What a recipe says for those options that it names by other words.
struct ImageTexts {
  std::vector<int64_t> resize, crop;
  std::string filter, layout, color;
};
ImageTexts texts_of(const ImageOptions& image);

}  // namespace infopt
