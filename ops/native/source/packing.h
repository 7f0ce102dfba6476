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
Rows<Factor<T>> tokens_in_order(const Call& call, const Head<T>& head, const Tensor& x, int64_t channels,
                        int64_t width, const int32_t* places, int64_t count, bool in_order,
                        Rows<Factor<T>> room) {
  using F = Factor<T>;
  const bool same_type = kPairs<T> || call.type == kFloat32 || call.type == kFloat64;
  // Rows far apart cost more each time that they are read than a copy does.
  const bool near = x.strides[2] >= width && x.strides[2] <= 2 * width;
  if (same_type && in_order && x.strides[3] == 1 && near && width == channels) {
    return {Token(x, head.batch, head.head, 0).template at<F>(), x.strides[2]};
  }
  for (int64_t n = 0; n < count; ++n) {
    F* row = room[n];
    read_token(call.type, Token(x, head.batch, head.head, places[n]), channels, row);
    for (int64_t c = channels; c < width; ++c) row[c] = F{};
  }
  return room;
}

// Some tokens with one in each column, [C, columns], times `factor` unless products are of pairs;
// 0 behind the last. row(j) is where token j lies.
template <class T, class Row>
void turn(int64_t count, int64_t columns, int64_t channels, Row row, T factor, Factor<T>* to) {
  constexpr int64_t step = kStep<Factor<T>>;
  for (int64_t c = 0; c < channels; c += step) {
    for (int64_t j = 0; j < count; ++j) {
      if constexpr (kPairs<T>) {
        __builtin_memcpy(to + j * step, row(j) + c, step * sizeof(*to));
      } else {
        to[j] = factor * row(j)[c];
      }
    }
    for (int64_t j = step * count; j < step * columns; ++j) to[j] = {};
    to += step * columns;
  }
}

// The same, block by block: [Y, C, columns].
template <class T>
void turn_blocks(const Sizes<T>& sizes, Rows<Factor<T>> tokens, int64_t count, int64_t channels,
                 T factor, Factor<T>* blocks) {
  for (int64_t start = 0; start < count; start += sizes.block) {
    const auto row = [&](int64_t j) { return tokens[start + j]; };
    turn<T>(lesser(sizes.block, count - start), sizes.columns, channels, row, factor, blocks);
    blocks += sizes.numbers_of_block(channels);
  }
}

// Some tokens as the right side of a product that sums over them.
template <class T, class Row>
void stack(int64_t count, int64_t width, Row row, Rows<Factor<T>> to) {
  if constexpr (kPairs<T>) {
    for (int64_t j = 0; j < count; j += 2) {
      for (int64_t c = 0; c < width; c += kLanes<T>) {
        const auto second = j + 1 < count ? load_bits(row(j + 1) + c) : Integers<T>{};
        store_pairs(to[j / 2] + 2 * c, load_bits(row(j) + c), second);
      }
    }
  } else {
    for (int64_t j = 0; j < count; ++j) __builtin_memcpy(to[j], row(j), width * sizeof(T));
  }
}

// The same for tokens that follow each other; without pairs they do as they are.
template <class T>
Rows<Factor<T>> stacked(int64_t count, int64_t width, Rows<Factor<T>> tokens,
                        Rows<Factor<T>> room) {
  if constexpr (!kPairs<T>) return tokens;
  stack<T>(count, width, [&](int64_t j) { return tokens[j]; }, room);
  return room;
}

template <class T, class F>
inline void add_row(int64_t width, const F* row, T* sum, T factor) {
  for (int64_t c = 0; c < width; c += kLanes<T>) store(sum + c, load(sum + c) + load(row + c) * factor);
}

template <class T, class F>
inline void add_row(int64_t width, const F* row, T* sum) {
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
  [[maybe_unused]] const Timed timed(kPooling);
  const int64_t channels = call.channels;
  for (int64_t x = 0; x < head.rows; ++x) {
    T* mean = head.query_means[x];
    clear(mean, head.sizes.width);
    const int64_t count = head.row_count[x];
    for (int64_t i = 0; i < count; ++i) {
      const auto* row = head.query[head.row_start[x] + i];
      for (int64_t c = 0; c < channels; ++c) mean[c] += number(row[c]);
    }
    scale_row(head.sizes.width, 1 / static_cast<T>(count), mean);
  }
}

// Means of cells with one in each column, times a factor: [Z / w, C, w], 0 behind the last.
template <class T>
void turn_cells(const Head<T>& head, Rows<T> means, int64_t channels, T factor, T* to) {
  for (int64_t first = 0; first < head.cells; first += kBeside<T>) {
    const int64_t own = lesser(kBeside<T>, head.cells - first);
    for (int64_t c = 0; c < channels; ++c, to += kBeside<T>) {
      for (int64_t z = 0; z < own; ++z) to[z] = factor * means[first + z][c];
      for (int64_t z = own; z < kBeside<T>; ++z) to[z] = 0;
    }
  }
}

// Means of the keys and values of each cell that are not salient, and how many these are.
template <class T>
void pool_cells(const Call& call, Head<T>& head) {
  [[maybe_unused]] const Timed timed(kPooling);
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
  turn_cells(head, head.cell_key_rows, call.channels, static_cast<T>(call.scale), head.cell_keys);
}

// Whether a real token holds what is no number.
template <class T>
bool has_unknown(Rows<Factor<T>> tokens, int64_t count, int64_t width) {
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

// Puts salient keys and values next to each other.
template <class T>
void pack_salient(const Call& call, bool backward, Head<T>& head) {
  [[maybe_unused]] const Timed timed(kSalient);
  const Sizes<T>& sizes = head.sizes;
  const int64_t count = head.salient, columns = whole_lanes<T>(count);
  if (!count) return;
  const auto key = [&](int64_t j) { return head.key[head.salient_places[j]]; };
  const auto value = [&](int64_t j) { return head.value[head.salient_places[j]]; };
  head.salient_keys.stride = columns * kStep<Factor<T>>;
  turn<T>(count, columns, call.channels, key, static_cast<T>(call.scale), head.salient_keys.data);
  stack<T>(count, sizes.value_width, value, head.salient_values);
  if (!backward) return;
  head.salient_value_columns.stride = columns * kStep<Factor<T>>;
  turn<T>(count, columns, call.value_channels, value, 1, head.salient_value_columns.data);
  stack<T>(count, sizes.width, key, head.salient_key_rows);
}

}  // namespace mra::MRA_TARGET
