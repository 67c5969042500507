#include <cstdio>

#include "passes/pass.h"
#include "tools/command.h"

namespace infopt {

void add_passes(CLI::App& app, Context&) {
  app.add_subcommand("passes", "List the passes that a recipe's steps may name, with their options")->callback([] {
    for (const PassDef& p : all_passes()) {
      const char* contract = p.contract == Contract::Exact ? "exact" : p.contract == Contract::Rounding ? "rounding" : "lossy";
      std::printf("%-20s %s (%s%s)\n", p.name.c_str(), p.summary.c_str(), contract, p.needs_calibration ? ", needs calibration data" : "");
      for (const OptionDef& o : p.options) std::printf("  %-18s %s\n", o.name.c_str(), o.help.c_str());
    }
  });
}

}  // namespace infopt
