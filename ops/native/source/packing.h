// The first stage: tokens in order, blocks cut, means taken.
#pragma once

#include "head.h"

namespace mra::MRA_TARGET {

// Ranks of real keys and of served queries; query blocks.
template <class T>
void order_tokens(const Call& call, Head<T>& head) {
  const bool masks_keys = call.key_mask.data, masks_queries = call.query_mask.data;
  head.keys = 0;
  for (int64_t n = 0; n < call.keys; ++n) {
    if (!masks_keys || is_real(call.key_mask, head.batch, n)) {
      head.key_places[head.keys++] = static_cast<int32_t>(n);
    }
  }
  head.keys_in_order = !head.keys || head.key_places[head.keys - 1] == head.keys - 1;

  // In self-attention the key mask says which queries are at padding, where nothing else does.
  const bool serves_padding = masks_keys && !masks_queries && call.queries == call.keys;
  const Tensor& mask = serves_padding ? call.key_mask : call.query_mask;
  head.queries = 0;
  for (int64_t n = 0; n < call.queries && head.keys; ++n) {
    if (!mask.data || is_real(mask, head.batch, n)) {
      head.query_places[head.queries++] = static_cast<int32_t>(n);
    }
  }
  head.real_queries = head.queries;
  for (int64_t n = 0; serves_padding && n < call.queries && head.keys; ++n) {
    if (!is_real(mask, head.batch, n)) head.query_places[head.queries++] = static_cast<int32_t>(n);
  }
  head.queries_in_order = true;
  for (int64_t n = 0; n < head.queries; ++n) head.queries_in_order &= head.query_places[n] == n;

  const int64_t block = head.sizes.block;
  head.rows = 0;
  const auto cut = [&](int64_t start, int64_t stop) {
    while (start < stop) {
      const int64_t end = lesser((start / block + 1) * block, stop);
      head.row_start[head.rows] = static_cast<int32_t>(start);
      head.row_count[head.rows++] = static_cast<int32_t>(end - start);
      start = end;
    }
  };
  cut(0, head.real_queries);
  head.real_rows = head.rows;
  cut(head.real_queries, head.queries);
  head.blocks_y = ceil_div(head.keys, block);
  head.cells = ceil_div(head.keys, head.sizes.cell);
  head.exact = call.exact_up_to && head.keys <= call.exact_up_to;
}

// Tokens by rank: in the call's own memory if they lie there as they are needed, else copied.
//
// `width` is how many channels can be read of each row; behind the last one stand zeros.
template <class T>
Rows<T> tokens_in_order(const Call& call, const Head<T>& head, const Tensor& x, int64_t channels,
                        int64_t width, const int32_t* places, int64_t count, bool in_order,
                        Rows<T> room) {
  const bool same_type = call.type == kFloat32 || call.type == kFloat64;
  // Rows far apart cost more each time that they are read than a copy does.
  const bool near = x.strides[2] >= width && x.strides[2] <= 2 * width;
  if (same_type && in_order && x.strides[3] == 1 && near && width == channels) {
    return {Token(x, head.batch, head.head, 0).template at<T>(), x.strides[2]};
  }
  for (int64_t n = 0; n < count; ++n) {
    T* row = room[n];
    read_token(call.type, Token(x, head.batch, head.head, places[n]), channels, row);
    for (int64_t c = channels; c < width; ++c) row[c] = 0;
  }
  return room;
}

// Blocks of tokens with a key in each column: [Y, C, columns], times a factor, 0 behind the last key.
template <class T>
void turn_blocks(const Sizes<T>& sizes, Rows<T> tokens, int64_t count, int64_t channels, T factor,
                 T* blocks) {
  for (int64_t start = 0; start < count; start += sizes.block) {
    const int64_t own = lesser(sizes.block, count - start);
    for (int64_t c = 0; c < channels; ++c) {
      T* row = blocks + c * sizes.columns;
      for (int64_t j = 0; j < own; ++j) row[j] = factor * tokens[start + j][c];
      for (int64_t j = own; j < sizes.columns; ++j) row[j] = 0;
    }
    blocks += channels * sizes.columns;
  }
}

template <class T>
inline void add_row(int64_t width, const T* row, T* sum) {
  for (int64_t c = 0; c < width; c += kLanes<T>) store(sum + c, load(sum + c) + load(row + c));
}

template <class T>
inline void scale_row(int64_t width, T factor, T* row) {
  for (int64_t c = 0; c < width; c += kLanes<T>) store(row + c, load(row + c) * factor);
}

template <class T>
inline void clear(T* from, int64_t count) {
  __builtin_memset(from, 0, static_cast<size_t>(count) * sizeof(T));
}

// q̂, the means of the query blocks.
template <class T>
void pool_queries(const Call& call, Head<T>& head) {
  const int64_t channels = call.channels;
  for (int64_t x = 0; x < head.rows; ++x) {
    T* mean = head.query_means[x];
    clear(mean, head.sizes.width);
    const int64_t count = head.row_count[x];
    for (int64_t i = 0; i < count; ++i) {
      const T* row = head.query[head.row_start[x] + i];
      for (int64_t c = 0; c < channels; ++c) mean[c] += row[c];
    }
    scale_row(head.sizes.width, 1 / static_cast<T>(count), mean);
  }
}

// Means of the keys and values of each cell that are not salient, and how many these are.
template <class T>
void pool_cells(const Call& call, Head<T>& head) {
  const Sizes<T>& sizes = head.sizes;
  const int64_t columns = whole_lanes<T>(head.cells);
  for (int64_t y = 0; y < head.blocks_y; ++y) head.block_counts[y] = 0;
  for (int64_t z = 0; z < columns; ++z) head.cell_counts[z] = 0, head.cell_log_counts[z] = -kInfinity<T>;
  for (int64_t z = 0; z < head.cells; ++z) {
    T *key = head.cell_key_rows[z], *value = head.cell_values[z];
    clear(key, sizes.width);
    clear(value, sizes.value_width);
    int64_t count = 0;
    const int64_t stop = lesser((z + 1) * sizes.cell, head.keys);
    for (int64_t j = z * sizes.cell; j < stop; ++j) {
      if (head.is_salient[j]) continue;
      ++count;
      add_row(sizes.width, head.key[j], key);
      add_row(sizes.value_width, head.value[j], value);
    }
    const T share = 1 / static_cast<T>(greater<int64_t>(count, 1));
    scale_row(sizes.width, share, key);
    scale_row(sizes.value_width, share, value);
    head.cell_counts[z] = static_cast<T>(count);
    if (count) {
      head.cell_log_counts[z] = static_cast<T>(__builtin_log(static_cast<double>(count)));
      head.block_counts[z * sizes.cell / sizes.block] += static_cast<T>(count);
    }
  }
  const T scale = static_cast<T>(call.scale);
  for (int64_t c = 0; c < call.channels; ++c) {
    T* row = head.cell_keys[c];
    for (int64_t z = 0; z < head.cells; ++z) row[z] = scale * head.cell_key_rows[z][c];
    for (int64_t z = head.cells; z < columns; ++z) row[z] = 0;
  }
}

// Whether a real token holds what is no number.
template <class T>
bool has_unknown(Rows<T> tokens, int64_t count, int64_t width) {
  Integers<T> found = {};
  for (int64_t n = 0; n < count; ++n) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      const Vector<T> x = load(tokens[n] + c);
      found |= x != x;
    }
  }
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    if (found[lane]) return true;
  }
  return false;
}

