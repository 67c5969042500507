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

Type declared(const std::function<void(onnx::TypeProto&)>& set) {
  onnx::TypeProto proto;
  set(proto);
  Type type;
  type.opaque = proto.SerializeAsString();
  return type;
}

const Type kSequence = declared([](onnx::TypeProto& t) { t.mutable_sequence_type()->mutable_elem_type()->mutable_tensor_type()->set_elem_type(1); });
const Type kOptional = declared([](onnx::TypeProto& t) { t.mutable_optional_type()->mutable_elem_type()->mutable_tensor_type()->set_elem_type(1); });
const Type kMap = declared([](onnx::TypeProto& t) { t.mutable_map_type()->set_key_type(7); });

onnx::SequenceProto sequence_of_one() {
  onnx::SequenceProto sequence;
  sequence.set_elem_type(onnx::SequenceProto::TENSOR);
  auto* t = sequence.add_tensor_values();
  t->set_data_type(onnx::TensorProto::FLOAT);
  t->add_dims(1);
  t->add_float_data(3);
  return sequence;
}

TEST(DatumFile, IsReadAsDeclared) {
  test::TempDir dir;
  test::write_bytes(dir / "s.pb", sequence_of_one().SerializeAsString());
  const Datum s = read_datum_file(dir / "s.pb", kSequence);
  ASSERT_EQ(s.sequence().elements.size(), 1u);
  EXPECT_EQ(to_vector<double>(s.sequence().elements[0]), std::vector<double>({3}));
  onnx::OptionalProto optional;
  optional.set_elem_type(onnx::OptionalProto::UNDEFINED);
  test::write_bytes(dir / "n.pb", optional.SerializeAsString());
  EXPECT_TRUE(read_datum_file(dir / "n.pb", kOptional).is_nothing());
  optional.set_elem_type(onnx::OptionalProto::SEQUENCE);
  *optional.mutable_sequence_value() = sequence_of_one();
  test::write_bytes(dir / "o.pb", optional.SerializeAsString());
  EXPECT_TRUE(read_datum_file(dir / "o.pb", kOptional).is_sequence());
  write_tensor_file(dir / "t.pb", Tensor::scalar(1.0f));
  EXPECT_TRUE(read_datum_file(dir / "t.pb", Type::tensor(DType::F32, {})).is_tensor());
}

ErrorKind kind_of_reading(const std::string& path, const Type& type) {
  try {
    read_datum_file(path, type);
  } catch (const Error& e) {
    return e.kind();
  }
  return ErrorKind::Defect;
}

TEST(DatumFile, RefusesWhatItIsNot) {
  test::TempDir dir;
  test::write_bytes(dir / "text.pb", "not a sequence at all");
  EXPECT_EQ(kind_of_reading(dir / "text.pb", kSequence), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_reading(dir / "text.pb", kOptional), ErrorKind::Malformed);
  EXPECT_EQ(kind_of_reading(dir / "text.pb", kMap), ErrorKind::Unsupported);
  auto sequence = sequence_of_one();
  sequence.mutable_tensor_values(0)->mutable_segment()->set_begin(1 << 20);
  test::write_bytes(dir / "segment.pb", sequence.SerializeAsString());
  EXPECT_EQ(kind_of_reading(dir / "segment.pb", kSequence), ErrorKind::Unsupported);
  sequence = sequence_of_one();
  sequence.mutable_tensor_values(0)->set_dims(0, int64_t{1} << 40);
  test::write_bytes(dir / "large.pb", sequence.SerializeAsString());
  EXPECT_EQ(kind_of_reading(dir / "large.pb", kSequence), ErrorKind::Malformed);
  sequence.set_elem_type(onnx::SequenceProto::MAP);
  test::write_bytes(dir / "maps.pb", sequence.SerializeAsString());
  EXPECT_EQ(kind_of_reading(dir / "maps.pb", kSequence), ErrorKind::Unsupported);
}

}  // namespace
}  // namespace infopt
