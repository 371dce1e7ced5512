// Gradients: of the logits in one read and one write of their size, and of probabilities.
#pragma once

#include "forward.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace xentbench {

#ifndef XENTBENCH_LARGE_PAGES
#define XENTBENCH_LARGE_PAGES 1
#endif

// From here on the system is asked for large pages: with those of 4 kB, faults take most of a backward.
constexpr int64_t LARGE_BYTES = 8 << 20;

// From here on a gradient is written past the caches: it fits none of them, and would push the next logits out.
constexpr int64_t STREAMED_BYTES = 16 << 20;

// Asks for large pages where a gradient begins that nobody has touched yet; a hint, which may be refused.
inline void ask_for_large_pages([[maybe_unused]] const Tensor& tensor) {
#if defined(__linux__) && defined(MADV_HUGEPAGE) && XENTBENCH_LARGE_PAGES
  constexpr uintptr_t page = 2 << 20;
  if (static_cast<int64_t>(tensor.nbytes()) < LARGE_BYTES) {
    return;
  }
  const auto start = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t begin = (start + page - 1) / page * page, end = (start + tensor.nbytes()) / page * page;
  if (begin < end) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

// What a row's gradient is multiplied by. Where all labels weigh 0 the mean at the labels is 0 / 0, and so is all of it.
template <typename acc_t>
acc_t scale_of(const Tensor& upstream, int64_t reduction, acc_t divisor, int64_t row) {
  const acc_t by_row = upstream.const_data_ptr<acc_t>()[reduction == NONE ? row : 0];
  return divisor == 0 ? std::numeric_limits<acc_t>::quiet_NaN() : by_row / divisor;
}

template <typename scalar_t>
void backward_rows(const Arguments& given, Labels& labels, Kept<at::opmath_type<scalar_t>> kept, const Tensor& upstream, scalar_t* gradient) {
  using acc_t = at::opmath_type<scalar_t>;
  const Grid& grid = given.grid;
  const scalar_t* x = given.logits.const_data_ptr<scalar_t>();
  const scalar_t* y = given.labelled ? nullptr : given.target.const_data_ptr<scalar_t>();
  const Factors<acc_t> factors(given);
  const bool streams = grid.rows * grid.classes * static_cast<int64_t>(sizeof(scalar_t)) >= STREAMED_BYTES;
  at::parallel_for(0, grid.rows, grain(grid), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const scalar_t* row = x + i * grid.outer_step;
      scalar_t* to = gradient + i * grid.classes;
      const int64_t label = given.labelled ? labels(i) : 0;
      if (label < 0) {
        std::fill(to, to + grid.classes, scalar_t(0));
        continue;
      }
      const Stats<acc_t> stats{kept.maximum[i], kept.sum[i]};
      const acc_t scale = scale_of<acc_t>(upstream, given.options.reduction, *kept.divisor, i);
      const acc_t own = given.labelled ? factors.keep * factors.of(label) : acc_t(0);
      const scalar_t* share = y == nullptr ? nullptr : y + i * grid.classes;
      const acc_t total = static_cast<acc_t>(
          y == nullptr ? static_cast<double>(own) + factors.spread_total
                       : weighed(row, share, factors.weight, grid.classes, stats, factors.keep, factors.spread)[1]);
      gradient_of(row, share, factors.weight, grid.classes, stats, factors.keep, factors.spread, total, scale, to, streams);
      if (given.labelled) {  // computed whole before it is rounded to a half type
        acc_t p[Vec<acc_t>::size()];
        exp_shifted(Vec<acc_t>(static_cast<acc_t>(row[label]) - stats.shift())).store(p);
        const acc_t q = own + factors.spread * factors.of(label);
        to[label] = static_cast<scalar_t>(scale * (total * (p[0] / stats.sum) - q));
      }
    }
    Lanes<scalar_t>::fence();
  });
}

