// A head while it is worked on: its tokens in order, its blocks and cells, and their means.
//
// Padding is taken out first: positions are ranks among the real tokens. Queries at padding that are
// to be served stand behind the real ones, in blocks of their own.
#pragma once

#include "product.h"
#include "ranking.h"
#include "stages.h"
#include "tokens.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace mra::MRA_TARGET {

constexpr int64_t kProbes = 64;  // query blocks that say which keys are salient
constexpr int64_t kGroup = 8;    // query blocks whose coarse rows are worked on together

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Cells that stand side by side, w: as many columns as a product takes at once.
template <class T>
constexpr int64_t kBeside = 2 * kLanes<T>;

template <class T>
inline int64_t whole_lanes(int64_t n) {
  return ceil_div(n, kLanes<T>) * kLanes<T>;
}

// Cuts one piece of memory into arrays; without memory it only counts how much they take.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class U>
  U* take(int64_t count) {
    char* start = memory_ ? memory_ + used_ : nullptr;
    const int64_t bytes = count * static_cast<int64_t>(sizeof(U));
    used_ += ceil_div(bytes, 64) * 64;
#ifdef __SANITIZE_ADDRESS__
    // What is behind an array is none of its own, where that can be checked.
    used_ += 64;
    if (memory_) {
      ASAN_UNPOISON_MEMORY_REGION(start, bytes);
      ASAN_POISON_MEMORY_REGION(start + bytes, memory_ + used_ - start - bytes);
    }
#endif
    return reinterpret_cast<U*>(start);
  }

  template <class T>
  Rows<T> rows(int64_t count, int64_t stride) {
    return {take<T>(count * stride), stride};
  }

  int64_t used() const { return used_; }

 private:
  char* memory_;
  int64_t used_ = 0;
};

// What the whole matrix may spend.
inline int64_t whole_budget(const Call& call, int64_t rows) {
  return call.num_blocks ? call.num_blocks : call.block_per_row * rows;
}

// Lengths that are the same for all heads of a call.
template <class T>
struct Sizes {
  int64_t block, columns;        // b; keys of a block, filled up to whole vectors
  int64_t blocks_x, blocks_y;    // X, Y
  int64_t rows;                  // query blocks that a head can have: X, and one that is cut in two
  int64_t cell, cells, cell_columns;
  int64_t salient, salient_columns;
  int64_t width, value_width;    // channels in whole vectors

  explicit Sizes(const Call& call)
      : block(call.block_size),
        columns(whole_lanes<T>(block)),
        blocks_x(ceil_div(call.queries, block)),
        blocks_y(ceil_div(call.keys, block)),
        rows(blocks_x + 1),
        cell(call.cell_size),
        cells(ceil_div(call.keys, cell)),
        cell_columns(whole_lanes<T>(cells)),
        salient(lesser(call.salient_keys, call.keys)),
        salient_columns(whole_lanes<T>(salient)),
        width(whole_lanes<T>(call.channels)),
        value_width(whole_lanes<T>(call.value_channels)) {}

  // Numbers of a block with a key in each column.
  int64_t numbers_of_block(int64_t channels) const {
    return steps<T>(channels) * kStep<Factor<T>> * columns;
  }
};

// What backwards collect; heads are cut into pieces of query blocks with sums of their own.
template <class T>
struct Sums {
  Rows<T> key, value;                  // [Nk, D], [Nk, Dv]
  Rows<T> cell_key, cell_value;        // [Z, D], [Z, Dv]
  Rows<T> salient_key, salient_value;  // [g, D], [g, Dv]
  bool* unknown;                       // whether a log-sum-exp is no number
};

template <class T>
struct Head {
  Sizes<T> sizes;
  int64_t batch, head;

