// The printed forms of a report: each a pure function of it, and the same text for the same report.
#pragma once
#include <string>

#include "lib/report/report.h"

namespace infopt {

inline constexpr int kReportSchemaVersion = 1;

/// For machines: docs/report.schema.json describes it. Numbers that JSON can't hold are "Infinity", "-Infinity" and "NaN".
std::string render_json(const Report& report);
/// For a merge request: verdict, gates, figures, what stayed in float and why, the worst layers, the passes folded away.
std::string render_markdown(const Report& report);
/// For CI: one test case a gate.
std::string render_junit(const Report& report);
/// For a terminal: a summary of a screenful at most.
std::string render_text(const Report& report);

}  // namespace infopt
