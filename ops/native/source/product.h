// The one product that all others are: rows of scalars times rows of vectors.
#pragma once

#include "factors.h"

namespace mra::MRA_TARGET {

// Rows of scalars A(m, k), wherever they lie: a product reads its left side so, transposed or not.
// With pairs of numbers, k counts pairs.
template <class F>
struct Scalars {
  const F* data;
  int64_t row, step;  // from m to m + 1, from k to k + 1
};

// Rows of a matrix, each in one piece.
template <class T>
struct Rows {
  T* data;
  int64_t stride;

  T* operator[](int64_t row) const { return data + row * stride; }
  Scalars<T> scalars() const { return {data, stride, kStep<T>}; }
  Scalars<T> transposed() const { return {data, kStep<T>, stride}; }
};

// A right side from some column or row on.
template <class F>
inline Rows<F> columns_from(Rows<F> b, int64_t column) {
  return {b.data + column * kStep<F>, b.stride};
}

template <class F>
inline Rows<F> rows_from(Rows<F> b, int64_t row) {
  return {b[row / kStep<F>], b.stride};
}

// The right side B of a product, cut into pieces of rows that need not follow each other: piece p has
// the rows from number places[p] · rows on. Each piece meets `left` columns of A, of which it needs
// as many as it has rows. With pairs of numbers, rows and columns of A are counted in pairs.
template <class F>
struct Pieces {
  const F* data;
  int64_t stride;
  const int32_t* places;
  int64_t count;
  int64_t rows, total;  // of each piece but the last, and of all that there are
  int64_t left;
};

constexpr int32_t kFirstPlace = 0;

template <class F>
inline Pieces<F> in_one_piece(int64_t depth, Rows<F> b) {
  return {b.data, b.stride, &kFirstPlace, 1, depth, depth, depth};
}

// M rows and N vectors of C, which are kept in registers.
template <class T, int M, int N>
struct Tile {
  Vector<T> sums[M][N];

  void read(const T* c, int64_t c_stride) {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[m][n] = load(c + m * c_stride + n * kLanes<T>);
    }
  }

  // The vectors of B start anywhere: at b[n], each followed by those of further k.
  template <class A, class B>
  void add(int64_t depth, Scalars<A> a, const B* const* b, int64_t b_stride) {
    using Step = Steps<A, B>;
    for (int64_t k = 0; k < depth; ++k) {
      typename Step::Right right[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) right[n] = Step::right(b[n] + k * b_stride);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const typename Step::Left left = Step::left(a.data + m * a.row + k * a.step);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) Step::add(left, right[n], sums[m][n]);
      }
    }
  }

  void write(T* c, int64_t c_stride) const {
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) store(c + m * c_stride + n * kLanes<T>, sums[m][n]);
    }
  }
};

// Goes through rows in tiles as high as registers allow: calls work(tile, first row).
template <class T, int N, class Work>
inline void in_tiles(int64_t rows, Work work) {
  int64_t m = 0;
  for (; m + MRA_TILE_ROWS <= rows; m += MRA_TILE_ROWS) work(Tile<T, MRA_TILE_ROWS, N>{}, m);
  for (; m + 2 <= rows; m += 2) work(Tile<T, 2, N>{}, m);
  for (; m < rows; ++m) work(Tile<T, 1, N>{}, m);
}

template <class T, int N, bool kAdd, class A, class B>
void multiply_columns(int64_t rows, Scalars<A> a, const Pieces<B>& b, int64_t column, T* c,
                      int64_t c_stride) {
  in_tiles<T, N>(rows, [&](auto tile, int64_t m) {
    if (kAdd) tile.read(c + m * c_stride, c_stride);
    for (int64_t piece = 0; piece < b.count; ++piece) {
      const int64_t first = b.places[piece] * b.rows;
      const B* starts[N];
      for (int n = 0; n < N; ++n) {
        starts[n] = b.data + first * b.stride + (column + n * kLanes<T>) * kStep<B>;
      }
      const A* left = a.data + m * a.row + piece * b.left * a.step;
      tile.add(lesser(b.rows, b.total - first), Scalars<A>{left, a.row, a.step}, starts, b.stride);
    }
    tile.write(c + m * c_stride, c_stride);
  });
}

// C = A B, or C += A B: C [rows, columns], A [rows, depth], B [depth, columns]. Columns come in whole
// vectors. Each number is summed up in the order of k, whatever else is computed beside it.
template <class T, bool kAdd, class A, class B>
void multiply(int64_t rows, int64_t columns, Scalars<A> a, const Pieces<B>& b, T* c,
              int64_t c_stride) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t n = 0;
  for (; n + 2 * lanes <= columns; n += 2 * lanes) {
    multiply_columns<T, 2, kAdd>(rows, a, b, n, c + n, c_stride);
  }
  for (; n < columns; n += lanes) {
    multiply_columns<T, 1, kAdd>(rows, a, b, n, c + n, c_stride);
  }
}

template <class T, int N, class F>
void multiply_vectors(int64_t rows, int64_t depth, Scalars<F> a, const F* const* b,
                      int64_t b_stride, T* c, int64_t c_stride) {
  in_tiles<T, N>(rows, [&](auto tile, int64_t m) {
    tile.add(depth, Scalars<F>{a.data + m * a.row, a.row, a.step}, b, b_stride);
    tile.write(c + m * c_stride, c_stride);
  });
}

// C = A B: C [rows, count · width], A [rows, depth], B some blocks beside each other, [depth, width]
// each. Two vectors at a time, of two blocks where these are narrow.
template <class T, class F>
void set_product_with_blocks(int64_t rows, int64_t depth, Scalars<F> a, const F* data,
                             int64_t width, const int32_t* places, int64_t count, Rows<T> c) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t in_block = width / lanes, vectors = count * in_block, stride = width * kStep<F>;
  const auto start = [&](int64_t n) {
    return data + places[n / in_block] * depth * stride + n % in_block * lanes * kStep<F>;
  };
  int64_t n = 0;
  for (; n + 2 <= vectors; n += 2) {
    const F* const b[2] = {start(n), start(n + 1)};
    multiply_vectors<T, 2>(rows, depth, a, b, stride, c.data + n * lanes, c.stride);
  }
  if (n == vectors) return;
  const F* const b[1] = {start(n)};
  multiply_vectors<T, 1>(rows, depth, a, b, stride, c.data + n * lanes, c.stride);
}

template <class T, class A, class B>
inline void set_product(int64_t rows, int64_t columns, int64_t depth, Scalars<A> a, Rows<B> b,
                        Rows<T> c) {
  multiply<T, false>(rows, columns, a, in_one_piece(depth, b), c.data, c.stride);
}

template <class T, class A, class B>
inline void add_product(int64_t rows, int64_t columns, int64_t depth, Scalars<A> a, Rows<B> b,
                        Rows<T> c) {
  multiply<T, true>(rows, columns, a, in_one_piece(depth, b), c.data, c.stride);
}

template <class T, class A, class B>
inline void add_product(int64_t rows, int64_t columns, Scalars<A> a, const Pieces<B>& b, Rows<T> c) {
  multiply<T, true>(rows, columns, a, b, c.data, c.stride);
}

}  // namespace mra::MRA_TARGET
