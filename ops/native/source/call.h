// A call as Python hands it over, and what a set of kernels offers for it.
//
// Shapes: B batch rows, H heads, Nq queries, Nk keys, D channels, Dv channels of values, X query and
// Y key blocks. Nothing here depends on the processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace mra {

// To be raised with every change of `Call`: Python refuses a library that means another one.
constexpr int64_t kInterface = 1;

enum Type : int64_t { kFloat32, kFloat64, kBfloat16, kFloat16 };

// What lies at [b, h, n, c] is `data` plus the sum of index times stride, in elements. Masks are
// [B, N] and log-sum-exps [B, H, N]: the strides that they lack are 0. No data: not given.
struct Tensor {
  void* data;
  int64_t strides[4];
};

struct Call {
  int64_t type;  // of all tensors but log-sum-exps, which are float64 for float64, else float32
  int64_t batch, heads, queries, keys, channels, value_channels;

  int64_t block_size, block_per_row;
  int64_t num_blocks;  // 0: by block_per_row
  int64_t full, first_blocks, diagonal_blocks, per_row;
  int64_t cell_size, salient_keys, by_mass, exact_up_to;
  double scale;

  Tensor query, key, value;
  Tensor key_mask, query_mask;

  // What a forward writes and a backward reads.
  Tensor out, lse;
  Tensor chosen;   // bool [B, H, X·Y + 1], dense
  Tensor salient;  // int64 [B, H, g], dense

  // Of a backward alone; the last three are written.
  Tensor grad_out, grad_lse;
  Tensor grad_query, grad_key, grad_value;
};

// The stages of a call for one head after another. A head has memory of its own while it is worked
// on (`slot`), a thread has some for what it does at the moment (`scratch`). Stages of a head: prepare,
// then each of its shares, by any threads at the same time, then finish.
struct Kernels {
  size_t (*slot_bytes)(const Call&, bool backward);
  size_t (*scratch_bytes)(const Call&, bool backward);
  int64_t (*shares)(const Call&, bool backward);
  void (*prepare)(const Call&, bool backward, int64_t head, void* slot);
  void (*attend)(const Call&, int64_t share, void* slot, void* scratch);
  void (*differentiate)(const Call&, int64_t share, void* slot, void* scratch);
  void (*finish)(const Call&, bool backward, void* slot);
#ifdef MRA_STAGES
  double (*multiply_adds)(int64_t products);
#endif
};

// One set for float32 and narrower types, one for float64.
struct KernelSets {
  Kernels narrow, wide;
};

}  // namespace mra
