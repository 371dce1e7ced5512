// As many rows as a vector has lanes, class by class: for few classes, and where the classes are not next to each other.
#pragma once

#include "rows.h"

#include <vector>

namespace xentbench {

// Where the logits of a row lie: class c of row i is at outer * outer_step + inner + c * class_step, i = outer * inners + inner.
struct Grid {
  int64_t rows;
  int64_t classes;
  int64_t inners;
  int64_t outer_step;
  int64_t class_step;

  int64_t begin(int64_t row) const {
    return row / inners * outer_step + row % inners;
  }
};

template <typename scalar_t>
class Tile {
 public:
  using acc_t = at::opmath_type<scalar_t>;
  static constexpr int64_t lanes = Vec<acc_t>::size();

  Tile(const Grid& grid, int64_t first) : grid_(grid), count_(std::min(lanes, grid.rows - first)) {
    for (int64_t lane = 0; lane < count_; ++lane) {
      begin_[lane] = grid.begin(first + lane);
    }
    together_ = grid.inners > 1 && count_ == lanes && begin_[lanes - 1] - begin_[0] == lanes - 1;
  }

  int64_t count() const {
    return count_;
  }

  // Reads all classes into `buffer`, (classes, lanes); lanes without a row are 0.
  void read(const scalar_t* x, std::vector<acc_t>& buffer) const {
    buffer.assign(grid_.classes * lanes, 0);
    for (int64_t c = 0; c < grid_.classes; ++c) {
      acc_t* to = buffer.data() + c * lanes;
      const scalar_t* from = x + c * grid_.class_step;
      for (int64_t lane = 0; lane < count_; ++lane) {
        to[lane] = static_cast<acc_t>(from[together_ ? begin_[0] + lane : begin_[lane]]);
      }
    }
  }

  void write(scalar_t* x, int64_t c, const Vec<acc_t>& values) const {
    acc_t kept[lanes];
    values.store(kept);
    scalar_t* to = x + c * grid_.class_step;
    for (int64_t lane = 0; lane < count_; ++lane) {
      to[together_ ? begin_[0] + lane : begin_[lane]] = static_cast<scalar_t>(kept[lane]);
    }
  }

 private:
  const Grid& grid_;
  int64_t count_;
  bool together_;
  std::array<int64_t, lanes> begin_;
};

// A sum of many terms, in parts of 64: as many roundings as that and the number of parts, not as there are terms.
template <typename acc_t>
class Sum {
 public:
  void add(const Vec<acc_t>& term) {
    part_ = part_ + term;
    if (++terms_ % 64 == 0) {
      whole_ = whole_ + part_;
      part_ = Vec<acc_t>(0);
    }
  }

  Vec<acc_t> value() const {
    return whole_ + part_;
  }

 private:
  Vec<acc_t> whole_{0}, part_{0};
  int64_t terms_ = 0;
};

template <typename acc_t>
Vec<acc_t> at_class(const std::vector<acc_t>& buffer, int64_t c) {
  return Vec<acc_t>::loadu(buffer.data() + c * Vec<acc_t>::size());
}

template <typename acc_t>
Vec<acc_t> shift_of(const Vec<acc_t>& maximum) {
  return at::vec::clamp_min(maximum, Vec<acc_t>(std::numeric_limits<acc_t>::lowest()));
}

// Writes maximum and sum of every lane.
template <typename acc_t>
void stats_of(const std::vector<acc_t>& buffer, int64_t classes, acc_t* maximum, acc_t* sum) {
  Vec<acc_t> most(-std::numeric_limits<acc_t>::infinity());
  for (int64_t c = 0; c < classes; ++c) {
    most = at::vec::clamp_min(at_class(buffer, c), most);
  }
  Sum<acc_t> total;
  const auto shift = shift_of(most);
  for (int64_t c = 0; c < classes; ++c) {
    total.add(exp_shifted(at_class(buffer, c) - shift));
  }
  most.store(maximum);
  total.value().store(sum);
}

}  // namespace xentbench
