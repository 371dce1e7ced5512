// What the loss is asked: checked, brought into one form, and the factors that its options stand for.
#pragma once

#include <ATen/ATen.h>
#include <c10/util/SmallVector.h>

#include <atomic>
#include <optional>

#include "tiles.h"

namespace xentbench {

using at::Tensor;
using std::optional;

constexpr int64_t NONE = 0, MEAN = 1;
// Fewer classes than this are computed across rows.
constexpr int64_t FEW_CLASSES = 64;
// More classes than this, where they are not next to each other, are copied first.
constexpr int64_t MOST_APART = 4096;

struct Options {
  int64_t ignore_index;
  int64_t reduction;
  double smoothing;
};

// The arguments as the kernels take them: classes of a row in one grid, float class weights, labels or probabilities.
struct Arguments {
  Tensor logits, target, weight;
  Grid grid;
  bool labelled;
  bool permuted;  // a copy with the classes last, since they were too many to be read apart
  Options options;
};

inline Tensor classes_last(const Tensor& x) {
  return x.dim() > 2 ? x.movedim(1, -1).contiguous() : x.contiguous();
}

// The shape of class indices, and of the loss without reduction.
inline c10::DimVector row_shape(const Tensor& input) {
  c10::DimVector shape(input.sizes());
  shape.erase(shape.begin() + (input.dim() == 1 ? 0 : 1));
  return shape;
}

inline void check(const Tensor& input, const Tensor& target, const optional<Tensor>& weight, const Options& options) {
  TORCH_CHECK_VALUE(
      input.dim() >= 1 && at::isFloatingType(input.scalar_type()),
      "input must be floating-point logits (C), (N, C) or (N, C, d1, ...), got ", input.sizes(), " of ", input.scalar_type());
  TORCH_CHECK_VALUE(
      options.smoothing >= 0 && options.smoothing <= 1, "label_smoothing must lie between 0 and 1, got ", options.smoothing);
  const int64_t axis = input.dim() == 1 ? 0 : 1, classes = input.size(axis);
  TORCH_CHECK_VALUE(classes > 0, "input must have at least one class, got shape ", input.sizes());
  if (weight.has_value() && weight->defined()) {
    TORCH_CHECK_VALUE(
        weight->dim() == 1 && weight->size(0) == classes, "weight must have one entry a class, (", classes, "), got ", weight->sizes());
  }
  if (at::isFloatingType(target.scalar_type()) && target.sizes() == input.sizes()) {
    TORCH_CHECK_VALUE(options.ignore_index < 0, "ignore_index has no meaning for probabilities, got ", options.ignore_index);
    return;
  }
  TORCH_CHECK_TYPE(
      target.scalar_type() == at::kLong || target.scalar_type() == at::kByte,
      "target must hold class indices as int64, or probabilities of the input's shape, got ", target.scalar_type());
  const auto shape = row_shape(input);
  TORCH_CHECK_VALUE(target.sizes() == at::IntArrayRef(shape), "target must have shape ", at::IntArrayRef(shape), ", got ", target.sizes());
}

inline Arguments arguments(const Tensor& input, const Tensor& target, const optional<Tensor>& weight, const Options& options) {
  check(input, target, weight, options);
  Arguments given{input, target, Tensor(), {}, !at::isFloatingType(target.scalar_type()), false, options};
  const auto acc = at::toOpMathType(input.scalar_type());
  if (weight.has_value() && weight->defined()) {
    given.weight = weight->detach().to(acc).contiguous();
  }
  Tensor x = input.dim() == 1 ? input.unsqueeze(0) : input;
  int64_t rows = x.size(0), classes = x.size(1), inners = 1;
  for (int64_t d = 2; d < x.dim(); ++d) {
    inners *= x.size(d);
  }
  const bool rows_apart = x.dim() == 2 && x.stride(1) == 1 && x.stride(0) >= classes;
  if (inners > 1 && classes > MOST_APART) {
    given.permuted = true;
    x = classes_last(x);
    rows *= inners;
    inners = 1;
  } else if (!rows_apart) {
    x = x.contiguous();
  }
  const int64_t outer = rows_apart && rows > 1 ? x.stride(0) : classes * inners;
  given.logits = x;
  given.grid = {rows * inners, classes, inners, outer, inners};
  if (given.labelled) {
    given.target = target.to(at::kLong).contiguous();
  } else {
    const Tensor y = (input.dim() == 1 ? target.unsqueeze(0) : target).detach().to(input.scalar_type());
    given.target = given.permuted ? classes_last(y) : y.contiguous();
  }
  return given;
}

// Labels of rows; one out of range is noted, to be raised where no thread is running.
class Labels {
 public:
  Labels(const Arguments& given)
      : of_(given.labelled ? given.target.const_data_ptr<int64_t>() : nullptr),
        ignored_(given.options.ignore_index),
        classes_(given.grid.classes) {}

  // Returns the label of a row, or -1 where it is ignored or wrong.
  int64_t operator()(int64_t row) {
    const int64_t label = of_[row];
    if (label == ignored_) {
      return -1;
    }
    if (label < 0 || label >= classes_) {
      wrong_.store(label, std::memory_order_relaxed);
      is_wrong_.store(true, std::memory_order_relaxed);
      return -1;
    }
    return label;
  }

  void raise() const {
    TORCH_CHECK_INDEX(
        !is_wrong_.load(), "target must lie between 0 and ", classes_ - 1, " or be ignore_index ", ignored_, ", got ", wrong_.load());
  }

 private:
  const int64_t* of_;
  int64_t ignored_, classes_;
  std::atomic<int64_t> wrong_{0};
  std::atomic<bool> is_wrong_{false};
};

// The factors of the losses of classes in a row's loss, and what they add up to over all classes.
template <typename acc_t>
struct Factors {
  acc_t keep, spread;
  const acc_t* weight;
  double spread_total;

  explicit Factors(const Arguments& given)
      : keep(static_cast<acc_t>(1 - given.options.smoothing)),
        spread(static_cast<acc_t>(given.options.smoothing / given.grid.classes)),
        weight(given.weight.defined() ? given.weight.const_data_ptr<acc_t>() : nullptr),
        spread_total(given.options.smoothing) {
    if (weight != nullptr && given.options.smoothing > 0) {
      double total = 0;
      for (int64_t c = 0; c < given.grid.classes; ++c) {
        total += static_cast<double>(weight[c]);
      }
      spread_total = total * given.options.smoothing / given.grid.classes;
    }
  }

  acc_t of(int64_t label) const {
    return weight == nullptr ? acc_t(1) : weight[label];
  }
};

}  // namespace xentbench
