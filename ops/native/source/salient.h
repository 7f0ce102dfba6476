// The keys that take the greatest share of the attention of some query blocks' means.
#pragma once

#include "packing.h"

namespace mra::MRA_TARGET {

// Adds the shares that some probes give to each key, which stands in a column of its block.
template <class T>
void add_importance(const Call& call, Head<T>& head, int64_t first, int64_t count) {
  const Sizes<T>& sizes = head.sizes;
  constexpr int64_t step = kStep<Factor<T>>;
  const int64_t columns = head.blocks_y * sizes.columns;
  const Rows<T> scores = {head.probe_scores.data, head.blocks_y * sizes.columns};
  for (int64_t y = 0; y < head.blocks_y; ++y) {
    const Rows<Factor<T>> keys = {head.key_columns + y * sizes.numbers_of_block(call.channels),
                                  step * sizes.columns};
    set_product(count, sizes.columns, steps<T>(call.channels),
                Scalars<T>{head.probes[first], head.probes.stride, step}, keys,
                Rows<T>{scores.data + y * sizes.columns, scores.stride});
    const int64_t own = lesser(sizes.block, head.keys - y * sizes.block);
    for (int64_t p = 0; p < count; ++p) {
      for (int64_t j = own; j < sizes.columns; ++j) scores[p][y * sizes.columns + j] = -kInfinity<T>;
    }
  }
  for (int64_t p = 0; p < count; ++p) {
    T* row = scores[p];
    Vector<T> highest = all(-kInfinity<T>);
    for (int64_t j = 0; j < columns; j += kLanes<T>) highest = greatest<T>(load(row + j), highest);
    const T most = greatest_lane<T>(highest) * head.factor;
    Vector<T> sum = {};
    for (int64_t j = 0; j < columns; j += kLanes<T>) {
      const Vector<T> weight = exponential<T>(scores_at(head, row + j) - most);
      store(row + j, weight);
      sum += weight;
    }
    const T share = 1 / sum_of_lanes<T>(sum);
    for (int64_t j = 0; j < columns; j += kLanes<T>) {
      store(head.importance + j, load(head.importance + j) + load(row + j) * share);
    }
  }
}

// Probes are the means of all real query blocks, or of 64 spread evenly if there are more.
template <class T>
void find_salient(const Call& call, Head<T>& head) {
  [[maybe_unused]] const Timed timed(kSalient);
  using Rank = typename RankOf<T>::type;
  const Sizes<T>& sizes = head.sizes;
  for (int64_t j = 0; j < head.keys; ++j) head.is_salient[j] = false;
  head.salient = 0;
  if (!sizes.salient || head.exact || !head.real_rows) return;
  const int64_t probes = lesser(head.real_rows, kProbes);
  for (int64_t p = 0; p < probes; ++p) {
    const int64_t x = head.real_rows > kProbes ? (2 * p + 1) * head.real_rows / (2 * kProbes) : p;
    for (int64_t c = 0; c < sizes.width; ++c) head.probes[p][c] = head.query_means[x][c];
  }
  clear(head.importance, head.blocks_y * sizes.columns);
  for (int64_t p = 0; p < probes; p += kGroup) {
    add_importance(call, head, p, lesser(kGroup, probes - p));
  }
  Rank* ranks = static_cast<Rank*>(head.ranks);
  for (int64_t j = 0; j < head.keys; ++j) {
    ranks[j] = rank_of<T>(head.importance[j / sizes.block * sizes.columns + j % sizes.block]);
  }
  Cut<Rank> cut = cut_for(ranks, head.keys, sizes.salient);
  for (int64_t j = 0; j < head.keys; ++j) {
    if (!ranks[j] || !takes(cut, ranks[j])) continue;
    head.is_salient[j] = true;
    head.salient_places[head.salient++] = j;
  }
}

// The places of salient keys as a forward keeps them for its backward: -1 in front is none.
template <class T>
void keep_salient(const Call& call, const Head<T>& head) {
  if (!call.salient_keys) return;
  const int64_t at = (head.batch * call.heads + head.head) * call.salient_keys;
  int64_t* kept = static_cast<int64_t*>(call.salient.data) + at;
  const int64_t none = call.salient_keys - head.salient;
  for (int64_t j = 0; j < none; ++j) kept[j] = -1;
  for (int64_t j = 0; j < head.salient; ++j) kept[none + j] = head.salient_places[j];
}

template <class T>
void recall_salient(const Call& call, Head<T>& head) {
  const int64_t at = (head.batch * call.heads + head.head) * call.salient_keys;
  const int64_t* kept = static_cast<const int64_t*>(call.salient.data) + at;
  for (int64_t j = 0; j < head.keys; ++j) head.is_salient[j] = false;
  head.salient = 0;
  for (int64_t j = 0; j < call.salient_keys; ++j) {
    if (kept[j] < 0) continue;
    head.is_salient[kept[j]] = true;
    head.salient_places[head.salient++] = kept[j];
  }
}

}  // namespace mra::MRA_TARGET
