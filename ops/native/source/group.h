// What both directions know of a group of query blocks: what they chose, and how they attend to the
// rest by cells.
#pragma once

#include "coarse.h"
#include "scratch.h"

namespace mra::MRA_TARGET {

template <class T>
inline uint8_t* kept_choice(const Call& call, const Head<T>& head) {
  const int64_t pairs = head.sizes.blocks_x * head.sizes.blocks_y + 1;
  return static_cast<uint8_t*>(call.chosen.data) + (head.batch * call.heads + head.head) * pairs;
}

// Chooses for a query block if that is not done; its scores are those of the group.
template <class T>
void choose_row(const Call& call, const Head<T>& head, bool backward, int64_t x, Rows<T> scores,
                Rows<T> masses, Scratch<T>& scratch) {
  const int64_t blocks_y = head.sizes.blocks_y;
  uint8_t* chosen = head.chosen + x * blocks_y;
  const bool real = x < head.real_rows;
  uint8_t* kept = kept_choice(call, head) + x * blocks_y;
  if (head.exact) {
    for (int64_t y = 0; y < head.blocks_y; ++y) chosen[y] = 1;
  } else if (real && backward) {
    for (int64_t y = 0; y < head.blocks_y; ++y) chosen[y] = kept[y];
  } else if (real && call.per_row) {
    const Priors priors = {call.first_blocks, call.diagonal_blocks};
    choose_by_row(call, head, x, 1, call.block_per_row, priors, scores, masses,
                  scratch.block_scores, scratch.ranks);
  } else if (!real) {
    const int64_t budget = call.num_blocks
                               ? ceil_div(call.num_blocks, greater<int64_t>(head.sizes.blocks_x, 1))
                               : call.block_per_row;
    choose_by_row(call, head, x, 1, budget, Priors{0, 0}, scores, masses, scratch.block_scores,
                  scratch.ranks);
  }
  if (real && !backward) {
    for (int64_t y = 0; y < head.blocks_y; ++y) kept[y] = chosen[y];
  }
}

// Fills in what some query blocks chose, and in mode "full" the weights and references of cells.
// Returns whether one of them scores what is no number, by bits: 1 for the first.
template <class T>
uint64_t look_at_group(const Call& call, const Head<T>& head, bool backward, int64_t first,
                       int64_t count, Scratch<T>& scratch) {
  [[maybe_unused]] const Timed timed(kChoosing);
  const int64_t columns = whole_lanes<T>(head.cells);
  uint64_t unknown = 0;
  if (!head.exact) score_cells(call, head, first, count, scratch.scores);
  for (int64_t n = 0; n < count; ++n) {
    T *scores = scratch.scores[n], *weights = scratch.weights[n];
    T reference = 0;
    if (!head.exact && call.by_mass) reference = weigh_cells(head, scores, weights);
    choose_row(call, head, backward, first + n, Rows<T>{scores, 0}, Rows<T>{weights, 0}, scratch);
    scratch.reference[n] = -kInfinity<T>;
    if (head.exact) continue;
    if (call.full) {
      const uint8_t* chosen = head.chosen + (first + n) * head.sizes.blocks_y;
      scratch.reference[n] = weigh_others(call, head, chosen, reference, scores, weights);
    } else {
      T sum = 0;
      for (int64_t z = 0; z < columns; ++z) sum += scores[z] != scores[z] ? 1 : 0;
      if (sum > 0) unknown |= static_cast<uint64_t>(1) << n;
    }
  }
  return unknown;
}

// The key blocks that a query block chose; returns how many.
template <class T>
int64_t list_chosen(const Head<T>& head, int64_t x, int32_t* blocks) {
  const uint8_t* chosen = head.chosen + x * head.sizes.blocks_y;
  int64_t count = 0;
  for_each_chosen(chosen, head.blocks_y,
                  [&](int64_t y) { blocks[count++] = static_cast<int32_t>(y); });
  return count;
}

// Keys or values of some key blocks, as the right side of a product.
template <class T>
inline Pieces<Factor<T>> chosen_rows(const Head<T>& head, Rows<Factor<T>> tokens,
                                     const int32_t* blocks, int64_t count) {
  return {tokens.data,       tokens.stride,
          blocks,            count,
          steps<T>(head.sizes.block), steps<T>(head.keys),
          steps<T>(head.sizes.columns)};
}

// Scores as products gave them, in numbers that exponentials take.
template <class T>
inline Vector<T> scores_at(const Head<T>& head, const T* products) {
  return kPairs<T> ? load(products) * head.factor : load(products);
}

// Where weights stand as the left side of a product: where they were computed. Pairs take half as
// much room, so that they are written behind what is read.
template <class T>
inline Rows<Factor<T>> as_factors(Rows<T> weights) {
  return {reinterpret_cast<Factor<T>*>(weights.data),
          weights.stride * static_cast<int64_t>(sizeof(T) / sizeof(Factor<T>))};
}

// -infinity for salient keys that a query block sees in a chosen block, 0 for others.
template <class T>
void bias_salient(const Head<T>& head, int64_t x, T* bias) {
  const uint8_t* chosen = head.chosen + x * head.sizes.blocks_y;
  const int64_t columns = whole_lanes<T>(head.salient);
  for (int64_t j = 0; j < columns; ++j) {
    const bool seen = j >= head.salient || chosen[head.salient_places[j] / head.sizes.block];
    bias[j] = seen ? -kInfinity<T> : 0;
  }
}

}  // namespace mra::MRA_TARGET
