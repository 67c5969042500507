// Every way in which a model file can be bad ends in an Error of the right kind that names the culprit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <random>

#include "lib/base/error.h"
#include "lib/onnx/tensor_file.h"
#include "tests/support/model_text.h"

namespace infopt {
namespace {

using test::proto_of;
using test::TempDir;
using test::with_header;
using testing::HasSubstr;

constexpr const char* kGraph = "g (float[N, 3] x) => (float[N, 3] y) <float[3] w = {1, 2, 3}> { t = Add(x, w) y = Relu(t) }";

onnx::ModelProto good() { return proto_of(with_header(kGraph)); }

void expect_error(const std::function<void()>& work, ErrorKind kind, const std::string& text) {
  try {
    work();
    ADD_FAILURE() << "no error; expected one with: " << text;
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    EXPECT_THAT(e.what(), HasSubstr(text));
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
  }
}

void expect_bad(const onnx::ModelProto& proto, ErrorKind kind, const std::string& text) {
  expect_error([&] { parse_model(proto.SerializeAsString()); }, kind, text);
}

void expect_bad_file(const std::string& bytes, ErrorKind kind, const std::string& text) {
  TempDir dir;
  test::write_bytes(dir / "bad.onnx", bytes);
  expect_error([&] { read_model(dir / "bad.onnx"); }, kind, text);
  expect_error([&] { read_model(dir / "bad.onnx"); }, kind, "bad.onnx");
}

onnx::TensorProto* weight(onnx::ModelProto& proto) { return proto.mutable_graph()->mutable_initializer(0); }

TEST(BadModel, MissingFile) {
  expect_error([] { read_model("/nonexistent/m.onnx"); }, ErrorKind::Io, "/nonexistent/m.onnx");
}

TEST(BadModel, Folder) {
  TempDir dir;
  expect_error([&] { read_model(dir.path()); }, ErrorKind::Io, "folder");
}

TEST(BadModel, Empty) { expect_bad_file("", ErrorKind::Malformed, "is empty"); }

TEST(BadModel, Text) { expect_bad_file("this is not a model, it is a text\n", ErrorKind::Malformed, "not an ONNX model"); }

TEST(BadModel, TruncatedAnywhere) {
  const std::string bytes = good().SerializeAsString();
  for (size_t n = 0; n < bytes.size(); ++n) EXPECT_THROW(parse_model(bytes.substr(0, n)), Error) << n;
  expect_bad_file(bytes.substr(0, bytes.size() / 2), ErrorKind::Malformed, "truncated");
}

TEST(BadModel, RandomBytes) {
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    std::string bytes(1 + random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    EXPECT_THROW(parse_model(bytes), Error);
  }
}

/// Whatever a few changed bytes make of a model with every kind of part: it is read, or there is an Error.
TEST(BadModel, MutatedModelsNeverDoWorse) {
  auto proto = proto_of(R"(<ir_version: 9, opset_import: ["": 17, "f": 1]>
    g (float[2] x, bool c) => (float[2] y) <float[2] w = {1, 2}, int64[3] k = {1, 2, 3}> {
      t = f.twice (x)
      y = If (c) <then_branch = th () => (float[2] p) { p = Add(t, w) }, else_branch = el () => (float[2] q) { q = Neg(t) }>
    }
    <domain: "f", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) })");
  auto* large = proto.mutable_graph()->add_initializer();
  large->set_name("large");
  large->set_data_type(onnx::TensorProto::FLOAT);
  large->add_dims(100);
  large->set_raw_data(std::string(400, 'a'));
  const std::string bytes = proto.SerializeAsString();
  std::mt19937 random(2);
  int read = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string changed = bytes;
    for (uint32_t n = 1 + random() % 3; n > 0; --n) changed[random() % changed.size()] = static_cast<char>(random());
    try {
      parse_model(changed);
      ++read;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(read, 0);
}

TEST(BadModel, NoGraph) {
  auto proto = good();
  proto.clear_graph();
  expect_bad(proto, ErrorKind::Malformed, "no graph");
}

TEST(BadModel, NoOpset) {
  auto proto = good();
  proto.clear_opset_import();
  expect_bad(proto, ErrorKind::Malformed, "opset");
}

TEST(BadModel, NewerThanKnown) {
  auto proto = good();
  proto.set_ir_version(99);
  expect_bad(proto, ErrorKind::Unsupported, "IR version 99");
  proto = good();
  proto.mutable_opset_import(0)->set_version(999);
  expect_bad(proto, ErrorKind::Unsupported, "opset 999");
}

TEST(BadModel, DimensionsThatOverflow) {
  auto proto = good();
  weight(proto)->clear_dims();
  for (int i = 0; i < 5; ++i) weight(proto)->add_dims(int64_t{1} << 40);
  expect_bad(proto, ErrorKind::Malformed, "'w'");
  weight(proto)->clear_dims();
  weight(proto)->add_dims(int64_t{1} << 62);  // the elements can be counted, their bytes can't be had
  expect_bad(proto, ErrorKind::Malformed, "'w'");
  weight(proto)->set_dims(0, -3);
  expect_bad(proto, ErrorKind::Malformed, "'w'");
}

TEST(BadModel, DataThatDoesNotFitItsShape) {
  auto proto = good();
  weight(proto)->set_dims(0, 4);
  expect_bad(proto, ErrorKind::Malformed, "tensor 'w': has 3 numbers, which doesn't fit float32[4]");
  weight(proto)->clear_float_data();
  weight(proto)->set_raw_data(std::string(15, '\0'));
  expect_bad(proto, ErrorKind::Malformed, "tensor 'w': has 15 bytes, which doesn't fit float32[4]");
  weight(proto)->set_raw_data(std::string(1000, '\0'));
  expect_bad(proto, ErrorKind::Malformed, "tensor 'w': has 1000 bytes");
}

TEST(BadModel, NumbersThatTheirTypeCannotHold) {
  auto proto = good();
  weight(proto)->set_data_type(onnx::TensorProto::UINT8);
  weight(proto)->clear_float_data();
  for (int v : {1, 2, 300}) weight(proto)->add_int32_data(v);
  expect_bad(proto, ErrorKind::Malformed, "holds 300");
}

TEST(BadModel, UnknownElementType) {
  auto proto = good();
  for (int type : {0, 77, -1}) {
    weight(proto)->set_data_type(type);
    expect_bad(proto, ErrorKind::Malformed, "tensor 'w': unknown element type");
  }
  weight(proto)->set_data_type(onnx::TensorProto::FLOAT6E2M3);
  expect_bad(proto, ErrorKind::Unsupported, "tensor 'w'");
  proto = good();
  proto.mutable_graph()->mutable_input(0)->mutable_type()->mutable_tensor_type()->set_elem_type(99);
  expect_bad(proto, ErrorKind::Malformed, "value 'x'");
}

TEST(BadModel, Cycle) {
  auto proto = good();
  proto.mutable_graph()->mutable_node(0)->set_input(1, "y");
  expect_bad(proto, ErrorKind::Malformed, "cycle through the value 'y'");
  expect_bad(proto, ErrorKind::Malformed, "Relu");
}

TEST(BadModel, UndefinedValue) {
  auto proto = good();
  proto.mutable_graph()->mutable_node(1)->set_input(0, "nowhere");
  proto.mutable_graph()->mutable_node(1)->set_name("last");
  expect_bad(proto, ErrorKind::Malformed, "node 'last' (Relu): reads the value 'nowhere', which nothing defines");
  proto = good();
  proto.mutable_graph()->mutable_output(0)->set_name("nowhere");
  expect_bad(proto, ErrorKind::Malformed, "graph output 'nowhere'");
}

TEST(BadModel, ValueDefinedTwice) {
  auto proto = good();
  proto.mutable_graph()->mutable_node(1)->set_output(0, "t");
  expect_bad(proto, ErrorKind::Malformed, "defines the value 't', which is defined already");
  proto = good();
  *proto.mutable_graph()->add_initializer() = proto.graph().initializer(0);
  expect_bad(proto, ErrorKind::Malformed, "'w'");
  proto = good();
  *proto.mutable_graph()->add_input() = proto.graph().input(0);
  expect_bad(proto, ErrorKind::Malformed, "'x'");
}

TEST(BadModel, BodiesWithoutEnd) {
  auto proto = proto_of(with_header("g (bool c) => (bool y) { y = Not(c) }"));
  onnx::GraphProto inner = proto.graph();
  inner.clear_input();
  for (int i = 0; i < 28; ++i) {
    onnx::GraphProto outer;
    outer.set_name("g");
    auto* node = outer.add_node();
    node->set_op_type("If");
    node->add_input("c");
    node->add_output("y");
    auto* a = node->add_attribute();
    a->set_name("then_branch");
    a->set_type(onnx::AttributeProto::GRAPH);
    *a->mutable_g() = inner;
    outer.add_output()->set_name("y");
    inner = outer;
  }
  *inner.add_input() = proto.graph().input(0);
  *proto.mutable_graph() = inner;
  std::string bytes;
  ASSERT_TRUE(proto.SerializeToString(&bytes));
  expect_error([&] { parse_model(bytes); }, ErrorKind::Limit, "nested");
}

TEST(BadModel, FunctionsWithoutEnd) {
  const std::string head = "<ir_version: 9, opset_import: [\"\": 17, \"f\": 1]> g (float[2] x) => (float[2] y) { y = f.f0 (x) }\n";
  const std::string function = "<domain: \"f\", opset_import: [\"\": 17, \"f\": 1]> ";
  expect_bad(proto_of(head + function + "f0 (a) => (b) { b = f.f0 (a) }"), ErrorKind::Malformed, "calls itself");
  std::string text = head;  // ten calls each, nine deep
  for (int i = 0; i < 9; ++i) {
    text += function + "f" + std::to_string(i) + " (a0) => (a10) { ";
    for (int k = 0; k < 10; ++k) {
      const std::string call = i == 8 ? "Neg" : "f.f" + std::to_string(i + 1);
      text += "a" + std::to_string(k + 1) + " = " + call + " (a" + std::to_string(k) + ") ";
    }
    text += "}\n";
  }
  expect_bad(proto_of(text), ErrorKind::Limit, "million nodes");
}

// External data

struct External {
  TempDir dir;
  std::string folder = dir / "model";