template <typename scalar_t>
void backward_tiles(const Arguments& given, Labels& labels, Kept<at::opmath_type<scalar_t>> kept, const Tensor& upstream, scalar_t* gradient) {
  using acc_t = at::opmath_type<scalar_t>;
  constexpr int64_t lanes = Tile<scalar_t>::lanes;
  const Grid& grid = given.grid;
  const scalar_t* x = given.logits.const_data_ptr<scalar_t>();
  const scalar_t* y = given.labelled ? nullptr : given.target.const_data_ptr<scalar_t>();
  const Factors<acc_t> factors(given);
  const Grid dense{grid.rows, grid.classes, grid.inners, grid.classes * grid.inners, grid.inners};
  at::parallel_for(0, (grid.rows + lanes - 1) / lanes, std::max<int64_t>(1, grain(grid) / lanes), [&](int64_t begin, int64_t end) {
    std::vector<acc_t> logits, shares;
    for (int64_t number = begin; number < end; ++number) {
      const int64_t first = number * lanes;
      const Tile<scalar_t> tile(grid, first), written(dense, first);
      tile.read(x, logits);
      if (y != nullptr) {
        written.read(y, shares);
      }
      acc_t shift[lanes] = {}, sum[lanes], own[lanes] = {}, scale[lanes] = {};
      int64_t label[lanes];
      std::fill(sum, sum + lanes, acc_t(1));
      std::fill(label, label + lanes, int64_t(-1));
      for (int64_t lane = 0; lane < tile.count(); ++lane) {
        const int64_t i = first + lane;
        label[lane] = given.labelled ? labels(i) : 0;
        shift[lane] = Stats<acc_t>{kept.maximum[i], kept.sum[i]}.shift();
        sum[lane] = kept.sum[i];
        scale[lane] = scale_of<acc_t>(upstream, given.options.reduction, *kept.divisor, i);
        own[lane] = given.labelled && label[lane] >= 0 ? factors.keep * factors.of(label[lane]) : acc_t(0);
      }
      auto share_of = [&](int64_t c) {
        auto q = Vec<acc_t>(factors.spread);
        q = y == nullptr ? q : at::vec::fmadd(at_class(shares, c), Vec<acc_t>(factors.keep), q);
        return factors.weight == nullptr ? q : q * Vec<acc_t>(factors.weight[c]);
      };
      Vec<acc_t> total = Vec<acc_t>::loadu(own) + Vec<acc_t>(static_cast<acc_t>(factors.spread_total));
      if (y != nullptr) {
        Sum<acc_t> shares_total;
        for (int64_t c = 0; c < grid.classes; ++c) {
          shares_total.add(share_of(c));
        }
        total = shares_total.value();
      }
      const auto shifts = Vec<acc_t>::loadu(shift);
      const auto factor = total / Vec<acc_t>::loadu(sum);
      const bool spreads = y != nullptr || factors.spread > 0;
      for (int64_t c = 0; c < grid.classes; ++c) {
        auto at_c = exp_shifted(at_class(logits, c) - shifts) * factor;
        at_c = spreads ? at_c - share_of(c) : at_c;
        acc_t values[lanes];
        at_c.store(values);
        for (int64_t lane = 0; lane < tile.count(); ++lane) {
          values[lane] -= label[lane] == c && given.labelled ? own[lane] : acc_t(0);
          values[lane] = label[lane] < 0 ? acc_t(0) : values[lane] * scale[lane];
        }
        written.write(gradient, c, Vec<acc_t>::loadu(values));
      }
    }
  });
}

// Writes upstream / divisor (1 - e) w_j l_j, the gradient of probabilities.
template <typename scalar_t>
void backward_target(const Arguments& given, Kept<at::opmath_type<scalar_t>> kept, const Tensor& upstream, scalar_t* gradient) {
  using acc_t = at::opmath_type<scalar_t>;
  const Grid& grid = given.grid;
  const scalar_t* x = given.logits.const_data_ptr<scalar_t>();
  const Factors<acc_t> factors(given);
  at::parallel_for(0, grid.rows, grain(grid), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Stats<acc_t> stats{kept.maximum[i], kept.sum[i]};
      const acc_t log_sum = std::log(stats.sum);
      const acc_t scale = scale_of<acc_t>(upstream, given.options.reduction, *kept.divisor, i) * factors.keep;
      const int64_t at = grid.begin(i), to = i / grid.inners * grid.classes * grid.inners + i % grid.inners;
      for (int64_t c = 0; c < grid.classes; ++c) {
        const acc_t loss = log_sum - (static_cast<acc_t>(x[at + c * grid.class_step]) - stats.shift());
        gradient[to + c * grid.inners] = static_cast<scalar_t>(scale * factors.of(c) * loss);
      }
    }
  });
}

}  // namespace xentbench
