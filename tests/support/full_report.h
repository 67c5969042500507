// A report in which everything is set, to render and to judge.
#pragma once
#include "lib/report/report.h"

namespace infopt::test {

inline Report full_report() {
  Report r;
  r.infopt_version = "0.1.0";
  r.command = "quantize";
  r.command_line = {"infopt", "quantize", "net.onnx", "--calib", "calib.npz", "-o", "out.onnx"};
  r.target = "ort-cpu";
  r.device = "cpu";
  r.original = ModelFile{"net.onnx", "aa11", 4'000'000, 13};
  r.optimized = ModelFile{"out.onnx", "bb22", 1'200'000, 13};
  r.recipe = "version: 1\nsteps:\n  - quantize_int8\n";
  r.calibration = CalibrationReport{"percentile", 99.99, "calib.npz", 32, "c0ffee", true};
  PassReport pass{.name = "quantize_int8", .summary = "Quantizes", .contract = "lossy", .options = {{"bias_correction", "true"}}};
  pass.nodes_before = 10;
  pass.nodes_after = 30;
  pass.edits = EditLog{.nodes_added = 20, .notes = {"conv1: static"}};
  pass.check = ContractCheck{true, 0.01, 2, "within 0.05"};
  pass.seconds = 1.5;
  r.passes = {pass};
  LayerReport conv{.node = "conv1", .op = "Conv", .form = LayerForm::Int8Static, .reason = "gains", .cost = "", .macs = 750, .weight_elements = 90};
  conv.weight_sqnr_db = 40;
  conv.estimated_sqnr_db = 30;
  conv.local_sqnr_db = 31;
  conv.accumulated_sqnr_db = 29;
  LayerReport last{.node = "fc", .op = "Gemm", .form = LayerForm::Float32, .reason = "its error is out of proportion", .cost = "12 kB"};
  last.macs = 250;
  last.weight_elements = 10;
  r.layers = {conv, last};
  PrunedLayer pruned{.node = "conv1", .op = "Conv", .pattern = "2:4", .algorithm = "sparsegpt", .reason = "", .weights_before = 120, .weights_after = 90, .zeros = 30};
  pruned.shape_before = "[4,30]";
  pruned.shape_after = "[3,30]";
  pruned.output_sqnr_db = 17.5;
  r.pruned = {pruned, {.node = "fc", .op = "Gemm", .pattern = "", .algorithm = "", .reason = "group head keeps its weights", .weights_before = 10, .weights_after = 10}};
  r.original_cost = ModelCost{1000, 130};
  r.optimized_cost = ModelCost{750, 100};
  r.unknown_operators = {{"com.acme.Magic", 2}};
  r.warnings = {"ranges of 2 tensors are empty"};
  r.compared_data = "eval.npz";
  r.compared_samples = 100;
  r.outputs = {{"logits", 31.25, 0.9996, 0.125}, {"aux", 28.5, 0.999, 0.5}};
  r.metrics = {{"top1", 0.75, 0.7421875, true}};
  Attempt first{.name = "int8", .changed = "", .failure = "", .sqnr_db = 17.5, .metric_drop = 0.02, .size_ratio = 0.26, .latency_ratio = 0.5, .missed = {"min_sqnr_db"}, .seconds = 1.25};
  Attempt failed{.name = "int8, smoothed", .changed = "smooth_activations", .failure = "no statistics", .sqnr_db = {}, .metric_drop = {}, .size_ratio = {}, .latency_ratio = {}, .missed = {}, .seconds = 0.5};
  r.search = SearchReport{{first, failed, first}, 2, "all gates are met", true};
  r.search->attempts[2].missed.clear();
  r.measured.stages = {{"calibrate", 0.5}, {"quantize", 0.25}};
  r.measured.original_latency = Latency{8, 9, 10, 20, 50, 1, 1};
  r.measured.optimized_latency = Latency{4, 5, 6, 15, 50, 1, 1};
  r.measured.process_peak_memory = 90'000'000;
  r.measured.original_peak_memory = 60'000'000;
  r.measured.optimized_peak_memory = 40'000'000;
  r.gates = {{"min_sqnr_db", 25, 28.5, true, "the SQNR of output 'aux' is 28.5 dB, at least 25 dB is wanted"},
             {"min_speedup", 3, 2.0, false, "the speedup is 2x, at least 3x is wanted"},
             {"max_memory_mb", 10, std::nullopt, false, "no peak memory was measured"}};
  return r;
}

}  // namespace infopt::test
