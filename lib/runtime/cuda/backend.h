// CUDA as a session's device.
#pragma once
#include <memory>

#include "lib/runtime/device.h"

namespace infopt {

/// Makes `open_cuda` open this backend.
void install_cuda();

namespace cuda {

/// The kernels for what the fusion rules find: one file each in lib/runtime/cuda/, which defines the function.
std::unique_ptr<Kernel> make_fused_conv(FusedConv how, SparseUse sparse);
std::unique_ptr<Kernel> make_fused_product(FusedProduct how, SparseUse sparse);
std::unique_ptr<Kernel> make_row_norm(FusedRowNorm how);
std::unique_ptr<Kernel> make_attention(FusedAttention how);
std::unique_ptr<Kernel> make_coded_attention(CodedAttention how);
std::unique_ptr<Kernel> make_softmax(FusedSoftmax how);
std::unique_ptr<Kernel> make_chain(const Graph& graph, FusedChain how);
std::unique_ptr<Kernel> make_integer_conv(IntegerConv how, SparseUse sparse);
std::unique_ptr<Kernel> make_integer_product(IntegerProduct how, SparseUse sparse);
std::unique_ptr<Kernel> make_dynamic_product(DynamicProduct how, SparseUse sparse);
std::unique_ptr<Kernel> make_dynamic_conv(DynamicConv how, SparseUse sparse);
std::unique_ptr<Kernel> make_code_product(CodeProduct how);
std::unique_ptr<Kernel> make_low_bit_product(LowBitProduct how);
std::unique_ptr<Kernel> make_float8_product(Float8Product how);
std::unique_ptr<Kernel> make_integer_table(IntegerTable how);
std::unique_ptr<Kernel> make_integer_binary(IntegerBinary how);
std::unique_ptr<Kernel> make_integer_pool(IntegerPool how);

}  // namespace cuda
}  // namespace infopt
