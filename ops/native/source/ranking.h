// The greatest of some numbers: a threshold, found bit by bit, and how many that equal it are taken.
//
// Numbers are compared as whole numbers of the same order, their ranks; 0 is never taken.
#pragma once

#include "tokens.h"

namespace mra::MRA_TARGET {

template <class T>
struct RankOf;
template <>
struct RankOf<float> {
  using type = uint32_t;
};
template <>
struct RankOf<double> {
  using type = uint64_t;
};

// 0 for what is no number, and for -infinity.
template <class T>
inline typename RankOf<T>::type rank_of(T x) {
  using Rank = typename RankOf<T>::type;
  constexpr Rank sign = static_cast<Rank>(1) << (8 * sizeof(Rank) - 1);
  const Rank bits = bits_of<Rank>(x);
  const Rank ordered = bits & sign ? ~bits : bits | sign;
  return x > -kInfinity<T> ? ordered : 0;
}

template <class Rank>
struct Cut {
  Rank threshold;   // what is above it is taken
  int64_t equals;   // and so are the first so many that equal it
};

template <class Rank>
inline int64_t count_from(const Rank* ranks, int64_t count, Rank least) {
  // Short sums: the compiler keeps them in vectors as wide as ranks.
  constexpr int64_t piece = 1 << 16;
  int64_t total = 0;
  for (int64_t start = 0; start < count; start += piece) {
    const int64_t stop = lesser(start + piece, count);
    Rank found = 0;
    for (int64_t n = start; n < stop; ++n) found += ranks[n] >= least;
    total += static_cast<int64_t>(found);
  }
  return total;
}

// How to take the `wanted` greatest, or all that there are if these are fewer; the first of equals.
//
// A few numbers are counted once for each bit of the threshold, in vectors. Of many, each number is
// put to one of 2048 counts by its highest bits that are not known yet, which reads them less often.
template <class Rank>
Cut<Rank> cut_for(const Rank* ranks, int64_t count, int64_t wanted) {
  constexpr int bits = 8 * sizeof(Rank);
  if (wanted <= 0) return {~static_cast<Rank>(0), 0};
  if (count_from<Rank>(ranks, count, 1) <= wanted) return {0, 0};
  Rank threshold = 0;
  int64_t left = wanted;  // to be taken of those that agree with the threshold as far as it is known
  int unknown = bits;
  while (count > 4096 && unknown > 0) {
    const int digit = unknown > 11 ? 11 : unknown, low = unknown - digit;
    int64_t counts[2048] = {};
    const Rank known = unknown == bits ? 0 : ~static_cast<Rank>(0) << unknown;
    for (int64_t n = 0; n < count; ++n) {
      if ((ranks[n] & known) == threshold) ++counts[(ranks[n] >> low) & ((1 << digit) - 1)];
    }
    int64_t at = (1 << digit) - 1;
    for (; counts[at] < left; --at) left -= counts[at];
    threshold |= static_cast<Rank>(at) << low;
    unknown = low;
  }
  if (!unknown) return {threshold, left};
  for (Rank bit = static_cast<Rank>(1) << (bits - 1); bit; bit >>= 1) {
    const Rank higher = threshold | bit;
    if (count_from<Rank>(ranks, count, higher) >= wanted) threshold = higher;
  }
  const int64_t above = threshold == ~static_cast<Rank>(0)
                            ? 0
                            : count_from<Rank>(ranks, count, threshold + 1);
  return {threshold, wanted - above};
}

// Whether the next number, in rising order of places, is taken.
template <class Rank>
inline bool takes(Cut<Rank>& cut, Rank rank) {
  return rank > cut.threshold || (rank == cut.threshold && cut.equals-- > 0);
}

// Marks the numbers that are taken.
template <class Rank>
void mark_taken(Cut<Rank> cut, const Rank* ranks, int64_t count, uint8_t* taken) {
  for (int64_t n = 0; n < count; ++n) taken[n] = ranks[n] > cut.threshold;
  for (int64_t n = 0; cut.threshold && cut.equals > 0 && n < count; ++n) {
    if (ranks[n] != cut.threshold) continue;
    taken[n] = 1;
    --cut.equals;
  }
}

// Calls work(n) for each n that is marked, in rising order: few of many.
template <class Work>
inline void for_each_chosen(const uint8_t* chosen, int64_t count, Work work) {
  int64_t n = 0;
  for (; n + 8 <= count; n += 8) {
    uint64_t eight;
    __builtin_memcpy(&eight, chosen + n, sizeof(eight));
    for (int64_t m = n; eight && m < n + 8; ++m) {
      if (chosen[m]) work(m);
    }
  }
  for (; n < count; ++n) {
    if (chosen[n]) work(n);
  }
}

// The greatest of numbers that come row by row, of which no more are kept than might be taken: once
// there are as many as are wanted, later ones have to be greater than the least of these.
template <class Rank>
class Leaders {
 public:
  // How many numbers there has to be room for, with rows of so many out of `all`.
  static int64_t room(int64_t wanted, int64_t row, int64_t all) { return lesser(2 * wanted, all) + row; }

  Leaders(Rank* ranks, int64_t* places, int64_t wanted, int64_t room)
      : ranks_(ranks), places_(places), wanted_(wanted), room_(room) {}

  // A row of numbers, the first of which stands at `place`.
  void add(const Rank* row, int64_t count, int64_t place) {
    if (count_ + count > room_) keep_wanted();
    constexpr int64_t piece = 64 / sizeof(Rank);
    int64_t n = 0;
    for (; n + piece <= count; n += piece) {
      Rank found = 0;
      for (int64_t m = 0; m < piece; ++m) found |= row[n + m] >= least_ ? 1 : 0;
      if (found) add_each(row, n, n + piece, place);
    }
    add_each(row, n, count, place);
  }

  // Calls take(place) for each that is taken.
  template <class Take>
  void finish(Take take) {
    keep_wanted();
    for (int64_t n = 0; n < count_; ++n) take(places_[n]);
  }

 private:
  void add_each(const Rank* row, int64_t from, int64_t to, int64_t place) {
    for (int64_t n = from; n < to; ++n) {
      if (row[n] < least_) continue;
      ranks_[count_] = row[n];
      places_[count_++] = place + n;
    }
  }

  void keep_wanted() {
    if (count_ <= wanted_) return;
    Cut<Rank> cut = cut_for(ranks_, count_, wanted_);
    least_ = cut.threshold + 1;
    int64_t kept = 0;
    for (int64_t n = 0; n < count_; ++n) {
      if (!takes(cut, ranks_[n])) continue;
      ranks_[kept] = ranks_[n];
      places_[kept++] = places_[n];
    }
    count_ = kept;
  }

  Rank* ranks_;
  int64_t* places_;
  int64_t wanted_, room_;
  int64_t count_ = 0;
  Rank least_ = 1;
};

}  // namespace mra::MRA_TARGET
