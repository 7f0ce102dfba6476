// Backward: the same weights again, from the log-sum-exps, and what flows back through them.
//
// With p the weights and δ_i = dO_i·out_i - dlse_i, for whatever way keys are seen in:
// dV = pᵀ dO, dS = p (dO Vᵀ - δ), dQ = s dS K, dK = s dSᵀ Q. The factor s comes at the end.
#pragma once

#include "group.h"

namespace mra::MRA_TARGET {

// Log-sum-exps and δ of a query block; its gradients by rank. No output: a log-sum-exp of +infinity,
// so that every key weighs 0. Returns whether one is no number.
template <class T>
bool read_results(const Call& call, const Head<T>& head, int64_t x, T* lse, T* delta, T* row) {
  bool unknown = false;
  for (int64_t i = 0; i < head.row_count[x]; ++i) {
    const int64_t rank = head.row_start[x] + i, place = head.query_places[rank];
    const T own = number_at<T>(call.lse, head.batch, head.head, place);
    unknown |= own != own;
    lse[i] = own == -kInfinity<T> ? kInfinity<T> : own;
    read_token(call.type, Token(call.out, head.batch, head.head, place), call.value_channels, row);
    const auto* grad = head.grad_out[rank];
    T sum = 0;
    for (int64_t c = 0; c < call.value_channels; ++c) sum += number(grad[c]) * row[c];
    if (call.grad_lse.data) sum -= number_at<T>(call.grad_lse, head.batch, head.head, place);
    delta[i] = sum;
  }
  return unknown;
}

// The coarse scale: all queries of a block see the same scores, so that their gradients meet in one
// sum per block, each weighted by e^(reference_x - lse_i).
template <class T>
void differentiate_cells(const Call& call, const Head<T>& head, int64_t first, int64_t count,
                         Sums<T>& sums, Scratch<T>& scratch) {
  const Sizes<T>& sizes = head.sizes;
  const int64_t columns = whole_lanes<T>(head.cells);
  for (int64_t n = 0; n < count; ++n) {
    const int64_t rows = head.row_count[first + n];
    const T *lse = scratch.lse + n * sizes.columns, *delta = scratch.delta + n * sizes.columns;
    for (int64_t i = 0; i < rows; i += kLanes<T>) {
      store(scratch.factor + i, exponential<T>(scratch.reference[n] - load(lse + i)));
    }
    T sum = 0;
    clear(scratch.pulled[n], sizes.value_width);
    for (int64_t i = 0; i < rows; ++i) {
      const auto* grad = head.grad_out[head.row_start[first + n] + i];
      add_row(sizes.value_width, grad, scratch.pulled[n], scratch.factor[i]);
      sum += scratch.factor[i] * delta[i];
    }
    scratch.pulled_delta[n] = sum;
  }
  // [count, Dv] · [Dv, Z]
  set_product_with_cells(head, count, call.value_channels, scratch.pulled.scalars(),
                         head.cell_value_columns, scratch.grad_scores);
  for (int64_t n = 0; n < count; ++n) {
    T* row = scratch.grad_scores[n];
    for (int64_t z = 0; z < columns; z += kLanes<T>) {
      store(row + z, (load(row + z) - scratch.pulled_delta[n]) * load(scratch.weights[n] + z));
    }
  }
  const Rows<T> means = {head.query_means[first], head.query_means.stride};
  // [Z, count] · [count, Dv] and [Z, count] · [count, D], [count, Z] · [Z, D]
  add_product(head.cells, sizes.value_width, count, scratch.weights.transposed(), scratch.pulled,
              sums.cell_value);
  add_product(head.cells, sizes.width, count, scratch.grad_scores.transposed(), means,
              sums.cell_key);
  set_product(count, sizes.width, head.cells, scratch.grad_scores.scalars(), head.cell_key_rows,
              scratch.grad_means);
}

// Two rows side by side, so that what they are summed over are queries; and rows as they are.
template <class T>
void pair_rows(int64_t rows, int64_t width, Rows<T> from, Rows<Factor<T>> pairs) {
  for (int64_t i = 0; i < rows; i += 2) {
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      const Vector<T> second = i + 1 < rows ? load(from[i + 1] + j) : Vector<T>{};
      store_pairs(pairs[i / 2] + 2 * j, load(from[i] + j), second);
    }
  }
}

