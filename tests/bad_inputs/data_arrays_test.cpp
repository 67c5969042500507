// Broken .npz and .npy files end with a clear error, whatever is broken. Fixtures: tests/data/fixtures/make_fixtures.py.
#include <sys/stat.h>

#include <cstring>
#include <random>

#include "tests/data/support.h"

namespace infopt::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

void expect_malformed(const Error& e, const std::string& text) {
  EXPECT_EQ(e.kind(), ErrorKind::Malformed) << e.what();
  EXPECT_THAT(e.what(), HasSubstr(text));
}

/// A .npy file: version 1.0, this header, these data bytes.
std::string npy(const std::string& header, size_t data) {
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xFF);
  bytes += static_cast<char>(header.size() >> 8);
  return bytes + header + std::string(data, '\0');
}

std::string with_shape(const std::string& shape) { return "{'descr': '<f4', 'fortran_order': False, 'shape': " + shape + ", }"; }

class BadArrays : public testing::Test {
 protected:
  Error error_of_npy(const std::string& bytes) { return error_of_data(folder.file("x.npy", bytes)); }
  Error error_of_npz(const std::string& bytes, const DataOptions& options = {}) {
    return error_of_data(folder.file("x.npz", bytes), options);
  }
  TempFolder folder;
};

TEST_F(BadArrays, MissingFileIsIo) { EXPECT_EQ(error_of_data(folder.path("no.npz")).kind(), ErrorKind::Io); }

TEST_F(BadArrays, AnEmptyFolderIsMalformed) { expect_malformed(error_of_data(folder.path()), "has no data"); }

TEST_F(BadArrays, AFileOfAnotherKindIsMalformed) { expect_malformed(error_of_data(folder.file("x.txt", "1,2")), "isn't data"); }

TEST_F(BadArrays, ANamedPipeIsNotWaitedFor) {
  ASSERT_EQ(::mkfifo(folder.path("p.npz").c_str(), 0600), 0);
  EXPECT_EQ(error_of_data(folder.path("p.npz")).kind(), ErrorKind::Io);
}

TEST_F(BadArrays, PicklesAreRefusedAndNeverUnpickled) {
  expect_malformed(error_of_data(fixture("objects.npz")), "never unpickled");
  expect_malformed(error_of_data(fixture("objects.npy")), "never unpickled");
  expect_malformed(error_of_npy("\x80\x04\x95" + std::string(20, 'K')), "never unpickled");
}

TEST_F(BadArrays, TypesThatNoTensorHasAreUnsupported) {
  EXPECT_EQ(error_of_data(fixture("complex.npz")).kind(), ErrorKind::Unsupported);
  EXPECT_EQ(error_of_data(fixture("records.npz")).kind(), ErrorKind::Unsupported);
  for (const char* code : {"<f16", "<M8[ns]", "|V2", "<i3", "<U99999999999", "|f"})
    EXPECT_NE(error_of_npy(npy("{'descr': '" + std::string(code) + "', 'fortran_order': False, 'shape': (2,), }", 8)).kind(),
              ErrorKind::Defect)
        << code;
}

TEST_F(BadArrays, TextIsOnlyALabel) {
  expect_malformed(error_of_data(fixture("text_labels.npz"), {.label = "other"}), "array 'label': holds strings");
}

TEST_F(BadArrays, NoSamplesIsMalformed) { expect_malformed(error_of_data(fixture("empty.npz")), "has no samples"); }

TEST_F(BadArrays, FirstAxesThatDifferAreNamedBoth) {
  const Error e = error_of_data(fixture("unequal.npz"));
  EXPECT_EQ(e.kind(), ErrorKind::Malformed);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("array 'a'"), HasSubstr("array 'b'"), HasSubstr("5"), HasSubstr("4")));
}