// Copies salient keys and values next to each other.
template <class T>
void pack_salient(const Call& call, bool backward, Head<T>& head) {
  const Sizes<T>& sizes = head.sizes;
  const int64_t columns = whole_lanes<T>(head.salient);
  const T scale = static_cast<T>(call.scale);
  const auto turn = [&](Rows<T> tokens, int64_t channels, T factor, Rows<T> to) {
    for (int64_t c = 0; c < channels; ++c) {
      T* row = to[c];
      for (int64_t j = 0; j < head.salient; ++j) {
        row[j] = factor * tokens[head.salient_places[j]][c];
      }
      for (int64_t j = head.salient; j < columns; ++j) row[j] = 0;
    }
  };
  turn(head.key, call.channels, scale, head.salient_keys);
  for (int64_t j = 0; j < head.salient; ++j) {
    const T* value = head.value[head.salient_places[j]];
    for (int64_t c = 0; c < sizes.value_width; ++c) head.salient_values[j][c] = value[c];
  }
  if (!backward) return;
  turn(head.value, call.value_channels, 1, head.salient_value_columns);
  for (int64_t j = 0; j < head.salient; ++j) {
    const T* key = head.key[head.salient_places[j]];
    for (int64_t c = 0; c < sizes.width; ++c) head.salient_key_rows[j][c] = key[c];
  }
}

}  // namespace mra::MRA_TARGET
