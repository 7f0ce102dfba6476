// Tokens of any type and layout, read to and written from rows of the type that is computed in.
#pragma once

#include "call.h"
#include "factors.h"

namespace mra::MRA_TARGET {

template <class To, class From>
inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(To));
  return to;
}

inline uint16_t to_bfloat16(float x) {
  const uint32_t bits = bits_of<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

inline float from_float16(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16;
  const uint32_t rest = static_cast<uint32_t>(x & 0x7fff) << 13;
  // Shifted into place, the exponent is too small by 112; small numbers are made normal on the way.
  const float small = bits_of<float>(rest) * 5.192296858534828e33f;  // 2^112
  const uint32_t bits = rest >= 0x0f800000 ? (rest | 0x7f800000) : bits_of<uint32_t>(small);
  return bits_of<float>(sign | bits);
}

inline uint16_t to_float16(float x) {
  const uint32_t bits = bits_of<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
  uint32_t half;
  if (rest > 0x7f800000) {
    half = 0x7e00;
  } else if (rest >= 0x477ff000) {  // rounds to 65520 or more
    half = 0x7c00;
  } else if (rest < 0x38800000) {  // subnormal: the addition rounds to multiples of 2^-24
    half = bits_of<uint32_t>(bits_of<float>(rest) + 0.5f) - 0x3f000000;
  } else {
    half = (rest - 0x38000000 + 0xfff + ((rest >> 13) & 1)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

// Channels of one token of [B, H, N, C].
struct Token {
  const Tensor* tensor;
  int64_t offset;

  Token(const Tensor& x, int64_t batch, int64_t head, int64_t token)
      : tensor(&x),
        offset(batch * x.strides[0] + head * x.strides[1] + token * x.strides[2]) {}

  template <class From>
  From* at() const {
    return static_cast<From*>(tensor->data) + offset;
  }
};

template <class T>
inline void read_token(int64_t type, Token token, int64_t channels, T* to) {
  const int64_t step = token.tensor->strides[3];
  if (type == kBfloat16) {
    const uint16_t* from = token.at<const uint16_t>();
    for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<T>(number(Bfloat16{from[c * step]}));
  } else if (type == kFloat16) {
    const uint16_t* from = token.at<const uint16_t>();
    for (int64_t c = 0; c < channels; ++c) to[c] = static_cast<T>(from_float16(from[c * step]));
  } else {
    const T* from = token.at<const T>();
    for (int64_t c = 0; c < channels; ++c) to[c] = from[c * step];
  }
}

inline void read_token(int64_t, Token token, int64_t channels, Bfloat16* to) {
  const int64_t step = token.tensor->strides[3];
  const Bfloat16* from = token.at<const Bfloat16>();
  for (int64_t c = 0; c < channels; ++c) to[c] = from[c * step];
}

template <class T>
inline void write_token(int64_t type, Token token, int64_t channels, const T* from) {
  const int64_t step = token.tensor->strides[3];
  if (type == kBfloat16) {
    uint16_t* to = token.at<uint16_t>();
    for (int64_t c = 0; c < channels; ++c) to[c * step] = to_bfloat16(static_cast<float>(from[c]));
  } else if (type == kFloat16) {
    uint16_t* to = token.at<uint16_t>();
    for (int64_t c = 0; c < channels; ++c) to[c * step] = to_float16(static_cast<float>(from[c]));
  } else {
    T* to = token.at<T>();
    for (int64_t c = 0; c < channels; ++c) to[c * step] = from[c];
  }
}

template <class T>
inline void fill_token(int64_t type, Token token, int64_t channels, T value) {
  for (int64_t c = 0; c < channels; ++c) {
    Token one = token;
    one.offset += c * token.tensor->strides[3];
    write_token<T>(type, one, 1, &value);
  }
}

// Number [b, h, n] of a log-sum-exp.
template <class T>
inline T& number_at(const Tensor& x, int64_t batch, int64_t head, int64_t token) {
  return static_cast<T*>(
      x.data)[batch * x.strides[0] + head * x.strides[1] + token * x.strides[2]];
}

inline bool is_real(const Tensor& mask, int64_t batch, int64_t token) {
  return static_cast<const uint8_t*>(
      mask.data)[batch * mask.strides[0] + token * mask.strides[2]] != 0;
}

}  // namespace mra::MRA_TARGET