TEST_F(BadArrays, AMissingInputIsNamedBesideWhatIsThere) {
  const Error e = error_of_data(fixture("deflated.npz"), {.input_names = {"A", "b"}, .required = {"A", "b"}});
  EXPECT_EQ(e.kind(), ErrorKind::Malformed);
  EXPECT_THAT(e.what(), AllOf(HasSubstr("no array 'A'"), HasSubstr("'a', 'b'")));
  expect_malformed(error_of_data(fixture("deflated.npz"), {.input_names = {"x"}}), "'x'");
}

TEST_F(BadArrays, RowsOfOneBatchThatDifferAreMalformed) {
  expect_malformed(error_of_data(fixture("sizes"), {.rows_per_sample = 2}), "rows of one batch differ");
}

TEST_F(BadArrays, ShapesThatTheDataDoesntFitAreMalformed) {
  expect_malformed(error_of_npy(npy(with_shape("(2, 3)"), 20)), "needs 24 bytes of data, and it has 20");
  expect_malformed(error_of_npy(npy(with_shape("(2, 3)"), 28)), "needs 24 bytes of data, and it has 28");
  expect_malformed(error_of_npy(npy(with_shape("(-2, 3)"), 24)), "negative");
  expect_malformed(error_of_npy(npy(with_shape("(4294967296, 4294967296)"), 24)), "overflows");
  expect_malformed(error_of_npy(npy(with_shape("(4611686018427387904,)"), 24)), "overflows");
  expect_malformed(error_of_npy(npy(with_shape("(99999999999999999999,)"), 24)), "overflows");
  expect_malformed(error_of_npy(npy(with_shape("(1099511627776,)"), 24)), "needs");
}

TEST_F(BadArrays, RowsWithoutBytesCantBeClaimedWithoutEnd) {
  EXPECT_EQ(error_of_npy(npy(with_shape("(4611686018427387904, 0)"), 0)).kind(), ErrorKind::Limit);
}

TEST_F(BadArrays, BrokenHeadersAreMalformed) {
  for (const char* header :
       {"", "{", "{}", "}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,)}", "{'descr': '<f4', 'fortran_order': False, 'shape': 2}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", "{'descr': '<f4",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} + 1", "__import__('os')",
        "{'descr': '', 'fortran_order': False, 'shape': (2,)}", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (,)}"})
    expect_malformed(error_of_npy(npy(header, 8)), "header");
}

TEST_F(BadArrays, EveryTruncationOfANpyIsMalformed) {
  const std::string whole = bytes_of_file(fixture("batch.npy"));
  for (size_t n = 0; n < whole.size(); ++n) EXPECT_EQ(error_of_npy(whole.substr(0, n)).kind(), ErrorKind::Malformed) << n;
}

TEST_F(BadArrays, EveryTruncationOfANpzIsMalformed) {
  for (const char* name : {"stored.npz", "deflated.npz"}) {
    const std::string whole = bytes_of_file(fixture(name));
    for (size_t n = 0; n < whole.size(); n += 3)
      EXPECT_EQ(error_of_npz(whole.substr(0, n)).kind(), ErrorKind::Malformed) << name << " " << n;
  }
}

TEST_F(BadArrays, ALostMiddleOfAnNpzIsMalformed) {
  const std::string whole = bytes_of_file(fixture("deflated.npz"));
  for (size_t n = 1; n + 60 < whole.size(); n += 37)
    EXPECT_EQ(error_of_npz(whole.substr(0, n) + whole.substr(n + 20)).kind(), ErrorKind::Malformed) << n;
}

TEST_F(BadArrays, AChangedByteOfDataFailsTheChecksumAndNamesTheArray) {
  std::string bytes = bytes_of_file(fixture("stored.npz"));
  const size_t array = bytes.find("a.npy");
  const size_t data = bytes.find("NUMPY", array) + 128 - 1;  // the header ends at a multiple of 64 from its first byte
  bytes[data + 40] ^= 1;
  expect_malformed(error_of_npz(bytes), "member 'a.npy': is corrupt: its CRC-32 is wrong");
}

