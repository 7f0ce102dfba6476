// Forward: query blocks attend to what they chose, to salient keys, and to cells, in one softmax.
#pragma once

#include "group.h"

namespace mra::MRA_TARGET {

// Makes scores [rows, width] of further keys weights, e^(score - highest), and adds them up; what was
// seen before is scaled to the new highest score.
template <class T>
void absorb_scores(const Head<T>& head, int64_t rows, int64_t width, Scratch<T>& scratch) {
  const Rows<Factor<T>> weights = as_factors(scratch.attention);
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = scratch.attention[i];
    Vector<T> highest = all(-kInfinity<T>);
    for (int64_t j = 0; j < width; j += kLanes<T>) highest = greatest<T>(load(row + j), highest);
    scratch.factor[i] = greater(greatest_lane<T>(highest) * head.factor, scratch.highest[i]);
  }
  for (int64_t i = 0; i < rows; i += kLanes<T>) {
    const Vector<T> now = load(scratch.factor + i);
    const Vector<T> shift = now == -kInfinity<T> ? Vector<T>{} : now;
    store(scratch.factor + i, exponential<T>(load(scratch.highest + i) - shift));
    store(scratch.highest + i, now);
  }
  for (int64_t i = 0; i < rows; ++i) {
    const T* row = scratch.attention[i];
    const T shift = scratch.highest[i] == -kInfinity<T> ? 0 : scratch.highest[i];
    Vector<T> sum = {};
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      const Vector<T> weight = exponential<T>(scores_at(head, row + j) - shift);
      store(weights[i] + j, weight);
      sum += weight;
    }
    const T factor = scratch.factor[i];
    scratch.total[i] = scratch.total[i] * factor + sum_of_lanes<T>(sum);
    if (factor != 1) scale_row(head.sizes.value_width, factor, scratch.out[i]);
  }
}

template <class T>
void attend_to_blocks(const Call& call, const Head<T>& head, int64_t x, Scratch<T>& scratch) {
  [[maybe_unused]] const Timed timed(kFine);
  const Sizes<T>& sizes = head.sizes;
  const int64_t rows = head.row_count[x];
  const Rows<Factor<T>> query = {head.query[head.row_start[x]], head.query.stride};
  const int64_t count = list_chosen(head, x, scratch.blocks);
  const int64_t at_once = kChunk / sizes.columns;
  for (int64_t first = 0; first < count; first += at_once) {
    const int64_t blocks = lesser(at_once, count - first);
    // [rows, D] · [D, blocks · columns]
    set_product_with_blocks(rows, steps<T>(call.channels), query.scalars(), head.key_columns, sizes.columns,
                            scratch.blocks + first, blocks, scratch.attention);
    for (int64_t n = 0; n < blocks; ++n) {
      const int64_t y = scratch.blocks[first + n];
      T* scores = scratch.attention.data + n * sizes.columns;
      const int64_t own = lesser(sizes.block, head.keys - y * sizes.block);
      for (int64_t i = 0; own < sizes.columns && i < rows; ++i) {
        for (int64_t j = own; j < sizes.columns; ++j) scores[i * kChunk + j] = -kInfinity<T>;
      }
    }
    absorb_scores(head, rows, blocks * sizes.columns, scratch);
    // [rows, blocks · b] · [blocks · b, Dv]
    add_product(rows, sizes.value_width, as_factors(scratch.attention).scalars(),
                chosen_rows(head, head.value_rows, scratch.blocks + first, blocks), scratch.out);
  }
}

template <class T>
void attend_to_salient(const Call& call, const Head<T>& head, int64_t x, Scratch<T>& scratch) {
  [[maybe_unused]] const Timed timed(kSalient);
  const Sizes<T>& sizes = head.sizes;
  const int64_t rows = head.row_count[x];
  const Rows<Factor<T>> query = {head.query[head.row_start[x]], head.query.stride};
  bias_salient(head, x, scratch.salient_bias);
  for (int64_t first = 0; first < head.salient; first += kChunk) {
    const int64_t own = lesser(kChunk, head.salient - first), width = whole_lanes<T>(own);
    set_product(rows, width, steps<T>(call.channels), query.scalars(),
                columns_from(head.salient_keys, first), scratch.attention);
    for (int64_t i = 0; i < rows; ++i) add_row(width, scratch.salient_bias + first, scratch.attention[i]);
    absorb_scores(head, rows, width, scratch);
    add_product(rows, sizes.value_width, steps<T>(own), as_factors(scratch.attention).scalars(),
                rows_from(head.salient_values, first), scratch.out);
  }
}

// Divides by the sums, and puts output and log-sum-exp where the queries stand.
template <class T>
void write_row(const Call& call, const Head<T>& head, int64_t x, bool unknown, Scratch<T>& scratch) {
  [[maybe_unused]] const Timed timed(kWriting);
  for (int64_t i = 0; i < head.row_count[x]; ++i) {
    const int64_t place = head.query_places[head.row_start[x] + i];
    const Token token(call.out, head.batch, head.head, place);
    T& lse = number_at<T>(call.lse, head.batch, head.head, place);
    if (unknown) {
      lse = kInfinity<T> - kInfinity<T>;
      fill_token<T>(call.type, token, call.value_channels, lse);
      continue;
    }
    const T total = scratch.total[i];
    T* out = scratch.out[i];
    scale_row(head.sizes.value_width, total == 0 ? 0 : 1 / total, out);
    write_token(call.type, token, call.value_channels, out);
    lse = scratch.highest[i] + static_cast<T>(__builtin_log(static_cast<double>(total)));
  }
}

// A share of a forward: a group of query blocks.
template <class T>
void attend_group(const Call& call, int64_t share, Head<T>& head, Scratch<T>& scratch) {
  const Sizes<T>& sizes = head.sizes;
  const int64_t first = share * kGroup;
  const int64_t count = lesser(kGroup, head.rows - first);
  if (count <= 0) return;
  const uint64_t unknown = look_at_group(call, head, false, first, count, scratch);
  const bool coarse = call.full && !head.exact;
  if (coarse) {
    [[maybe_unused]] const Timed timed(kCoarse);
    // [count, Z] · [Z, Dv], in pieces that stay near.
    for (int64_t n = 0; n < count; ++n) clear(scratch.coarse_out[n], sizes.value_width);
    for (int64_t z = 0; z < head.cells; z += kChunk) {
      add_product(count, sizes.value_width, lesser(kChunk, head.cells - z),
                  columns_from(scratch.weights, z).scalars(), rows_from(head.cell_values, z),
                  scratch.coarse_out);
    }
  }
  for (int64_t n = 0; n < count; ++n) {
    const int64_t rows = head.row_count[first + n];
    T total = 0;
    if (coarse) {
      Vector<T> sum = {};
      for (int64_t z = 0; z < head.cells; z += kLanes<T>) sum += load(scratch.weights[n] + z);
      total = sum_of_lanes<T>(sum);
    }
    for (int64_t i = 0; i < rows; ++i) {
      T* out = scratch.out[i];
      if (coarse) {
        __builtin_memcpy(out, scratch.coarse_out[n], sizes.value_width * sizeof(T));
      } else {
        clear(out, sizes.value_width);
      }
      scratch.highest[i] = scratch.reference[n];
      scratch.total[i] = total;
    }
    attend_to_blocks(call, head, first + n, scratch);
    if (head.salient) attend_to_salient(call, head, first + n, scratch);
    const bool no_number = unknown >> n & 1 || (!call.full && head.unknown_value);
    write_row(call, head, first + n, no_number, scratch);
  }
}

}  // namespace mra::MRA_TARGET
