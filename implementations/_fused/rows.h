// One row of logits: its maximum and sum of exponentials in one read, its gradient in one read and one write.
#pragma once

#include "vectors.h"

namespace xentbench {

// m = max x, s = sum exp(x - m). A row of -inf alone has m = -inf and s = 0; NaN or +inf anywhere make s NaN.
template <typename acc_t>
struct Stats {
  acc_t maximum;
  acc_t sum;

  // What is subtracted from every logit: never -inf, lest -inf - -inf makes NaN of a class that is ruled out.
  acc_t shift() const {
    return maximum == -std::numeric_limits<acc_t>::infinity() ? std::numeric_limits<acc_t>::lowest() : maximum;
  }
};

// Logits between two looks at the maximum.
constexpr int64_t BLOCK_BYTES = 8192;
template <typename scalar_t>
constexpr int64_t block_of = BLOCK_BYTES / static_cast<int64_t>(sizeof(scalar_t));

// Logits that are looked at before the first exponential: mostly their maximum is near that of all.
constexpr int64_t FIRST = 256;

// So far the maximum may be above what is subtracted: exp(x - shift) is as much less accurate as x - shift is larger.
constexpr int MOST_ABOVE = 4;

// A row whose sum is less than this is decided: its loss may be as small as the rounding of exp(max x - shift).
constexpr int DECIDED = 2;

// max x and sum exp(x - shift) of a block in one pass.
template <typename scalar_t>
Stats<at::opmath_type<scalar_t>> block_stats(const scalar_t* x, int64_t count, at::opmath_type<scalar_t> shift) {
  using acc_t = at::opmath_type<scalar_t>;
  using L = Lanes<scalar_t>;
  constexpr int64_t unrolled = 4 / L::vectors;
  constexpr acc_t lowest = -std::numeric_limits<acc_t>::infinity();
  const Vec<acc_t> shifts(shift);
  std::array<Vec<acc_t>, 4> most, sums;
  most.fill(Vec<acc_t>(lowest));
  sums.fill(Vec<acc_t>(0));
  auto add = [&](const typename L::Values& read, int64_t first) {
    for (int v = 0; v < L::vectors; ++v) {
      sums[first + v] = sums[first + v] + exp_shifted(read[v] - shifts);
      most[first + v] = at::vec::clamp_min(read[v], most[first + v]);  // forgets a NaN, which the sum then shows
    }
  };
  const int64_t whole = count / (unrolled * L::width) * (unrolled * L::width);
  for (int64_t j = 0; j < whole; j += unrolled * L::width) {
#pragma GCC unroll 4
    for (int64_t u = 0; u < unrolled; ++u) {
      add(L::load(x + j + u * L::width), u * L::vectors);
    }
  }
  for (int64_t j = whole; j < count; j += L::width) {
    add(L::load(x + j, std::min(L::width, count - j), lowest), 0);
  }
  const auto largest = at::vec::clamp_min(at::vec::clamp_min(most[0], most[1]), at::vec::clamp_min(most[2], most[3]));
  return {largest_of<acc_t>(largest), sum_of<acc_t>((sums[0] + sums[1]) + (sums[2] + sums[3]))};
}

// The largest of the first logits.
template <typename scalar_t>
at::opmath_type<scalar_t> first_shift(const scalar_t* x, int64_t classes) {
  using acc_t = at::opmath_type<scalar_t>;
  using L = Lanes<scalar_t>;
  constexpr acc_t lowest = -std::numeric_limits<acc_t>::infinity();
  const int64_t count = std::min(classes, FIRST);
  Vec<acc_t> most(lowest);
  for (int64_t j = 0; j < count; j += L::width) {
    for (const auto& read : L::load(x + j, std::min(L::width, count - j), lowest)) {
      most = at::vec::clamp_min(read, most);
    }
  }
  return Stats<acc_t>{largest_of<acc_t>(most), 0}.shift();
}

// Stats in one pass that subtracts `shift`, or more from where the maximum is far above; `shift` is then the last one.
template <typename scalar_t>
Stats<at::opmath_type<scalar_t>> stats_with(const scalar_t* x, int64_t classes, at::opmath_type<scalar_t>& shift) {
  using acc_t = at::opmath_type<scalar_t>;
  constexpr int64_t block = block_of<scalar_t>;
  Stats<acc_t> seen{-std::numeric_limits<acc_t>::infinity(), 0};
  double sum = 0;
  for (int64_t begin = 0; begin < classes; begin += block) {
    const int64_t count = std::min(block, classes - begin);
    auto here = block_stats(x + begin, count, shift);
    seen.maximum = std::max(seen.maximum, here.maximum);
    if (seen.maximum - shift > MOST_ABOVE) {
      sum *= std::exp(static_cast<double>(shift) - static_cast<double>(seen.maximum));
      shift = seen.maximum;
      here = block_stats(x + begin, count, shift);
    }
    sum += static_cast<double>(here.sum);
  }
  seen.sum = static_cast<acc_t>(sum * std::exp(static_cast<double>(shift) - static_cast<double>(seen.shift())));
  return seen;
}

// A pass for the maximum alone would wait for memory, and one for the exponentials leave it idle. So there is one: it
// subtracts the largest of the first few logits, and is made again where that is not accurate enough.
template <typename scalar_t>
Stats<at::opmath_type<scalar_t>> stats_of(const scalar_t* x, int64_t classes) {
  auto shift = first_shift(x, classes);
  const auto seen = stats_with(x, classes, shift);
  if (seen.sum < DECIDED && shift != seen.shift()) {
    shift = seen.shift();
    return stats_with(x, classes, shift);
  }
  return seen;
}

// sum_j q_j (log s - z_j) with z = x - m, and sum_j q_j; q_j = weight_j (keep y_j + spread), y absent or of the row.
template <typename scalar_t>
std::array<double, 2> weighed(
    const scalar_t* x, const scalar_t* y, const at::opmath_type<scalar_t>* weight, int64_t classes,
    const Stats<at::opmath_type<scalar_t>>& stats, at::opmath_type<scalar_t> keep, at::opmath_type<scalar_t> spread) {
  using acc_t = at::opmath_type<scalar_t>;
  using L = Lanes<scalar_t>;
  constexpr int64_t block = BLOCK_BYTES / static_cast<int64_t>(sizeof(scalar_t));
  const Vec<acc_t> shift(stats.shift()), log_sum(std::log(stats.sum)), kept(keep), spreads(spread);
  double loss = 0, whole = 0;
  for (int64_t begin = 0; begin < classes; begin += block) {
    const int64_t end = std::min(classes, begin + block);
    Vec<acc_t> losses(0), shares(0);
    for (int64_t j = begin; j < end; j += L::width) {
      const int64_t count = std::min(L::width, end - j);
      const auto read = L::load(x + j, count, stats.shift());
      auto share = y == nullptr ? typename L::Values{} : L::load(y + j, count, 0);
      for (int v = 0; v < L::vectors; ++v) {
        const int64_t left = std::min<int64_t>(Vec<acc_t>::size(), count - v * Vec<acc_t>::size());
        if (left <= 0) {
          break;
        }
        auto q = y == nullptr ? spreads : at::vec::fmadd(share[v], kept, spreads);
        if (weight != nullptr) {
          q = q * Vec<acc_t>::loadu(weight + j + v * Vec<acc_t>::size(), left);
        }
        q = left < Vec<acc_t>::size() ? Vec<acc_t>::set(Vec<acc_t>(0), q, left) : q;
        losses = losses + q * (log_sum - (read[v] - shift));
        shares = shares + q;
      }
    }
    loss += static_cast<double>(sum_of(losses));
    whole += static_cast<double>(sum_of(shares));
  }
  return {loss, whole};
}

// Writes scale (total p_j - q_j), q as in `weighed` (without y and spread it is 0 everywhere, and the caller's to add).
template <typename scalar_t>
void gradient_of(
    const scalar_t* x, const scalar_t* y, const at::opmath_type<scalar_t>* weight, int64_t classes,
    const Stats<at::opmath_type<scalar_t>>& stats, at::opmath_type<scalar_t> keep, at::opmath_type<scalar_t> spread,
    at::opmath_type<scalar_t> total, at::opmath_type<scalar_t> scale, scalar_t* gradient, bool streams) {
  using acc_t = at::opmath_type<scalar_t>;
  using L = Lanes<scalar_t>;
  const Vec<acc_t> shift(stats.shift()), factor(scale * total / stats.sum);
  const bool plain = y == nullptr && spread == 0;
  const Vec<acc_t> kept(keep * scale), spreads(spread * scale);
  int64_t j = 0;
  auto write = [&](auto store) {
    for (; j + L::width <= classes; j += L::width) {
      auto read = L::load(x + j);
      for (int v = 0; v < L::vectors; ++v) {
        read[v] = exp_shifted(read[v] - shift) * factor;
      }
      store(gradient + j, read);
    }
  };
  if (plain && streams && L::is_aligned(gradient)) {
    write(L::stream);
  } else if (plain) {
    write([](scalar_t* to, const typename L::Values& values) { L::store(to, values); });
  }
  for (; j < classes; j += L::width) {
    const int64_t count = std::min(L::width, classes - j);
    auto read = L::load(x + j, count, stats.shift());
    const auto share = y == nullptr ? typename L::Values{} : L::load(y + j, count, 0);
    for (int v = 0; v < L::vectors; ++v) {
      const int64_t left = std::min<int64_t>(Vec<acc_t>::size(), count - v * Vec<acc_t>::size());
      read[v] = exp_shifted(read[v] - shift) * factor;
      if (plain || left <= 0) {
        continue;
      }
      auto q = y == nullptr ? spreads : at::vec::fmadd(share[v], kept, spreads);
      if (weight != nullptr) {
        q = q * Vec<acc_t>::loadu(weight + j + v * Vec<acc_t>::size(), left);
      }
      read[v] = read[v] - q;
    }
    L::store(gradient + j, read, count);
  }
}

}  // namespace xentbench