template <class T>
void narrow_rows(int64_t rows, int64_t width, Rows<T> numbers) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      store(as_factors(numbers)[i] + j, load(numbers[i] + j));
    }
  }
}

// Scores become weights, and the products of output gradients and values become score gradients.
template <class T>
void weigh_and_differentiate(const Head<T>& head, int64_t rows, int64_t width, const T* lse,
                             const T* delta, Scratch<T>& scratch) {
  for (int64_t i = 0; i < rows; ++i) {
    T *weights = scratch.attention[i], *grads = scratch.grad_attention[i];
    for (int64_t j = 0; j < width; j += kLanes<T>) {
      const Vector<T> weight = exponential<T>(scores_at(head, weights + j) - lse[i]);
      store(weights + j, weight);
      store(grads + j, weight * (load(grads + j) - delta[i]));
    }
  }
  if constexpr (kPairs<T>) {
    pair_rows(rows, width, scratch.attention, as_factors(scratch.attention));
    pair_rows(rows, width, scratch.grad_attention, scratch.grad_pairs);
    narrow_rows(rows, width, scratch.grad_attention);
  }
}

// Some keys, and where their gradients are collected.
template <class T>
struct Keys {
  int64_t count;
  Rows<T> grad_key, grad_value;  // [count, D], [count, Dv]
};

template <class T>
struct Queries {
  int64_t count;
  Rows<Factor<T>> rows, grad_out;                  // [count, D], [count, Dv]
  Rows<Factor<T>> stacked_rows, stacked_grad_out;  // as right sides of products
  const T *lse, *delta;                            // [count]
};

// Adds to the gradients of keys and values.
template <class T>
void collect(const Sizes<T>& sizes, const Queries<T>& queries, const Keys<T>& keys, int64_t at,
             Scratch<T>& scratch) {
  const auto weights = columns_from(as_factors(scratch.attention), at);
  const auto grads = columns_from(kPairs<T> ? scratch.grad_pairs : as_factors(scratch.grad_attention), at);
  const int64_t depth = steps<T>(queries.count);
  add_product(keys.count, sizes.width, depth, grads.transposed(), queries.stacked_rows,
              keys.grad_key);
  add_product(keys.count, sizes.value_width, depth, weights.transposed(), queries.stacked_grad_out,
              keys.grad_value);
}

template <class T>
Keys<T> keys_of_block(const Head<T>& head, int64_t y, const Sums<T>& sums) {
  const int64_t at = y * head.sizes.block;
  return {lesser(head.sizes.block, head.keys - at),
          {sums.key[at], sums.key.stride},
          {sums.value[at], sums.value.stride}};
}

template <class T>
Keys<T> salient_from(const Head<T>& head, int64_t first, const Sums<T>& sums) {
  return {lesser(kChunk, head.salient - first),
          {sums.salient_key[first], sums.salient_key.stride},
          {sums.salient_value[first], sums.salient_value.stride}};
}

