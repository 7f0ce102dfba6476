// Vectors of the processor's width, by the compiler's extensions, and the few functions on them.
//
// MRA_VECTOR_BYTES is their width, MRA_TARGET names the namespace: this file and all that build on it
// are compiled once for each kind of processor. They use nothing of the standard library that has
// code of its own, which the linker might take from here for processors that can't run it.
#pragma once

#include <cstdint>

namespace mra::MRA_TARGET {

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(MRA_VECTOR_BYTES)));
  typedef int32_t Integers __attribute__((vector_size(MRA_VECTOR_BYTES)));
  typedef float Unaligned __attribute__((vector_size(MRA_VECTOR_BYTES), aligned(4), may_alias));
};

template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(MRA_VECTOR_BYTES)));
  typedef int64_t Integers __attribute__((vector_size(MRA_VECTOR_BYTES)));
  typedef double Unaligned __attribute__((vector_size(MRA_VECTOR_BYTES), aligned(8), may_alias));
};

template <class T>
using Vector = typename Lanes<T>::Vector;
template <class T>
using Integers = typename Lanes<T>::Integers;

template <class T>
constexpr int64_t kLanes = MRA_VECTOR_BYTES / sizeof(T);

template <class T>
constexpr T kInfinity = static_cast<T>(__builtin_inf());

template <class T>
inline T greater(T a, T b) {
  return a > b ? a : b;
}

template <class T>
inline T lesser(T a, T b) {
  return a < b ? a : b;
}

template <class T>
inline Vector<T> load(const T* from) {
  return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(from);
}

template <class T>
inline void store(T* to, Vector<T> x) {
  *reinterpret_cast<typename Lanes<T>::Unaligned*>(to) = x;
}

template <class T>
inline Vector<T> all(T x) {
  return x - Vector<T>{};
}

// Leaves out what is no number, unless it is in `b` alone.
template <class T>
inline Vector<T> greatest(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

template <class T>
inline T greatest_lane(Vector<T> x) {
  T found = x[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) found = greater<T>(x[lane], found);
  return found;
}

template <class T>
inline T sum_of_lanes(Vector<T> x) {
  T sum = x[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) sum += x[lane];
  return sum;
}

// e^x for x up to 88: 0 far below, and no number for none. The relative error is below 2e-7 in
// float32 and 1e-15 in float64.
template <class T>
Vector<T> exponential(Vector<T> x);

template <>
inline Vector<float> exponential<float>(Vector<float> x) {
  // x = n ln 2 + r; adding 1.5·2²³ rounds to whole numbers and leaves n in the lowest bits.
  const Vector<float> shifted = x * 1.44269504f + 12582912.0f;
  const Vector<float> n = shifted - 12582912.0f;
  const Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vector<float> p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
  const Integers<float> power = ((Integers<float>)shifted << 23) + (127 << 23);
  const Vector<float> result = p * (Vector<float>)power;
  return x < -87.3f ? Vector<float>{} : result;
}

template <>
inline Vector<double> exponential<double>(Vector<double> x) {
  const Vector<double> shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const Vector<double> n = shifted - 6755399441055744.0;
  const Vector<double> r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  Vector<double> p = all(1.0 / 6227020800.0);
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * (r * r) + (r + 1.0);
  const Integers<double> power =
      ((Integers<double>)shifted << 52) + (static_cast<int64_t>(1023) << 52);
  const Vector<double> result = p * (Vector<double>)power;
  return x < -708.0 ? Vector<double>{} : result;
}

}  // namespace mra::MRA_TARGET
