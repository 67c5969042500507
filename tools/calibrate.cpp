#include <cstdio>
#include <memory>

#include "lib/base/atomic_file.h"
#include "tools/command.h"

namespace infopt {

void add_calibrate(CLI::App& app, Context& context) {
  auto* command = app.add_subcommand("calibrate", "Save calibration statistics for `quantize --statistics`, which then needs no run");
  const auto o = std::make_shared<JobOptions>();
  add_job_options(*command, *o, true);
  command->callback([o, &context] {
    const JobSpec job = job_of(*o, "calibrate", context, "int8");
    const StatisticsSet set = calibrate_model(job);
    write_file(o->output, serialize(set));
    if (!o->json) std::printf("%s: statistics of %zu tensors over %lld samples\n", o->output.c_str(), set.tensors.size(), static_cast<long long>(set.samples));
  });
}

}  // namespace infopt