TEST_F(BadArrays, TwoArraysOfOneNameAreMalformed) {
  std::string bytes = bytes_of_file(fixture("stored.npz"));
  for (size_t at = 0; (at = bytes.find("b.npy", at)) != std::string::npos; ++at) bytes[at] = 'a';
  expect_malformed(error_of_npz(bytes), "two members named 'a.npy'");
}

TEST_F(BadArrays, NamesWithDotsGoNowhere) {
  std::string bytes = bytes_of_file(fixture("positional.npz"));
  for (size_t at = 0; (at = bytes.find("arr_0.npy", at)) != std::string::npos; ++at) bytes.replace(at, 9, "../..q.npy", 1, 9);
  EXPECT_EQ(all_samples(folder.file("x.npz", bytes)).size(), 2u);
}

TEST_F(BadArrays, ClaimsBeyondWhatDeflateHoldsAskForNoMemory) {
  std::string bytes = bytes_of_file(fixture("empty.npz"));
  const size_t central = bytes.rfind("PK\x01\x02");
  bytes.replace(central + 24, 4, "\xFE\xFF\xFF\xFF");
  expect_malformed(error_of_npz(bytes), "claims more bytes than deflate could hold");
}

TEST_F(BadArrays, EncryptedAndExoticMembersAreUnsupported) {
  const std::string whole = bytes_of_file(fixture("empty.npz"));
  const size_t central = whole.rfind("PK\x01\x02");
  std::string encrypted = whole, exotic = whole;
  encrypted[central + 8] |= 1;
  exotic[central + 10] = 12;
  EXPECT_EQ(error_of_npz(encrypted).kind(), ErrorKind::Unsupported);
  EXPECT_EQ(error_of_npz(exotic).kind(), ErrorKind::Unsupported);
}

/// Any outcome but a defect or a crash: some changed bytes don't matter (dates, attributes).
void expect_no_defect(const std::string& path) {
  try {
    all_samples(path);
  } catch (const Error& e) {
    EXPECT_NE(e.kind(), ErrorKind::Defect) << e.what();
  }
}

TEST_F(BadArrays, ChangedBytesNeverCrash) {
  std::mt19937 random(5);
  for (const char* name : {"deflated.npz", "stored.npz", "fortran.npz", "text_labels.npz", "batch.npy"}) {
    const std::string whole = bytes_of_file(fixture(name));
    for (int round = 0; round < 400; ++round) {
      std::string bytes = whole;
      for (int k = 0; k <= round % 3; ++k) bytes[random() % bytes.size()] = static_cast<char>(random());
      expect_no_defect(folder.file(std::string("r") + (strstr(name, ".npy") ? ".npy" : ".npz"), bytes));
    }
  }
}

TEST_F(BadArrays, RandomBytesNeverCrash) {
  std::mt19937 random(6);
  for (int round = 0; round < 200; ++round) {
    std::string bytes;
    for (size_t n = random() % 300; n > 0; --n) bytes += static_cast<char>(random());
    EXPECT_EQ(error_of_npz(bytes).kind(), ErrorKind::Malformed);
    EXPECT_EQ(error_of_npy(std::string("\x93NUMPY\x01\x00", 8) + bytes).kind(), ErrorKind::Malformed);
  }
}

TEST_F(BadArrays, BoolsOfAnyByteBecomeTrue) {
  std::string bytes = npy("{'descr': '|b1', 'fortran_order': False, 'shape': (3,), }", 3);
  bytes[bytes.size() - 2] = 77;
  std::string values;
  for (const Sample& s : all_samples(folder.file("b.npy", bytes)))
    values += static_cast<char>('0' + *reinterpret_cast<const char*>(s.inputs.at("b").raw()));
  EXPECT_EQ(values, "010");
}

}  // namespace
}  // namespace infopt::test
