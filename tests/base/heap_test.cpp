#include "lib/base/heap.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace infopt {
namespace {

constexpr size_t kPage = Heap::kPage;

TEST(Heap, NeighboursBecomeOneBlock) {
  Heap heap;
  std::vector<void*> blocks;
  for (int i = 0; i < 4; ++i) blocks.push_back(heap.take(10 * kPage));
  void* last = heap.take(kPage);  // keeps the others from simply vanishing
  for (const int i : {0, 2, 1, 3}) heap.give(blocks[static_cast<size_t>(i)], 10 * kPage);
  const uint64_t grown = heap.grown();
  void* whole = heap.take(40 * kPage);
  EXPECT_EQ(whole, blocks[0]);
  EXPECT_EQ(heap.grown(), grown);
  heap.give(whole, 40 * kPage);
  heap.give(last, kPage);
}

TEST(Heap, TakesTheSmallestBlockThatIsLargeEnough) {
  Heap heap;
  void *large = heap.take(9 * kPage), *a = heap.take(kPage), *small = heap.take(3 * kPage), *b = heap.take(kPage);
  heap.give(large, 9 * kPage);
  heap.give(small, 3 * kPage);
  EXPECT_EQ(heap.take(2 * kPage + 1), small);
  EXPECT_EQ(heap.take(4 * kPage), large);
  heap.give(small, 2 * kPage + 1);
  heap.give(large, 4 * kPage);
  heap.give(a, kPage);
  heap.give(b, kPage);
}

TEST(Heap, WhatLiesLastGrowsInPlace) {
  Heap heap;
  void* block = heap.take(5 * kPage);
  heap.give(block, 5 * kPage);
  EXPECT_EQ(heap.take(500 * kPage), block);
  EXPECT_EQ(heap.reach(), 500 * kPage);
  heap.give(block, 500 * kPage);
}

TEST(Heap, BlocksNeverOverlapAndKeepTheirBytes) {
  Heap heap;
  std::mt19937 random(7);
  struct Block {
    unsigned char* data;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Block> blocks;
  size_t most = 0, now = 0;
  for (int i = 0; i < 4000; ++i) {
    if (blocks.size() < 2 || random() % 5 < 2) {
      const size_t bytes = 1 + random() % (random() % 8 ? 8 * kPage : 200 * kPage);
      auto* data = static_cast<unsigned char*>(heap.take(bytes));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u);
      const auto mark = static_cast<unsigned char>(i);
      data[0] = data[bytes / 2] = data[bytes - 1] = mark;
      blocks.push_back({data, bytes, mark});
      most = std::max(most, now += bytes);
    } else {
      const size_t at = random() % blocks.size();
      const Block b = blocks[at];
      ASSERT_TRUE(b.data[0] == b.mark && b.data[b.bytes / 2] == b.mark && b.data[b.bytes - 1] == b.mark);
      heap.give(b.data, b.bytes);
      now -= b.bytes;
      blocks[at] = blocks.back();
      blocks.pop_back();
    }
    if (i == 2000) heap.trim();
  }
  for (const Block& b : blocks) heap.give(b.data, b.bytes);
  EXPECT_LT(heap.reach(), 2 * most);
}

TEST(Heap, TrimmedMemoryMayBeTakenAgain) {
  Heap heap;
  constexpr size_t kBytes = 600 * kPage;
  void* block = heap.take(kBytes);
  std::memset(block, 1, kBytes);
  heap.give(block, kBytes);
  heap.trim();
  EXPECT_EQ(heap.reach(), 0u);
  auto* again = static_cast<unsigned char*>(heap.take(kBytes));
  ASSERT_EQ(again, block);
  std::memset(again, 2, kBytes);
  EXPECT_EQ(again[kBytes - 1], 2);
  heap.give(again, kBytes);
}

TEST(Heap, MoreThanThereIsOfAddressesIsRefused) {
  Heap heap;
  EXPECT_EQ(heap.take(size_t{1} << 62), nullptr);
  EXPECT_EQ(heap.take(~size_t{0}), nullptr);
}

TEST(Heap, ThreadsShareIt) {
  Heap heap;
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t)
    threads.emplace_back([&heap, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 500; ++i) {
        const size_t bytes = 1 + random() % (20 * kPage);
        auto* data = static_cast<unsigned char*>(heap.take(bytes));
        std::memset(data, static_cast<int>(t), bytes);
        ASSERT_EQ(data[bytes - 1], t);
        ASSERT_EQ(data[0], t);
        heap.give(data, bytes);
      }
    });
  for (auto& t : threads) t.join();
}

}  // namespace
}  // namespace infopt
