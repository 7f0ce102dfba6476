// What a thread needs while it works on some query blocks of a head.
#pragma once

#include "head.h"

namespace mra::MRA_TARGET {

// Keys that a query block attends to at once; a block has at most half as many.
constexpr int64_t kChunk = 256;

template <class T>
struct Scratch {
  // Of kGroup query blocks.
  Rows<T> scores, weights;     // [kGroup, Z]
  T reference[kGroup];         // of the weights
  T* block_scores;             // [Y]
  void* ranks;                 // [Y]
  Rows<T> coarse_out;          // [kGroup, Dv]

  // Of one query block.
  Rows<T> attention;           // [b, kChunk]
  Rows<T> out;                 // [b, Dv]
  T *highest, *total, *factor; // [b]
  T* salient_bias;             // [g]
  int32_t* blocks;             // that it chose, [Y]

  // Of a backward alone.
  Rows<T> pulled;              // [kGroup, Dv]
  T* pulled_delta;             // [kGroup]
  Rows<T> grad_scores;         // [kGroup, Z]
  Rows<T> grad_means;          // [kGroup, D]
  Rows<T> grad_attention;      // [b, kChunk]
  Rows<T> grad_query;          // [b, D]
  T *lse, *delta;              // [kGroup, b]
  // Where products are of pairs, what they sum over queries by.
  Rows<Factor<T>> grad_pairs;                       // [b, kChunk]
  Rows<Factor<T>> stacked_query, stacked_grad_out;  // [b, D], [b, Dv]

  Scratch(const Call& call, bool backward, void* memory) {
    const Sizes<T> s(call);
    Carver carver(memory);
    scores = carver.rows<T>(kGroup, s.cell_columns);
    weights = carver.rows<T>(kGroup, s.cell_columns);
    block_scores = carver.take<T>(s.blocks_y);
    ranks = carver.take<uint64_t>(s.blocks_y);
    coarse_out = carver.rows<T>(kGroup, s.value_width);
    attention = carver.rows<T>(s.block, kChunk);
    out = carver.rows<T>(s.block, s.value_width);
    highest = carver.take<T>(s.columns);
    total = carver.take<T>(s.columns);
    factor = carver.take<T>(s.columns);
    salient_bias = carver.take<T>(s.salient_columns);
    blocks = carver.take<int32_t>(s.blocks_y);
    if (backward) {
      pulled = carver.rows<T>(kGroup, s.value_width);
      pulled_delta = carver.take<T>(kGroup);
      grad_scores = carver.rows<T>(kGroup, s.cell_columns);
      grad_means = carver.rows<T>(kGroup, s.width);
      grad_attention = carver.rows<T>(s.block, kChunk);
      grad_query = carver.rows<T>(s.block, s.width);
      lse = carver.take<T>(kGroup * s.columns);
      delta = carver.take<T>(kGroup * s.columns);
      const int64_t pairs = kPairs<T> ? s.block / 2 : 0;
      grad_pairs = carver.rows<Factor<T>>(pairs, 2 * kChunk);
      stacked_query = carver.rows<Factor<T>>(pairs, 2 * s.width);
      stacked_grad_out = carver.rows<Factor<T>>(pairs, 2 * s.value_width);
    }
    bytes = carver.used();
  }

  int64_t bytes;
};

}  // namespace mra::MRA_TARGET
