// All stages for one kind of processor. Compiled once for each, with its own flags, MRA_TARGET,
// MRA_VECTOR_BYTES and MRA_TILE_ROWS. With MRA_BFLOAT16_PAIRS it is the kernels for bfloat16 alone.
#include <new>

#include "attending.h"
#include "differentiating.h"
#include "salient.h"

namespace mra::MRA_TARGET {

template <class T>
constexpr size_t kHeadBytes = (sizeof(Head<T>) + 63) / 64 * 64;

template <class T>
size_t slot_bytes(const Call& call, bool backward) {
  return kHeadBytes<T> + static_cast<size_t>(Head<T>(call, backward, nullptr).bytes);
}

template <class T>
size_t scratch_bytes(const Call& call, bool backward) {
  return static_cast<size_t>(Scratch<T>(call, backward, nullptr).bytes);
}

template <class T>
int64_t shares(const Call& call, bool backward) {
  return backward ? backward_pieces(call) : ceil_div(Sizes<T>(call).rows, kGroup);
}

// Queries that nothing is computed for.
template <class T>
void fill_unserved(const Call& call, bool backward, const Head<T>& head) {
  if (head.queries == call.queries) return;
  for (int64_t n = 0; n < call.queries; ++n) {
    if (head.keys && is_real(call.query_mask, head.batch, n)) continue;
    if (backward) {
      fill_token<T>(call.type, Token(call.grad_query, head.batch, head.head, n), call.channels, 0);
    } else {
      fill_token<T>(call.type, Token(call.out, head.batch, head.head, n), call.value_channels, 0);
      number_at<T>(call.lse, head.batch, head.head, n) = -kInfinity<T>;
    }
  }
}

template <class T>
void fill_padded_keys(const Call& call, const Head<T>& head) {
  if (head.keys == call.keys) return;
  for (int64_t n = 0; n < call.keys; ++n) {
    if (is_real(call.key_mask, head.batch, n)) continue;
    fill_token<T>(call.type, Token(call.grad_key, head.batch, head.head, n), call.channels, 0);
    fill_token<T>(call.type, Token(call.grad_value, head.batch, head.head, n), call.value_channels, 0);
  }
}

template <class T>
void prepare(const Call& call, bool backward, int64_t number, void* slot) {
  void* memory = static_cast<char*>(slot) + kHeadBytes<T>;
  Head<T>& head = *new (slot) Head<T>(call, backward, memory);
  const Sizes<T>& sizes = head.sizes;
  head.batch = number / call.heads;
  head.head = number % call.heads;
  order_tokens(call, head);
  fill_unserved(call, backward, head);
  head.salient = 0;
  if (!backward) {
    clear(kept_choice(call, head), sizes.blocks_x * sizes.blocks_y + 1);
    if (!head.rows) return keep_salient(call, head);
  } else if (!head.rows) {
    return;
  }

  const auto ordered_keys = [&](const Tensor& x, int64_t channels, int64_t width,
                                Rows<Factor<T>> room) {
    return tokens_in_order(call, head, x, channels, width, head.key_places, head.keys,
                           head.keys_in_order, room);
  };
  const auto ordered_queries = [&](const Tensor& x, int64_t channels, int64_t width,
                                   Rows<Factor<T>> room) {
    return tokens_in_order(call, head, x, channels, width, head.query_places, head.queries,
                           head.queries_in_order, room);
  };
  // A forward reads queries as scalars only, or as pairs of them.
  const int64_t query_width = backward || kPairs<T> ? sizes.width : call.channels;
  {
    [[maybe_unused]] const Timed timed(kPacking);
    head.query = ordered_queries(call.query, call.channels, query_width, head.query);
    head.key = ordered_keys(call.key, call.channels, sizes.width, head.key);
    head.value = ordered_keys(call.value, call.value_channels, sizes.value_width, head.value);
    turn_blocks(sizes, head.key, head.keys, call.channels, static_cast<T>(call.scale),
                head.key_columns);
    head.value_rows = stacked<T>(head.keys, sizes.value_width, head.value, head.value_rows);
  }
  pool_queries(call, head);
  if (backward) {
    recall_salient(call, head);
  } else {
    find_salient(call, head);
    keep_salient(call, head);
  }
  pack_salient(call, backward, head);
  if (!head.exact) pool_cells(call, head);
  if (!backward) {
    head.unknown_value = !call.full && has_unknown<T>(head.value, head.keys, sizes.value_width);
    if (!head.exact && !call.per_row) choose_globally(call, head);
    return;
  }
  head.grad_out = ordered_queries(call.grad_out, call.value_channels, sizes.value_width, head.grad_out);
  turn_blocks(sizes, head.value, head.keys, call.value_channels, static_cast<T>(1), head.value_columns);
  head.key_rows = stacked<T>(head.keys, sizes.width, head.key, head.key_rows);
  if (head.exact) return;
  turn_cells(head, head.cell_values, call.value_channels, static_cast<T>(1),
             head.cell_value_columns);
}

template <class T>
void attend(const Call& call, int64_t share, void* slot, void* memory) {
  Scratch<T> scratch(call, false, memory);
  attend_group(call, share, *static_cast<Head<T>*>(slot), scratch);
}

template <class T>
void differentiate(const Call& call, int64_t share, void* slot, void* memory) {
  Head<T>& head = *static_cast<Head<T>*>(slot);
  Scratch<T> scratch(call, true, memory);
  differentiate_piece(call, share, head, scratch);
}

template <class T>
void finish(const Call& call, bool backward, void* slot) {
  Head<T>& head = *static_cast<Head<T>*>(slot);
  if (!backward) return;
  fill_padded_keys(call, head);
  write_key_gradients(call, head);
}

#ifdef MRA_STAGES
// So many products of matrices that lie in the nearest cache; returns how many multiply-adds.
template <class T>
double multiply_adds(int64_t products) {
  constexpr int64_t rows = 16, depth = 64, columns = 32;
  constexpr int64_t step = kStep<Factor<T>>;
  alignas(64) static Factor<T> a[rows * depth], b[depth * columns];
  alignas(64) static T c[rows * columns];
  for (int64_t n = 0; n < products; ++n) {
    set_product(rows, columns, steps<T>(depth), Rows<Factor<T>>{a, depth}.scalars(),
                Rows<Factor<T>>{b, step * columns}, Rows<T>{c, columns});
  }
  return static_cast<double>(products * rows * depth * columns);
}
#endif

template <class T>
constexpr Kernels kKernels = {
    slot_bytes<T>, scratch_bytes<T>, shares<T>, prepare<T>, attend<T>, differentiate<T>, finish<T>,
#ifdef MRA_STAGES
    multiply_adds<T>,
#endif
};

#ifdef MRA_BFLOAT16_PAIRS
extern const Kernels kBfloat16;
const Kernels kBfloat16 = kKernels<float>;
#else
extern const KernelSets kSets;
const KernelSets kSets = {kKernels<float>, kKernels<double>};
#endif

}  // namespace mra::MRA_TARGET