  int64_t keys;           // real ones
  int64_t queries;        // served ones, those at padding included
  int64_t real_queries;
  bool keys_in_order, queries_in_order;  // the first tokens are those, in their order
  int32_t *key_places, *query_places;    // where tokens stand in the call's tensors
  int64_t rows, real_rows;               // query blocks, and those of real queries
  int32_t *row_start, *row_count;        // their first query, and how many they have
  int64_t blocks_y, cells;
  bool exact;             // all keys are exact for all queries
  bool unknown_value;     // a real value is no number

  // By rank; in the call's own memory where it can be read from there.
  Rows<Factor<T>> query, key, value;
  // Scores are products with these times `factor`: s·k and 1, or k and s where products are of pairs.
  Factor<T>* key_columns;     // by block: [Y, D, columns]
  T factor;
  Rows<Factor<T>> value_rows; // as the right side of a product, [Nk, Dv]
  Rows<T> query_means;        // [X, D]
  T* cell_keys;               // s·k̂ transposed, some cells after others: [Z / w, D, w]
  Rows<T> cell_values;        // [Z, Dv]
  T *cell_counts, *cell_log_counts;  // n_z and its logarithm, [Z]
  T* block_counts;            // keys of a block that are not salient, [Y]

  int64_t salient;            // how many there are
  int64_t* salient_places;    // their ranks, rising
  bool* is_salient;           // by rank
  Rows<Factor<T>> salient_keys;    // as key_columns: [D, g]
  Rows<Factor<T>> salient_values;  // as value_rows: [g, Dv]

  uint8_t* chosen;            // [rows, Y]

  // Of a backward alone.
  Rows<Factor<T>> grad_out;      // by rank, [Nq, Dv]
  Factor<T>* value_columns;      // by block: [Y, Dv, columns]
  Rows<Factor<T>> key_rows;      // as the right side of a product, [Nk, D]
  Rows<T> cell_key_rows;         // k̂, [Z, D]
  T* cell_value_columns;         // as cell_keys: [Z / w, Dv, w]
  Rows<Factor<T>> salient_key_rows;      // as key_rows: [g, D]
  Rows<Factor<T>> salient_value_columns; // [Dv, g]
  int64_t pieces;
  Sums<T>* sums;                 // one for each piece

  // What finding salient keys and a choice over the whole matrix need for a while.
  Rows<T> probes, probe_scores;  // [64, D], [kGroup, Y·columns]
  T* importance;                 // [Y·columns]
  Rows<T> scores, masses;        // [kGroup, Z]
  T* block_scores;               // [Y]
  void* ranks;                   // what is chosen by: of leaders, or [Nk]
  void* row_ranks;               // [Y]
  int64_t* leader_places;
  int64_t leaders;               // how many there is room for

  Head(const Call& call, bool backward, void* memory) : sizes(call) {
    Carver carver(memory);
    carve(call, backward, carver);
    bytes = carver.used();
  }

  int64_t bytes;

 private:
  void carve(const Call& call, bool backward, Carver& carver);
};

// How many pieces a head is cut into in a backward: enough to keep some cores busy, whatever their
// number, as results must not depend on it.
inline int64_t backward_pieces(const Call& call) {
  const int64_t heads = greater<int64_t>(call.batch * call.heads, 1);
  const int64_t rows = ceil_div(call.queries, call.block_size) + 1;
  return greater<int64_t>(1, lesser(ceil_div(16, heads), ceil_div(rows, 2 * kGroup)));
}

