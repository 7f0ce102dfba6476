// The coarse scale: what query blocks' means score with cells, and what is chosen by that.
#pragma once

#include <type_traits>

#include "packing.h"

namespace mra::MRA_TARGET {

// What is left beside the chosen blocks, as a share of the greatest cell. With less, numbers would
// lose what a query sees that does not see the chosen blocks as its block's mean does.
template <class T>
constexpr T kLeastMass = static_cast<T>(1e-25);

// C = A B, B with a cell in each column as `turn_cells` leaves them: C [rows, Z], A [rows, depth].
template <class T>
void set_product_with_cells(const Head<T>& head, int64_t rows, int64_t depth, Scalars<T> a,
                            const T* b, Rows<T> c) {
  constexpr int64_t width = kBeside<T>;
  int64_t z = 0;
  for (; z + width / 2 < head.cells; z += width, b += depth * width) {
    const T* const starts[2] = {b, b + width / 2};
    multiply_vectors<T, 2>(rows, depth, a, starts, width, c.data + z, c.stride);
  }
  if (z < head.cells) multiply_vectors<T, 1>(rows, depth, a, &b, width, c.data + z, c.stride);
}

// Coarse scores of some query blocks, [count, Z]: ŝ_xz = s q̂_x·k̂_z.
template <class T>
void score_cells(const Call& call, const Head<T>& head, int64_t first, int64_t count, Rows<T> scores) {
  set_product_with_cells(head, count, call.channels,
                         Scalars<T>{head.query_means[first], head.query_means.stride, 1},
                         head.cell_keys, scores);
}

// n_z e^(ŝ_xz - reference), over all cells; returns the reference, the greatest ŝ_xz + log n_z.
template <class T>
T weigh_cells(const Head<T>& head, const T* scores, T* masses) {
  const int64_t columns = whole_lanes<T>(head.cells);
  Vector<T> highest = all(-kInfinity<T>);
  for (int64_t z = 0; z < columns; z += kLanes<T>) {
    const Vector<T> mass = load(scores + z) + load(head.cell_log_counts + z);
    store(masses + z, mass);
    highest = greatest<T>(mass, highest);
  }
  const T most = greatest_lane<T>(highest);
  const T reference = most == -kInfinity<T> ? 0 : most;
  for (int64_t z = 0; z < columns; z += kLanes<T>) {
    store(masses + z, exponential<T>(load(masses + z) - reference));
  }
  return reference;
}

// Sums over the cells of each block, [Z] to [Y].
template <class T, int kCells>
inline void sum_cells(int64_t blocks, const T* cells, T* sums) {
  for (int64_t y = 0; y < blocks; ++y) {
    T sum = 0;
#pragma GCC unroll 16
    for (int n = 0; n < kCells; ++n) sum += cells[y * kCells + n];
    sums[y] = sum;
  }
}

template <class T>
void sum_cells_of_blocks(const Head<T>& head, const T* cells, T* sums) {
  const int64_t per_block = head.sizes.block / head.sizes.cell, whole = head.cells / per_block;
  switch (per_block) {
    case 1: sum_cells<T, 1>(whole, cells, sums); break;
    case 2: sum_cells<T, 2>(whole, cells, sums); break;
    case 4: sum_cells<T, 4>(whole, cells, sums); break;
    case 8: sum_cells<T, 8>(whole, cells, sums); break;
    default:
      for (int64_t y = 0; y < whole; ++y) {
        T sum = 0;
        for (int64_t n = 0; n < per_block; ++n) sum += cells[y * per_block + n];
        sums[y] = sum;
      }
  }
  if (whole == head.blocks_y) return;
  T sum = 0;
  for (int64_t z = whole * per_block; z < head.cells; ++z) sum += cells[z];
  sums[whole] = sum;
}

// What the blocks of a row are chosen by, [Y]; -infinity for a block without a key left.
template <class T>
void score_blocks(const Call& call, const Head<T>& head, const T* scores, T* masses, T* found) {
  constexpr T tiny = sizeof(T) == 4 ? static_cast<T>(__FLT_MIN__) : static_cast<T>(__DBL_MIN__);
  const int64_t blocks = head.blocks_y;
  if (call.by_mass) {
    sum_cells_of_blocks(head, masses, found);
    Vector<T> sums = {};
    for (int64_t y = 0; y < blocks / kLanes<T> * kLanes<T>; y += kLanes<T>) sums += load(found + y);
    T total = sum_of_lanes<T>(sums);
    for (int64_t y = blocks / kLanes<T> * kLanes<T>; y < blocks; ++y) total += found[y];
    for (int64_t y = 0; y < blocks; ++y) {
      const T share = found[y] / total;
      found[y] = head.block_counts[y] > 0 ? (share < tiny ? tiny : share) : -kInfinity<T>;
    }
    return;
  }
  // Rows are compared by how far each block falls behind the row's best one.
  const T* sums = scores;
  if (head.sizes.cell != head.sizes.block) {
    // There are no masses, and room for them.
    for (int64_t z = 0; z < head.cells; ++z) masses[z] = scores[z] * head.cell_counts[z];
    sum_cells_of_blocks(head, masses, found);
    for (int64_t y = 0; y < blocks; ++y) found[y] /= head.block_counts[y];
    sums = found;
  }
  for (int64_t y = 0; y < blocks; ++y) {
    found[y] = head.block_counts[y] > 0 ? sums[y] : -kInfinity<T>;
  }
  const int64_t whole = blocks / kLanes<T> * kLanes<T>;
  Vector<T> highest = all(-kInfinity<T>);
  for (int64_t y = 0; y < whole; y += kLanes<T>) highest = greatest<T>(load(found + y), highest);
  T most = greatest_lane<T>(highest);
  for (int64_t y = whole; y < blocks; ++y) most = greater(found[y], most);
  for (int64_t y = 0; y < blocks; ++y) found[y] -= most;
}

// Blocks that come first have ranks above all others, whatever these score.
struct Priors {
  int64_t first, diagonal;

