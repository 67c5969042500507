// Small float32 products held in registers: the inner loops of attention. The instruction set is chosen when the program runs; those with
// fused multiply-add give the same bits, the portable one rounds twice.
#pragma once
#include <cstdint>

namespace infopt::cpu {

struct FloatTile {
  const float* a = nullptr;  ///< rows × depth; elements of a row follow each other
  int64_t a_stride = 0, rows = 0, depth = 0;
  const float* b = nullptr;  ///< depth × vectors·lanes
  int64_t b_stride = 0, vectors = 0;
  float* c = nullptr;        ///< rows × vectors·lanes
  int64_t c_stride = 0;
  const float* decay = nullptr;  ///< null: C = A·B; else row r is decay[r]·C + A·B
};

struct FloatTiles {
  int64_t lanes, vectors, rows;  ///< floats in a vector; the most vectors and rows of one tile
  void (*multiply)(const FloatTile&);
};

enum class FloatIsa { Portable, Avx2, Avx512 };

/// The best that this processor has, unless use_float_isa chose another.
const FloatTiles& float_tiles();
bool has_float_isa(FloatIsa isa);
/// For tests: all later calls, in every thread, use this instruction set, which the processor must have.
void use_float_isa(FloatIsa isa);

// Of the single instruction sets.
const FloatTiles& portable_float_tiles();
const FloatTiles& avx2_float_tiles();
const FloatTiles& avx512_float_tiles();

}  // namespace infopt::cpu