template <class T>
void differentiate_row(const Call& call, const Head<T>& head, int64_t x, const Queries<T>& queries,
                       Sums<T>& sums, Scratch<T>& scratch) {
  const Sizes<T>& sizes = head.sizes;
  const int64_t chosen = list_chosen(head, x, scratch.blocks);
  const int64_t at_once = kChunk / sizes.columns;
  for (int64_t first = 0; first < chosen; first += at_once) {
    const int64_t blocks = lesser(at_once, chosen - first);
    const int32_t* own = scratch.blocks + first;
    // [rows, D] · [D, blocks · columns] and [rows, Dv] · [Dv, blocks · columns]
    set_product_with_blocks(queries.count, steps<T>(call.channels), queries.rows.scalars(), head.key_columns,
                            sizes.columns, own, blocks, scratch.attention);
    set_product_with_blocks(queries.count, steps<T>(call.value_channels), queries.grad_out.scalars(),
                            head.value_columns, sizes.columns, own, blocks,
                            scratch.grad_attention);
    weigh_and_differentiate(head, queries.count, blocks * sizes.columns, queries.lse, queries.delta,
                            scratch);
    // [rows, blocks · b] · [blocks · b, D]
    add_product(queries.count, sizes.width, as_factors(scratch.grad_attention).scalars(),
                chosen_rows(head, head.key_rows, own, blocks), scratch.grad_query);
    for (int64_t n = 0; n < blocks; ++n) {
      const Keys<T> keys = keys_of_block(head, own[n], sums);
      collect(sizes, queries, keys, n * sizes.columns, scratch);
    }
  }
  if (!head.salient) return;
  bias_salient(head, x, scratch.salient_bias);
  for (int64_t first = 0; first < head.salient; first += kChunk) {
    const Keys<T> keys = salient_from(head, first, sums);
    const int64_t width = whole_lanes<T>(keys.count);
    set_product(queries.count, width, steps<T>(call.channels), queries.rows.scalars(),
                columns_from(head.salient_keys, first), scratch.attention);
    set_product(queries.count, width, steps<T>(call.value_channels), queries.grad_out.scalars(),
                columns_from(head.salient_value_columns, first), scratch.grad_attention);
    for (int64_t i = 0; i < queries.count; ++i) {
      add_row(width, scratch.salient_bias + first, scratch.attention[i]);
    }
    weigh_and_differentiate(head, queries.count, width, queries.lse, queries.delta, scratch);
    add_product(queries.count, sizes.width, steps<T>(keys.count),
                as_factors(scratch.grad_attention).scalars(),
                rows_from(head.salient_key_rows, first), scratch.grad_query);
    collect(sizes, queries, keys, 0, scratch);
  }
}

template <class T>
void differentiate_group(const Call& call, const Head<T>& head, int64_t group, Sums<T>& sums,
                         Scratch<T>& scratch) {
  const Sizes<T>& sizes = head.sizes;
  const int64_t first = group * kGroup, count = lesser(kGroup, head.rows - first);
  look_at_group(call, head, true, first, count, scratch);
  for (int64_t n = 0; n < count; ++n) {
    *sums.unknown |= read_results(call, head, first + n, scratch.lse + n * sizes.columns,
                                  scratch.delta + n * sizes.columns, scratch.out[0]);
  }
  const bool coarse = call.full && !head.exact;
  if (coarse) differentiate_cells(call, head, first, count, sums, scratch);
  for (int64_t n = 0; n < count; ++n) {
    const int64_t x = first + n, start = head.row_start[x], rows = head.row_count[x];
    for (int64_t i = 0; i < rows; ++i) {
      T* grad = scratch.grad_query[i];
      clear(grad, sizes.width);
      if (coarse) add_row(sizes.width, scratch.grad_means[n], grad);
      scale_row(sizes.width, 1 / static_cast<T>(rows), grad);
    }
    const Rows<Factor<T>> query = {head.query[start], head.query.stride};
    const Rows<Factor<T>> grad_out = {head.grad_out[start], head.grad_out.stride};
    const Queries<T> queries = {rows,
                                query,
                                grad_out,
                                stacked<T>(rows, sizes.width, query, scratch.stacked_query),
                                stacked<T>(rows, sizes.value_width, grad_out, scratch.stacked_grad_out),
                                scratch.lse + n * sizes.columns,
                                scratch.delta + n * sizes.columns};
    differentiate_row(call, head, x, queries, sums, scratch);
    for (int64_t i = 0; i < rows; ++i) {
      T* grad = scratch.grad_query[i];
      scale_row(sizes.width, static_cast<T>(call.scale), grad);
      const int64_t place = head.query_places[start + i];
      write_token(call.type, Token(call.grad_query, head.batch, head.head, place), call.channels,
                  grad);
    }
  }
}

