// The loss of every row, and what the backward needs of it: maxima, sums of exponentials, and what the mean divides by.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include "arguments.h"

namespace xentbench {

// Logits that make a task of a thread.
constexpr int64_t GRAIN = 32768;

inline bool across_rows(const Grid& grid) {
  return grid.inners > 1 || grid.classes < FEW_CLASSES;
}

inline int64_t grain(const Grid& grid) {
  return std::max<int64_t>(1, GRAIN / grid.classes);
}

// What is kept of the forward, (2 rows + 1): maxima, sums, and what the mean divides by.
template <typename acc_t>
struct Kept {
  acc_t* maximum;
  acc_t* sum;
  acc_t* divisor;

  Kept(acc_t* stats, int64_t rows) : maximum(stats), sum(stats + rows), divisor(stats + 2 * rows) {}
};

// Writes of every row its loss in two parts, at the label and spread over all classes, and what is kept.
template <typename scalar_t>
void forward_rows(const Arguments& given, Labels& labels, Kept<at::opmath_type<scalar_t>> kept, double* losses) {
  using acc_t = at::opmath_type<scalar_t>;
  const Grid& grid = given.grid;
  const scalar_t* x = given.logits.const_data_ptr<scalar_t>();
  const scalar_t* y = given.labelled ? nullptr : given.target.const_data_ptr<scalar_t>();
  const Factors<acc_t> factors(given);
  at::parallel_for(0, grid.rows, grain(grid), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const scalar_t* row = x + i * grid.outer_step;
      const int64_t label = given.labelled ? labels(i) : 0;
      losses[2 * i] = losses[2 * i + 1] = 0;
      if (label < 0) {  // is not read, and its gradient is 0
        kept.maximum[i] = 0;
        kept.sum[i] = 1;
        continue;
      }
      const auto stats = stats_of(row, grid.classes);
      kept.maximum[i] = stats.maximum;
      kept.sum[i] = stats.sum;
      if (given.labelled) {
        const acc_t z = static_cast<acc_t>(row[label]) - stats.shift();
        const double loss = std::log(static_cast<double>(stats.sum)) - static_cast<double>(z);
        losses[2 * i] = static_cast<double>(factors.keep) * static_cast<double>(factors.of(label)) * loss;
      }
      if (y != nullptr || factors.spread > 0) {
        const scalar_t* share = y == nullptr ? nullptr : y + i * grid.classes;
        losses[2 * i + 1] = weighed(row, share, factors.weight, grid.classes, stats, factors.keep, factors.spread)[0];
      }
    }
  });
}

template <typename scalar_t>
void forward_tiles(const Arguments& given, Labels& labels, Kept<at::opmath_type<scalar_t>> kept, double* losses) {
  using acc_t = at::opmath_type<scalar_t>;
  constexpr int64_t lanes = Tile<scalar_t>::lanes;
  const Grid& grid = given.grid;
  const scalar_t* x = given.logits.const_data_ptr<scalar_t>();
  const scalar_t* y = given.labelled ? nullptr : given.target.const_data_ptr<scalar_t>();
  const Factors<acc_t> factors(given);
  const Grid dense{grid.rows, grid.classes, grid.inners, grid.classes * grid.inners, grid.inners};
  at::parallel_for(0, (grid.rows + lanes - 1) / lanes, std::max<int64_t>(1, grain(grid) / lanes), [&](int64_t begin, int64_t end) {
    std::vector<acc_t> logits, shares;
    acc_t maximum[lanes], sum[lanes], spread[lanes];
    for (int64_t number = begin; number < end; ++number) {
      const int64_t first = number * lanes;
      const Tile<scalar_t> tile(grid, first);
      tile.read(x, logits);
      stats_of(logits, grid.classes, maximum, sum);
      const bool spreads = y != nullptr || factors.spread > 0;
      if (spreads) {
        if (y != nullptr) {
          Tile<scalar_t>(dense, first).read(y, shares);
        }
        const auto shift = shift_of(Vec<acc_t>::loadu(maximum)), log_sum = Vec<acc_t>::loadu(sum).log();
        Sum<acc_t> total;
        for (int64_t c = 0; c < grid.classes; ++c) {
          auto q = Vec<acc_t>(factors.spread);
          q = y == nullptr ? q : at::vec::fmadd(at_class(shares, c), Vec<acc_t>(factors.keep), q);
          q = factors.weight == nullptr ? q : q * Vec<acc_t>(factors.weight[c]);
          total.add(q * (log_sum - (at_class(logits, c) - shift)));
        }
        total.value().store(spread);
      }
      acc_t log_sum[lanes];
      Vec<acc_t>::loadu(sum).log().store(log_sum);
      for (int64_t lane = 0; lane < tile.count(); ++lane) {
        const int64_t i = first + lane, label = given.labelled ? labels(i) : 0;
        const Stats<acc_t> stats{maximum[lane], sum[lane]};
        kept.maximum[i] = stats.maximum;
        kept.sum[i] = stats.sum;
        losses[2 * i] = losses[2 * i + 1] = 0;
        if (label < 0) {
          continue;
        }
        if (given.labelled) {
          const acc_t z = logits[label * lanes + lane] - stats.shift();
          losses[2 * i] = static_cast<double>(factors.keep * factors.of(label)) * static_cast<double>(log_sum[lane] - z);
        }
        if (spreads) {
          losses[2 * i + 1] = static_cast<double>(spread[lane]);
        }
      }
    }
  });
}