  External() {
    std::filesystem::create_directory(folder);
    test::write_bytes(dir / "outside.bin", std::string(12, 'x'));
    test::write_bytes(folder + "/w.bin", std::string(12, '\0'));
  }
  void read(const std::string& location, const std::string& offset = "0", const std::string& length = "12") {
    auto proto = good();
    auto* w = weight(proto);
    w->clear_float_data();
    w->set_data_location(onnx::TensorProto::EXTERNAL);
    for (const auto& [key, value] : {std::pair{"location", location}, {"offset", offset}, {"length", length}}) {
      auto* entry = w->add_external_data();
      entry->set_key(key);
      entry->set_value(value);
    }
    test::write_bytes(folder + "/m.onnx", proto.SerializeAsString());
    read_model(folder + "/m.onnx");
  }
};

TEST(BadExternalData, InTheFolderIsRead) {
  External e;
  EXPECT_NO_THROW(e.read("w.bin"));
  EXPECT_NO_THROW(e.read("./w.bin"));
  std::filesystem::create_symlink("w.bin", e.folder + "/link.bin");
  EXPECT_NO_THROW(e.read("link.bin"));
}

TEST(BadExternalData, ParentFolder) {
  External e;
  expect_error([&] { e.read("../outside.bin"); }, ErrorKind::Escape, "'w'");
  expect_error([&] { e.read("sub/../../outside.bin"); }, ErrorKind::Escape, "'..'");
}

TEST(BadExternalData, AbsolutePath) {
  External e;
  expect_error([&] { e.read(e.dir / "outside.bin"); }, ErrorKind::Escape, "absolute");
}

TEST(BadExternalData, SymbolicLink) {
  External e;
  std::filesystem::create_symlink(e.dir / "outside.bin", e.folder + "/link.bin");
  expect_error([&] { e.read("link.bin"); }, ErrorKind::Escape, "symbolic link");
  std::filesystem::create_directory_symlink(e.dir.path(), e.folder + "/up");
  expect_error([&] { e.read("up/outside.bin"); }, ErrorKind::Escape, "symbolic link");
}

TEST(BadExternalData, HardLink) {
  External e;
  std::filesystem::create_hard_link(e.dir / "outside.bin", e.folder + "/link.bin");
  expect_error([&] { e.read("link.bin"); }, ErrorKind::Escape, "hard link");
}

TEST(BadExternalData, Missing) {
  External e;
  expect_error([&] { e.read("none.bin"); }, ErrorKind::Io, "none.bin");
}

TEST(BadExternalData, OutsideItsFile) {
  External e;
  expect_error([&] { e.read("w.bin", "4"); }, ErrorKind::Malformed, "isn't within");
  expect_error([&] { e.read("w.bin", "9223372036854775807"); }, ErrorKind::Malformed, "isn't within");
  expect_error([&] { e.read("w.bin", "-4"); }, ErrorKind::Malformed, "offset '-4'");
  expect_error([&] { e.read("w.bin", "99999999999999999999"); }, ErrorKind::Malformed, "offset");
  expect_error([&] { e.read("w.bin", "0", "8"); }, ErrorKind::Malformed, "8 bytes");
  expect_error([&] { e.read(""); }, ErrorKind::Malformed, "location");
}

TEST(BadExternalData, AModelFromMemoryHasNone) {
  auto proto = good();
  weight(proto)->clear_float_data();
  weight(proto)->set_data_location(onnx::TensorProto::EXTERNAL);
  auto* entry = weight(proto)->add_external_data();
  entry->set_key("location");
  entry->set_value("w.bin");
  expect_bad(proto, ErrorKind::Unsupported, "external data");
}

TEST(BadTensorFile, NamesTheFile) {
  TempDir dir;
  test::write_bytes(dir / "empty.pb", "");
  expect_error([&] { read_tensor_file(dir / "empty.pb"); }, ErrorKind::Malformed, "empty.pb");
  test::write_bytes(dir / "text.pb", "not a tensor at all");
  EXPECT_THROW(read_tensor_file(dir / "text.pb"), Error);
  expect_error([&] { read_tensor_file(dir / "none.pb"); }, ErrorKind::Io, "none.pb");
}

}  // namespace
}  // namespace infopt
