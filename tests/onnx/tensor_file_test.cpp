#include "lib/onnx/tensor_file.h"

#include <gtest/gtest.h>

#include "lib/base/error.h"
#include "onnx/onnx-data.pb.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

TEST(TensorFile, WritesWhatProtobufReads) {
  test::TempDir dir;
  write_tensor_file(dir / "t.pb", Tensor::of<float>({2, 2}, {1, 2, 3, 4}), "t");
  std::ifstream file(dir / "t.pb", std::ios::binary);
  onnx::TensorProto proto;
  ASSERT_TRUE(proto.ParseFromIstream(&file));
  EXPECT_EQ(proto.name(), "t");
  EXPECT_EQ(proto.dims_size(), 2);
  EXPECT_EQ(proto.raw_data().size(), 16u);
}

TEST(TensorFile, ReadsWhatItWrote) {
  test::TempDir dir;
  Tensor large(DType::I64, {500});
  for (int64_t i = 0; i < 500; ++i) large.mutable_data<int64_t>()[i] = i * i;
  write_tensor_file(dir / "t.pb", large);
  EXPECT_EQ(to_vector<int64_t>(read_tensor_file(dir / "t.pb").tensor), to_vector<int64_t>(large));

  Tensor strings(DType::String, {2});
  strings.mutable_strings() = {"one", ""};
  write_tensor_file(dir / "s.pb", strings, "s");
  const NamedTensor back = read_tensor_file(dir / "s.pb");
  EXPECT_EQ(back.name, "s");
  EXPECT_EQ(back.tensor.strings(), strings.strings());
}

TEST(TensorFile, SequencesAreUnsupported) {
  test::TempDir dir;
  onnx::SequenceProto sequence;
  sequence.set_elem_type(onnx::SequenceProto::TENSOR);
  sequence.add_tensor_values()->set_data_type(onnx::TensorProto::FLOAT);
  test::write_bytes(dir / "q.pb", sequence.SerializeAsString());
  try {
    read_tensor_file(dir / "q.pb");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::Unsupported);
  }
}

}  // namespace
}  // namespace infopt
