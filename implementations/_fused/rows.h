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

// A block stays in the first-level cache between the read for its maximum and the one for its exponentials.
constexpr int64_t BLOCK_BYTES = 16384;

template <typename scalar_t>
Stats<at::opmath_type<scalar_t>> stats_of(const scalar_t* x, int64_t classes) {
  using acc_t = at::opmath_type<scalar_t>;
  using L = Lanes<scalar_t>;
  constexpr int64_t block = BLOCK_BYTES / static_cast<int64_t>(sizeof(scalar_t));
  constexpr int64_t unrolled = 4 / L::vectors;
  constexpr acc_t lowest = -std::numeric_limits<acc_t>::infinity();
  Stats<acc_t> seen{lowest, 0};
  double sum = 0;
  for (int64_t begin = 0; begin < classes; begin += block) {
    const int64_t end = std::min(classes, begin + block);
    const int64_t whole = begin + (end - begin) / (unrolled * L::width) * (unrolled * L::width);
    std::array<Vec<acc_t>, 4> most;
    most.fill(Vec<acc_t>(lowest));
    for (int64_t j = begin; j < whole; j += unrolled * L::width) {
#pragma GCC unroll 4
      for (int64_t u = 0; u < unrolled; ++u) {
        const auto read = L::load(x + j + u * L::width);
        for (int v = 0; v < L::vectors; ++v) {
          auto& kept = most[u * L::vectors + v];
          kept = at::vec::clamp_min(read[v], kept);  // forgets a NaN, which the exponentials then show
        }
      }
    }
    for (int64_t j = whole; j < end; j += L::width) {
      const auto read = L::load(x + j, std::min(L::width, end - j), lowest);
      for (int v = 0; v < L::vectors; ++v) {
        most[v] = at::vec::clamp_min(read[v], most[v]);
      }
    }
    const acc_t here = largest_of<acc_t>(
        at::vec::clamp_min(at::vec::clamp_min(most[0], most[1]), at::vec::clamp_min(most[2], most[3])));
    if (here > seen.maximum) {
      sum *= std::exp(static_cast<double>(seen.maximum) - static_cast<double>(here));
      seen.maximum = here;
    }
    const Vec<acc_t> shift(seen.shift());
    std::array<Vec<acc_t>, 4> sums;
    sums.fill(Vec<acc_t>(0));
    for (int64_t j = begin; j < whole; j += unrolled * L::width) {
#pragma GCC unroll 4
      for (int64_t u = 0; u < unrolled; ++u) {
        const auto read = L::load(x + j + u * L::width);
        for (int v = 0; v < L::vectors; ++v) {
          sums[u * L::vectors + v] = sums[u * L::vectors + v] + exp_not_positive(read[v] - shift);
        }
      }
    }
    for (int64_t j = whole; j < end; j += L::width) {
      const auto read = L::load(x + j, std::min(L::width, end - j), lowest);
      for (int v = 0; v < L::vectors; ++v) {
        sums[v] = sums[v] + exp_not_positive(read[v] - shift);
      }
    }
    sum += static_cast<double>(sum_of<acc_t>((sums[0] + sums[1]) + (sums[2] + sums[3])));
  }
  seen.sum = static_cast<acc_t>(sum);
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
    at::opmath_type<scalar_t> total, at::opmath_type<scalar_t> scale, scalar_t* gradient) {
  using acc_t = at::opmath_type<scalar_t>;
  using L = Lanes<scalar_t>;
  const Vec<acc_t> shift(stats.shift()), factor(scale * total / stats.sum);
  const bool plain = y == nullptr && spread == 0;
  const Vec<acc_t> kept(keep * scale), spreads(spread * scale);
  int64_t j = 0;
  if (plain) {
    for (; j + L::width <= classes; j += L::width) {
      auto read = L::load(x + j);
      for (int v = 0; v < L::vectors; ++v) {
        read[v] = exp_not_positive(read[v] - shift) * factor;
      }
      L::store(gradient + j, read);
    }
  }
  for (; j < classes; j += L::width) {
    const int64_t count = std::min(L::width, classes - j);
    auto read = L::load(x + j, count, stats.shift());
    const auto share = y == nullptr ? typename L::Values{} : L::load(y + j, count, 0);
    for (int v = 0; v < L::vectors; ++v) {
      const int64_t left = std::min<int64_t>(Vec<acc_t>::size(), count - v * Vec<acc_t>::size());
      read[v] = exp_not_positive(read[v] - shift) * factor;
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