// A share of a backward: a piece of the query blocks, with sums of its own.
template <class T>
void differentiate_piece(const Call& call, int64_t piece, Head<T>& head, Scratch<T>& scratch) {
  Sums<T>& sums = head.sums[piece];
  const auto clear_rows = [](int64_t count, Rows<T> one) { clear(one.data, count * one.stride); };
  clear_rows(head.keys, sums.key);
  clear_rows(head.keys, sums.value);
  clear_rows(head.cells, sums.cell_key);
  clear_rows(head.cells, sums.cell_value);
  clear_rows(head.salient, sums.salient_key);
  clear_rows(head.salient, sums.salient_value);
  *sums.unknown = false;
  const int64_t groups = ceil_div(head.rows, kGroup), own = ceil_div(groups, head.pieces);
  const int64_t stop = lesser((piece + 1) * own, groups);
  for (int64_t group = piece * own; group < stop; ++group) {
    differentiate_group(call, head, group, sums, scratch);
  }
}

template <class T>
inline void add_rows(int64_t count, Rows<T> rows, Rows<T> sums) {
  for (int64_t n = 0; n < count; ++n) add_row(sums.stride, rows[n], sums[n]);
}

// Adds up the pieces in their order.
template <class T>
void add_pieces(const Head<T>& head) {
  Sums<T>& whole = head.sums[0];
  for (int64_t piece = 1; piece < head.pieces; ++piece) {
    const Sums<T>& more = head.sums[piece];
    add_rows(head.keys, more.key, whole.key);
    add_rows(head.keys, more.value, whole.value);
    add_rows(head.cells, more.cell_key, whole.cell_key);
    add_rows(head.cells, more.cell_value, whole.cell_value);
    add_rows(head.salient, more.salient_key, whole.salient_key);
    add_rows(head.salient, more.salient_value, whole.salient_value);
    *whole.unknown |= *more.unknown;
  }
}

// Not-a-number anywhere in a head of mode "sparse", where it would not come by itself.
template <class T>
void spread_unknown(const Call& call, const Head<T>& head) {
  const T unknown = kInfinity<T> - kInfinity<T>;
  for (int64_t n = 0; n < call.queries; ++n) {
    fill_token<T>(call.type, Token(call.grad_query, head.batch, head.head, n), call.channels, unknown);
  }
  for (int64_t n = 0; n < call.keys; ++n) {
    fill_token<T>(call.type, Token(call.grad_key, head.batch, head.head, n), call.channels, unknown);
    fill_token<T>(call.type, Token(call.grad_value, head.batch, head.head, n), call.value_channels, unknown);
  }
}

// The last stage: gradients of cells go to their keys in equal parts, and all to where keys stand.
template <class T>
void write_key_gradients(const Call& call, Head<T>& head) {
  add_pieces(head);
  Sums<T>& sums = head.sums[0];
  if (!call.full && *sums.unknown) return spread_unknown(call, head);
  const Sizes<T>& sizes = head.sizes;
  for (int64_t j = 0; j < head.salient; ++j) {
    add_row(sizes.width, sums.salient_key[j], sums.key[head.salient_places[j]]);
    add_row(sizes.value_width, sums.salient_value[j], sums.value[head.salient_places[j]]);
  }
  const bool coarse = call.full && !head.exact && head.rows;  // without queries there are no cells
  for (int64_t z = 0; coarse && z < head.cells; ++z) {
    const T share = 1 / greater<T>(head.cell_counts[z], 1);
    scale_row(sizes.width, share, sums.cell_key[z]);
    scale_row(sizes.value_width, share, sums.cell_value[z]);
  }
  for (int64_t j = 0; j < head.keys; ++j) {
    if (coarse && !head.is_salient[j]) {
      add_row(sizes.width, sums.cell_key[j / sizes.cell], sums.key[j]);
      add_row(sizes.value_width, sums.cell_value[j / sizes.cell], sums.value[j]);
    }
    scale_row(sizes.width, static_cast<T>(call.scale), sums.key[j]);
    const int64_t place = head.key_places[j];
    write_token(call.type, Token(call.grad_key, head.batch, head.head, place), call.channels, sums.key[j]);
    write_token(call.type, Token(call.grad_value, head.batch, head.head, place), call.value_channels, sums.value[j]);
  }
}

}  // namespace mra::MRA_TARGET
