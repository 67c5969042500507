// INFOPT_SIMD before a function with a hot loop: it is compiled once for each instruction set and the best is chosen when the program
// loads. With contraction off and no reassociation the clones give the same bits; keep sums in fixed lanes (arrays of partial sums).
#pragma once

#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && defined(__OPTIMIZE__)
#define INFOPT_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define INFOPT_SIMD
#endif