// Returns what the mean divides by: the weights of the labels that count, their number without weights; or all rows.
template <typename acc_t>
double divisor_of(const Arguments& given, Labels& labels) {
  if (!given.labelled) {
    return static_cast<double>(given.grid.rows);
  }
  const Factors<acc_t> factors(given);
  double total = 0;
  for (int64_t i = 0; i < given.grid.rows; ++i) {
    const int64_t label = labels(i);
    total += label < 0 ? 0 : static_cast<double>(factors.of(label));
  }
  return total;
}

// Returns the loss of all rows, added up in double and in the order of the rows.
//
// The two means are divided one by one, as documented: where all labels weigh 0 the first is NaN, and so is the loss.
inline double reduced(const Arguments& given, const double* losses, double divisor) {
  double at_label = 0, spread = 0;
  for (int64_t i = 0; i < given.grid.rows; ++i) {
    at_label += losses[2 * i];
    spread += losses[2 * i + 1];
  }
  if (!given.labelled) {
    return spread / divisor;
  }
  return at_label / divisor + (given.options.smoothing > 0 ? spread / divisor : 0);
}

inline at::ScalarType loss_type(const Tensor& input, const Tensor& target) {
  return at::isFloatingType(target.scalar_type()) ? at::promote_types(input.scalar_type(), target.scalar_type())
                                                  : input.scalar_type();
}

// Returns the loss of every row, or of all of them, in the dtype that torch gives it.
inline Tensor written(
    const Tensor& input, const Tensor& target, const Arguments& given, const double* losses, double divisor) {
  const bool each = given.options.reduction == NONE;
  Tensor loss = at::empty(each ? row_shape(input) : c10::DimVector{}, input.options().dtype(loss_type(input, target)));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, loss.scalar_type(), "xentbench_loss", [&] {
    auto* to = loss.mutable_data_ptr<scalar_t>();
    if (!each) {
      *to = static_cast<scalar_t>(reduced(given, losses, divisor));
      return;
    }
    for (int64_t i = 0; i < given.grid.rows; ++i) {
      to[i] = static_cast<scalar_t>(losses[2 * i] + losses[2 * i + 1]);
    }
  });
  return loss;
}

// Returns the loss, and fills `stats`, room for 2 rows + 1 numbers, with what is kept.
template <typename scalar_t>
Tensor loss_of(const Tensor& input, const Tensor& target, const Arguments& given, at::opmath_type<scalar_t>* stats) {
  using acc_t = at::opmath_type<scalar_t>;
  c10::SmallVector<double, 128> losses(2 * given.grid.rows);
  Labels labels(given);
  const Kept<acc_t> kept(stats, given.grid.rows);
  if (across_rows(given.grid)) {
    forward_tiles<scalar_t>(given, labels, kept, losses.data());
  } else {
    forward_rows<scalar_t>(given, labels, kept, losses.data());
  }
  labels.raise();
  const double divisor = given.options.reduction == MEAN ? divisor_of<acc_t>(given, labels) : 1;
  *kept.divisor = static_cast<acc_t>(divisor);
  return written(input, target, given, losses.data(), divisor);
}

}  // namespace xentbench
