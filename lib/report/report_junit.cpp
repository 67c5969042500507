// JUnit's XML as CI servers read it: https://github.com/testmoapp/junitxml. No times: a gate takes none.
#include <fmt/format.h>

#include "lib/report/format.h"
#include "lib/report/render.h"

namespace infopt {
namespace {

// XML 1.0 allows of the control characters tab, line feed and carriage return only, and neither U+FFFE nor U+FFFF.
std::string escaped(std::string_view text) {
  std::string valid = format::utf8(text), out;
  for (size_t i = 0; i < valid.size(); ++i) {
    char c = valid[i];
    auto byte = static_cast<unsigned char>(c);
    std::string_view rest = std::string_view(valid).substr(i, 3);
    if (rest == "\xEF\xBF\xBE" || rest == "\xEF\xBF\xBF") {
      out += "\xEF\xBF\xBD";
      i += 2;
    } else if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&quot;";
    else if (c == '\'') out += "&apos;";
    else if (c == '\t' || c == '\n' || c == '\r') out += fmt::format("&#{};", byte);
    else if (byte < 0x20) out += "\xEF\xBF\xBD";
    else out += c;
  }
  return out;
}

std::string test_case(const GateResult& gate) {
  std::string head = fmt::format("    <testcase classname=\"infopt.gates\" name=\"{}\"", escaped(gate.name));
  std::string message = escaped(gate.message);
  if (gate.passed) return fmt::format("{}>\n      <system-out>{}</system-out>\n    </testcase>\n", head, message);
  const char* type = gate.value ? "not met" : "not measured";
  return fmt::format("{}>\n      <failure type=\"{}\" message=\"{}\"/>\n    </testcase>\n", head, type, message);
}

}  // namespace

std::string render_junit(const Report& report) {
  size_t tests = report.gates.size(), failures = format::gates_failed(report);
  std::string counts = fmt::format("tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"0\"", tests, failures);
  std::string model = report.original ? report.original->path : std::string("model");
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  out += fmt::format("<testsuites name=\"infopt\" {}>\n  <testsuite name=\"{}\" {}>\n", counts, escaped(model), counts);
  for (const GateResult& gate : report.gates) out += test_case(gate);
  if (report.search) {
    std::string tried;
    for (const Attempt& a : report.search->attempts) tried += fmt::format("{}: {}{}\n", a.name, format::figures(a), a.failure.empty() ? "; gates: " + format::missed(a) : "");
    out += fmt::format("    <system-out>{}</system-out>\n", escaped(tried + report.search->ended));
  }
  return out + "  </testsuite>\n</testsuites>\n";
}

}  // namespace infopt