  bool any() const { return first || diagonal; }
  double of(int64_t x, int64_t y) const {
    const int64_t apart = x > y ? x - y : y - x;
    return 1e9 * ((x < first) + (y < first) + (diagonal && apart <= diagonal / 2));
  }
};

// Ranks of the blocks of a row, [Y].
template <class T, class Rank>
void rank_blocks(const Call& call, const Head<T>& head, int64_t x, Priors priors, const T* found,
                 Rank* ranks) {
  if constexpr (sizeof(Rank) == sizeof(T)) {
    if (!priors.any()) {
      for (int64_t y = 0; y < head.blocks_y; ++y) ranks[y] = rank_of<T>(found[y]);
      return;
    }
  }
  if constexpr (sizeof(Rank) == sizeof(double)) {
    for (int64_t y = 0; y < head.blocks_y; ++y) {
      const double score = static_cast<double>(found[y]);
      ranks[y] = rank_of<double>((call.by_mass ? __builtin_log(score) : score) + priors.of(x, y));
    }
  }
}

// The best blocks of each row, for some rows.
template <class T>
void choose_by_row(const Call& call, const Head<T>& head, int64_t first, int64_t count,
                   int64_t budget, Priors priors, Rows<T> scores, Rows<T> masses, T* found,
                   void* memory) {
  const auto choose = [&](auto* ranks) {
    for (int64_t x = first; x < first + count; ++x) {
      uint8_t* chosen = head.chosen + x * head.sizes.blocks_y;
      score_blocks(call, head, scores[x - first], masses[x - first], found);
      rank_blocks(call, head, x, priors, found, ranks);
      mark_taken(cut_for(ranks, head.blocks_y, budget), ranks, head.blocks_y, chosen);
    }
  };
  if (priors.any()) {
    choose(static_cast<uint64_t*>(memory));
  } else {
    choose(static_cast<typename RankOf<T>::type*>(memory));
  }
}

// The best pairs of all real query blocks.
template <class T>
void choose_globally(const Call& call, Head<T>& head) {
  [[maybe_unused]] const Timed timed(kChoosing);
  const Priors priors = {call.first_blocks, call.diagonal_blocks};
  const int64_t columns = head.sizes.blocks_y;
  const auto choose = [&](auto* ranks) {
    using Rank = std::remove_pointer_t<decltype(ranks)>;
    Rank* row = static_cast<Rank*>(head.row_ranks);
    Leaders<Rank> leaders(ranks, head.leader_places, whole_budget(call, head.real_rows), head.leaders);
    for (int64_t first = 0; first < head.real_rows; first += kGroup) {
      const int64_t count = lesser(kGroup, head.real_rows - first);
      score_cells(call, head, first, count, head.scores);
      for (int64_t x = 0; x < count; ++x) {
        if (call.by_mass) weigh_cells(head, head.scores[x], head.masses[x]);
        score_blocks(call, head, head.scores[x], head.masses[x], head.block_scores);
        rank_blocks(call, head, first + x, priors, head.block_scores, row);
        leaders.add(row, head.blocks_y, (first + x) * columns);
      }
    }
    clear(head.chosen, head.real_rows * columns);
    leaders.finish([&](int64_t place) { head.chosen[place] = 1; });
  };
  if (priors.any()) {
    choose(static_cast<uint64_t*>(head.ranks));
  } else {
    choose(static_cast<typename RankOf<T>::type*>(head.ranks));
  }
}

// How a query block attends to the cells of blocks that it did not choose.
//
// Makes the masses weights n_z e^(ŝ_xz - reference), 0 where the block is chosen, and returns their
// reference; -infinity and only zeros if nothing is left.
template <class T>
T weigh_others(const Call& call, const Head<T>& head, const uint8_t* chosen, T reference,
               const T* scores, T* weights) {
  const int64_t columns = whole_lanes<T>(head.cells);
  const int64_t per_block = head.sizes.block / head.sizes.cell;
  const auto leave_out = [&](T nothing) {
    for_each_chosen(chosen, head.blocks_y, [&](int64_t y) {
      const int64_t stop = lesser((y + 1) * per_block, head.cells);
      for (int64_t z = y * per_block; z < stop; ++z) weights[z] = nothing;
    });
  };
  if (call.by_mass) {
    leave_out(0);
    Vector<T> sum = {};
    for (int64_t z = 0; z < columns; z += kLanes<T>) sum += load(weights + z);
    if (sum_of_lanes<T>(sum) > kLeastMass<T>) return reference;
  }
  for (int64_t z = 0; z < columns; z += kLanes<T>) {
    store(weights + z, load(scores + z) + load(head.cell_log_counts + z));
  }
  leave_out(-kInfinity<T>);
  Vector<T> highest = all(-kInfinity<T>);
  for (int64_t z = 0; z < columns; z += kLanes<T>) highest = greatest<T>(load(weights + z), highest);
  const T most = greatest_lane<T>(highest);
  const T shift = most == -kInfinity<T> ? 0 : most;
  for (int64_t z = 0; z < columns; z += kLanes<T>) {
    store(weights + z, exponential<T>(load(weights + z) - shift));
  }
  return most;
}

}  // namespace mra::MRA_TARGET
