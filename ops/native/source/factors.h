// What exact products multiply: numbers of the type that is computed in or, where the processor
// multiplies and adds pairs of them, bfloat16 as it is given (MRA_BFLOAT16_PAIRS).
//
// A product of bfloat16 goes in steps of two numbers. Its left side has them one after the other; its
// right side has two rows as one, number by number. A row or a number that is missing is 0.
#pragma once

#include "vectors.h"

#ifdef MRA_BFLOAT16_PAIRS
#include <immintrin.h>
#endif

namespace mra::MRA_TARGET {

struct Bfloat16 {
  uint16_t bits;
};

#ifdef MRA_BFLOAT16_PAIRS
template <class T>
using Factor = Bfloat16;
#else
template <class T>
using Factor = T;
#endif

// Numbers of a step.
template <class F>
constexpr int64_t kStep = 1;
template <>
inline constexpr int64_t kStep<Bfloat16> = 2;

template <class T>
constexpr bool kPairs = kStep<Factor<T>> == 2;

template <class T>
inline int64_t steps(int64_t count) {
  return (count + kStep<Factor<T>> - 1) / kStep<Factor<T>>;
}

inline float number(Bfloat16 x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
  float found;
  __builtin_memcpy(&found, &bits, sizeof(found));
  return found;
}

template <class T>
inline T number(T x) {
  return x;
}

typedef uint16_t Halves __attribute__((vector_size(MRA_VECTOR_BYTES / 2), aligned(2), may_alias));

inline Integers<float> load_bits(const Bfloat16* from) {
  return __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Integers<float>);
}

inline Vector<float> load(const Bfloat16* from) { return (Vector<float>)(load_bits(from) << 16); }

// How a step of A, the same for all lanes, and one of B add to sums.
template <class A, class B>
struct Steps {
  using Left = Vector<A>;
  using Right = Vector<B>;

  static Left left(const A* a) { return all(*a); }
  static Right right(const B* b) { return load(b); }
  static void add(Left left, Right right, Vector<A>& sums) { sums += left * right; }
};

// Of numbers with twice the digits, and pairs.
template <>
struct Steps<float, Bfloat16> {
  struct Both {
    Vector<float> first, second;
  };
  using Left = Both;
  using Right = Both;

  static Left left(const float* a) { return {all(a[0]), all(a[1])}; }
  static Right right(const Bfloat16* b) {
    const auto bits = (Integers<float>)load(reinterpret_cast<const float*>(b));
    return {(Vector<float>)(bits << 16), (Vector<float>)(bits & ~0xffff)};
  }
  static void add(Left left, Right right, Vector<float>& sums) {
    sums += left.first * right.first;
    sums += left.second * right.second;
  }
};

#ifdef MRA_BFLOAT16_PAIRS
template <>
struct Steps<Bfloat16, Bfloat16> {
  using Left = __m512bh;
  using Right = __m512bh;

  static Left left(const Bfloat16* a) {
    int32_t pair;
    __builtin_memcpy(&pair, a, sizeof(pair));
    return (__m512bh)_mm512_set1_epi32(pair);
  }
  static Right right(const Bfloat16* b) { return (__m512bh)_mm512_loadu_si512(b); }
  static void add(Left left, Right right, Vector<float>& sums) {
    sums = _mm512_dpbf16_ps(sums, left, right);
  }
};

inline Halves rounded(Vector<float> x) { return (Halves)_mm512_cvtneps_pbh(x); }

inline void store(Bfloat16* to, Vector<float> x) { *reinterpret_cast<Halves*>(to) = rounded(x); }

// Two rows as one.
inline void store_pairs(Bfloat16* to, Integers<float> first, Integers<float> second) {
  store(reinterpret_cast<float*>(to), (Vector<float>)(first | second << 16));
}

inline void store_pairs(Bfloat16* to, Vector<float> first, Vector<float> second) {
  store_pairs(to, __builtin_convertvector(rounded(first), Integers<float>),
              __builtin_convertvector(rounded(second), Integers<float>));
}
#endif

}  // namespace mra::MRA_TARGET