template <class T>
void Head<T>::carve(const Call& call, bool backward, Carver& carver) {
  const Sizes<T>& s = sizes;
  const bool has_salient = s.salient > 0;
  constexpr int64_t step = kStep<Factor<T>>;
  const int64_t key_steps = steps<T>(call.keys);
  factor = kPairs<T> ? static_cast<T>(call.scale) : 1;
  key_places = carver.take<int32_t>(call.keys);
  query_places = carver.take<int32_t>(call.queries);
  row_start = carver.take<int32_t>(s.rows);
  row_count = carver.take<int32_t>(s.rows);
  // Room for copies, where the call's own memory won't do.
  query = carver.rows<Factor<T>>(call.queries, s.width);
  key = carver.rows<Factor<T>>(call.keys, s.width);
  value = carver.rows<Factor<T>>(call.keys, s.value_width);
  key_columns = carver.take<Factor<T>>(s.blocks_y * s.numbers_of_block(call.channels));
  value_rows = carver.rows<Factor<T>>(kPairs<T> ? key_steps : 0, step * s.value_width);
  query_means = carver.rows<T>(s.rows, s.width);
  cell_keys = carver.take<T>(ceil_div(s.cells, kBeside<T>) * call.channels * kBeside<T>);
  cell_values = carver.rows<T>(s.cells, s.value_width);
  cell_counts = carver.take<T>(s.cell_columns);
  cell_log_counts = carver.take<T>(s.cell_columns);
  block_counts = carver.take<T>(s.blocks_y);
  is_salient = carver.take<bool>(call.keys);
  salient_places = carver.take<int64_t>(s.salient);
  salient_keys = carver.rows<Factor<T>>(has_salient ? steps<T>(call.channels) : 0,
                                        step * s.salient_columns);
  salient_values = carver.rows<Factor<T>>(steps<T>(s.salient), step * s.value_width);
  chosen = carver.take<uint8_t>(s.rows * s.blocks_y);
  cell_key_rows = carver.rows<T>(s.cells, s.width);

  scores = carver.rows<T>(kGroup, s.cell_columns);
  masses = carver.rows<T>(kGroup, s.cell_columns);
  block_scores = carver.take<T>(s.blocks_y);
  if (!backward) {
    const bool global = !call.per_row;
    leaders = global ? Leaders<uint64_t>::room(whole_budget(call, s.blocks_x), s.blocks_y,
                                               s.blocks_x * s.blocks_y)
                     : 0;
    ranks = carver.take<uint64_t>(greater(leaders, has_salient ? call.keys : 0));
    row_ranks = carver.take<uint64_t>(global ? s.blocks_y : 0);
    leader_places = carver.take<int64_t>(leaders);
    const int64_t key_count = has_salient ? s.blocks_y * s.columns : 0;
    probes = carver.rows<T>(has_salient ? kProbes : 0, s.width);
    probe_scores = carver.rows<T>(kGroup, key_count);
    importance = carver.take<T>(key_count);
    return;
  }
  grad_out = carver.rows<Factor<T>>(call.queries, s.value_width);
  value_columns = carver.take<Factor<T>>(s.blocks_y * s.numbers_of_block(call.value_channels));
  key_rows = carver.rows<Factor<T>>(kPairs<T> ? key_steps : 0, step * s.width);
  cell_value_columns =
      carver.take<T>(ceil_div(s.cells, kBeside<T>) * call.value_channels * kBeside<T>);
  salient_key_rows = carver.rows<Factor<T>>(steps<T>(s.salient), step * s.width);
  salient_value_columns = carver.rows<Factor<T>>(has_salient ? steps<T>(call.value_channels) : 0,
                                                 step * s.salient_columns);
  pieces = backward_pieces(call);
  sums = carver.take<Sums<T>>(pieces);
  for (int64_t piece = 0; piece < pieces; ++piece) {
    Sums<T> own;
    own.key = carver.rows<T>(call.keys, s.width);
    own.value = carver.rows<T>(call.keys, s.value_width);
    own.cell_key = carver.rows<T>(s.cells, s.width);
    own.cell_value = carver.rows<T>(s.cells, s.value_width);
    own.salient_key = carver.rows<T>(s.salient, s.width);
    own.salient_value = carver.rows<T>(s.salient, s.value_width);
    own.unknown = carver.take<bool>(1);
    if (sums) sums[piece] = own;
  }
}

}  // namespace mra::MRA_TARGET
