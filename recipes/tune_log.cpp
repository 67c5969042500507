#include "recipes/tune_log.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "lib/base/atomic_file.h"
#include "lib/base/error.h"

namespace infopt {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const Trial& t) {
  const TunePoint& p = t.point;
  Json j{{"base", p.base}, {"method", p.method}, {"activations", p.activations}, {"rounding", p.rounding}, {"block", p.block}, {"smooth", p.smooth},
         {"kept_weights", p.kept_weights}, {"kept_activations", p.kept_activations}, {"equalize", p.equalize}, {"measured_bias", p.measured_bias}, {"floor_db", p.floor_db}, {"in_float", p.in_float}, {"recipe", t.recipe}, {"seconds", t.seconds}};
  if (!t.failure.empty()) {
    j["failure"] = t.failure;
    return j;
  }
  j.update({{"size_ratio", t.size_ratio}, {"latency_ratio", t.latency_ratio}, {"latency_ms", t.latency_ms}, {"violation", t.violation}});
  if (t.sqnr_db) j["sqnr_db"] = *t.sqnr_db;
  if (t.metric_drop) j["metric_drop"] = *t.metric_drop;
  return j;
}

Trial trial_of(const Json& j) {
  Trial t;
  t.point = {j.at("base"), j.at("method"), j.at("activations"), j.at("rounding"), j.at("block"), j.at("smooth"), j.at("kept_weights"), j.at("kept_activations"), j.value("equalize", false), j.value("measured_bias", false), j.value("floor_db", 0.0), j.value("in_float", std::vector<std::string>{})};
  t.recipe = j.at("recipe");
  t.seconds = j.at("seconds");
  t.failure = j.value("failure", "");
  t.size_ratio = j.value("size_ratio", 0.0);
  t.latency_ratio = j.value("latency_ratio", 0.0);
  t.latency_ms = j.value("latency_ms", 0.0);
  t.violation = j.value("violation", 0.0);
  if (j.contains("sqnr_db")) t.sqnr_db = j["sqnr_db"].get<double>();
  if (j.contains("metric_drop")) t.metric_drop = j["metric_drop"].get<double>();
  return t;
}

}  // namespace

TuneLog::TuneLog(std::string path, std::string key) : path_(std::move(path)) {
  const std::string head = Json{{"infopt tune", 1}, {"of", key}}.dump() + "\n";
  if (!std::filesystem::exists(path_)) {
    text_ = head;
    write_file(path_, text_);
    return;
  }
  const std::string text = read_file(path_);
  const size_t first = text.find('\n');
  if (first == std::string::npos || text.substr(0, first + 1) != head)
    throw Error(ErrorKind::Usage, "it holds trials of another model, other data, other gates or another version of infopt; give another folder with -o, or remove it", path_);
  text_ = head;
  for (size_t from = first + 1, line = 2; from < text.size(); ++line) {
    const size_t end = text.find('\n', from);
    if (end == std::string::npos) break;  // a line that was being written
    try {
      trials_.push_back(trial_of(Json::parse(text.substr(from, end - from))));
    } catch (const Json::exception& e) {
      throw Error(ErrorKind::Malformed, e.what(), path_ + ":" + std::to_string(line));
    }
    text_ += text.substr(from, end - from + 1);
    from = end + 1;
  }
}

void TuneLog::add(const Trial& trial) {
  trials_.push_back(trial);
  text_ += json_of(trial).dump() + "\n";
  write_file(path_, text_);
}

}  // namespace infopt
