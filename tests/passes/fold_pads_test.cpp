#include "tests/passes/graph_helper.h"

namespace infopt {
namespace {

using namespace test;

std::string padded(const std::string& pads, const std::string& then, const std::string& more = "", const std::string& pad_inputs = "") {
  return "g (float[N,3,6,6] x, float[4,3,3,3] w) => (float[N,C,A,B] y) <int64[" + std::to_string(1 + std::count(pads.begin(), pads.end(), ',')) + "] pads = {" + pads + "}" + more + "> { p = Pad (x, pads" +
         pad_inputs + ") y = " + then + " }";
}

TEST(FoldPads, GoIntoConvolutions) {
  expect_rewritten("fold_pads",
                   {{"Conv", padded("0,0,1,1,0,0,1,1", "Conv (p, w)"), "Conv"},
                    {"besides its own, of each side its own", padded("0,0,0,1,0,0,2,3", "Conv <pads=[1,0,2,1], strides=[2,2]> (p, w)"), "Conv"},
                    {"VALID", padded("0,0,1,1,0,0,1,1", "Conv <auto_pad=\"VALID\"> (p, w)"), "Conv"},
                    {"value 0", padded("0,0,1,1,0,0,1,1", "Conv (p, w)", ", float zero = {0.0}", ", zero"), "Conv"},
                    {"named axes", padded("1,0,2,1", "Conv (p, w)", ", float zero = {0.0}, int64[2] axes = {-1, 2}", ", zero, axes"), "Conv", 18},
                    {"two readers", "g (float[N,3,6,6] x, float[4,3,3,3] w) => (float[N,4,6,6] y, float[N,4,6,6] z) <int64[8] pads = {0,0,1,1,0,0,1,1}> { p = Pad (x, pads) y = Conv (p, w) z = Conv (p, w) }", "Conv Conv"}},
                   kRounding);
}

TEST(FoldPads, GoIntoPoolsWhereTheyMeanTheSame) {
  const std::string ones = "0,0,1,1,0,0,1,1";
  expect_rewritten("fold_pads",
                   {{"AveragePool", padded(ones, "AveragePool <kernel_shape=[3,3]> (p)"), "AveragePool"},
                    {"AveragePool that counts its own", padded(ones, "AveragePool <kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1> (p)"), "AveragePool"},
                    {"AveragePool that doesn't", padded(ones, "AveragePool <kernel_shape=[3,3], pads=[1,1,1,1]> (p)"), "Pad AveragePool"},
                    {"AveragePool rounding up", padded(ones, "AveragePool <kernel_shape=[3,3], strides=[2,2], ceil_mode=1> (p)"), "Pad AveragePool"},
                    {"a window of pads only", padded("0,0,2,2,0,0,2,2", "AveragePool <kernel_shape=[2,2]> (p)"), "Pad AveragePool"},
                    {"MaxPool over any sign", padded(ones, "MaxPool <kernel_shape=[3,3]> (p)"), "Pad MaxPool"},
                    {"MaxPool of the lowest", padded(ones, "MaxPool <kernel_shape=[3,3]> (p)", ", float low = {-3.4028234663852886e38}", ", low"), "MaxPool"},
                    {"MaxPool after Relu", "g (float[N,3,6,6] x) => (float[N,3,3,3] y) <int64[8] pads = {0,0,1,1,0,0,1,1}> { r = Relu (x) p = Pad (r, pads) y = MaxPool <kernel_shape=[3,3], strides=[2,2]> (p) }", "Relu MaxPool"},
                    {"MaxPool with indices", "g (float[N,3,6,6] x) => (float[N,3,3,3] y, int64[N,3,3,3] i) <int64[8] pads = {0,0,1,1,0,0,1,1}> { r = Relu (x) p = Pad (r, pads) y, i = MaxPool <kernel_shape=[3,3], strides=[2,2]> (p) }", "Relu Pad MaxPool"}},
                   kRounding);
}

TEST(FoldPads, StayWhereTheyMeanSomethingElse) {
  expect_rewritten("fold_pads",
                   {{"another value", padded("0,0,1,1,0,0,1,1", "Conv (p, w)", ", float one = {1.0}", ", one"), "Pad Conv"},
                    {"reflected", "g (float[N,3,6,6] x, float[4,3,3,3] w) => (float[N,4,6,6] y) <int64[8] pads = {0,0,1,1,0,0,1,1}> { p = Pad <mode=\"reflect\"> (x, pads) y = Conv (p, w) }", "Pad Conv"},
                    {"along the batch", padded("1,0,1,1,0,0,1,1", "Conv (p, w)"), "Pad Conv"},
                    {"along the channels", "g (float[N,2,6,6] x, float[4,3,3,3] w) => (float[N,4,6,6] y) <int64[8] pads = {0,1,1,1,0,0,1,1}> { p = Pad (x, pads) y = Conv (p, w) }", "Pad Conv"},
                    {"cropping", padded("0,0,-1,1,0,0,1,1", "Conv (p, w)"), "Pad Conv"},
                    {"SAME", padded("0,0,1,1,0,0,1,1", "Conv <auto_pad=\"SAME_UPPER\"> (p, w)"), "Pad Conv"}},
                   0);
}

}  // namespace
}  // namespace infopt
