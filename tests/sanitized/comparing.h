// One call after another, as a case says, and what torch's own loss says to the same in double.
#pragma once

// The sources themselves, lest the compiler of the library has a say in what is looked at.
#include "cross_entropy.cpp"

#include <cstdio>
#include <sstream>
#include <vector>

#include "memory.h"

namespace sanitized {

using c10::IntArrayRef;
using std::optional;
using Shape = std::vector<int64_t>;

constexpr int OPTIONS = 24;

Memory memory;
int64_t calls = 0, wrong = 0;

struct Options {
  bool labelled, weighted;
  double smoothing;
  int64_t reduction;
  int64_t ignored;

  explicit Options(int64_t number)
      : labelled(number % 2 == 0),
        weighted(number / 2 % 2 == 1),
        smoothing(number / 4 % 2 == 1 ? 0.1 : 0),
        reduction(number / 8 % 3),
        ignored(labelled && weighted ? 0 : -100) {}
};

struct Case {
  Shape shape;
  at::ScalarType dtype;
  Options options;
  Layout layout;
  bool guarded;
  int threads;

  std::string told() const {
    std::ostringstream text;
    text << IntArrayRef(shape) << ' ' << dtype << ' ' << NAMES[static_cast<int>(layout)] << (guarded ? ", guarded" : "") << ", "
         << threads << " thread(s), " << (options.labelled ? "labels" : "probabilities") << (options.weighted ? ", weights" : "")
         << ", smoothing " << options.smoothing << ", reduction " << options.reduction << ", ignored " << options.ignored;
    return text.str();
  }
};

// Memory ends at a guard while this lives.
class Guard {
 public:
  explicit Guard(bool on) {
    memory.guarded = on;
  }
  ~Guard() {
    memory.guarded = false;
  }
};

struct Given {
  Tensor input, target, upstream;
  optional<Tensor> weight;
};

struct Answer {
  Tensor loss, gradient, of_target;
};

void expect(bool is_so, const std::string& where, const std::string& what) {
  if (!is_so) {
    ++wrong;
    std::printf("WRONG: %s: %s\n", where.c_str(), what.c_str());
  }
}

// The half types are computed in float and rounded once. Loose: what is looked for is memory, and that something is computed.
void expect_near(const Tensor& found, const Tensor& right, const std::string& where, const char* what) {
  const bool is_double = found.scalar_type() == at::kDouble;
  const bool is_half = found.element_size() == 2;
  const double unit = found.scalar_type() == at::kBFloat16 ? 0x1p-8 : is_half ? 0x1p-11 : is_double ? 0x1p-53 : 0x1p-24;
  const double least = is_double ? 1e-13 : 1e-5;
  const auto near = found.sizes() == right.sizes() &&
      at::allclose(found.to(at::kDouble), right.to(found.scalar_type()).to(at::kDouble), (is_half ? 4 : 128) * unit, least, true);
  std::ostringstream difference;
  if (!near) {
    difference << what << " of " << found.sizes();
    if (found.sizes() == right.sizes() && found.numel() > 0) {
      difference << " differs by up to " << (found.to(at::kDouble) - right).abs().max().item<double>();
    }
  }
  expect(near, where, difference.str());
}

Shape rows_of(const Shape& shape) {
  const auto rows = xentbench::row_shape(at::empty(shape));
  return {rows.begin(), rows.end()};
}

// Labels of which every third is the ignored one.
Tensor labels(const Shape& rows, int64_t classes, int64_t ignored) {
  Tensor made = at::randint(classes, rows, at::kLong);
  made.view(-1).slice(0, 1, std::nullopt, 3).fill_(ignored);
  return made;
}

Given given(const Case& its) {
  const auto& [shape, dtype, options, layout, guarded, threads] = its;
  const Shape rows = rows_of(shape);
  const int64_t axis = shape.size() == 1 ? 0 : 1, classes = shape[axis];
  const Tensor logits = (at::randn(shape, at::kDouble) * 3).to(dtype);
  const Tensor target = options.labelled ? labels(rows, classes, options.ignored)
                                         : at::softmax(at::randn(shape, at::kDouble), axis).to(dtype);
  const Tensor weight = (at::rand({classes}, at::kDouble) + 0.5).to(dtype);
  const Tensor upstream = at::randn(options.reduction == xentbench::NONE ? rows : Shape{}, at::kDouble).to(dtype);
  // What lies beside the logits begins one element into its storage where they do not: every combination, in fewer calls.
  const Layout beside = layout == Layout::dense ? Layout::shifted : layout;
  const Guard guard(guarded);
  return {
      laid(logits, layout), laid(target, beside), laid(upstream, beside),
      options.weighted ? optional<Tensor>(laid(weight, beside)) : std::nullopt};
}

Answer answered(const Given& its, const Case& asked) {
  const auto& options = asked.options;
  const Gaps gaps(its.input);
  const Guard guard(asked.guarded);
  const auto [loss, stats] =
      xentbench::forward(its.input, its.target, its.weight, options.ignored, options.reduction, options.smoothing);
  const Tensor value = xentbench::value(its.input, its.target, its.weight, options.ignored, options.reduction, options.smoothing);
  const auto [gradient, of_target] = xentbench::backward(
      its.upstream, its.input, its.target, its.weight, stats, options.ignored, options.reduction, options.smoothing,
      !options.labelled);
  calls += 3;
  expect(value.sizes() == loss.sizes() && at::allclose(value, loss, 0, 0, true), asked.told(), "value and forward differ");
  return {loss, gradient, of_target};
}

Answer torchs(const Given& its, const Case& asked) {
  at::set_num_threads(1);
  const auto& options = asked.options;
  std::vector<Tensor> leaves{its.input.to(at::kDouble).requires_grad_()};
  Tensor target = its.target;
  if (!options.labelled) {
    target = target.to(at::kDouble).requires_grad_();
    leaves.push_back(target);
  }
  const auto weight = its.weight ? optional<Tensor>(its.weight->to(at::kDouble)) : std::nullopt;
  const Tensor loss = at::cross_entropy_loss(leaves[0], target, weight, options.reduction, options.ignored, options.smoothing);
  const auto gradients = torch::autograd::grad({loss}, leaves, {its.upstream.to(at::kDouble)});
  return {loss.detach(), gradients[0], options.labelled ? Tensor() : gradients[1]};
}

void compare(const Case& asked) {
  at::set_num_threads(asked.threads);
  const Given its = given(asked);
  const Answer found = answered(its, asked), right = torchs(its, asked);
  const auto where = asked.told();
  expect_near(found.loss, right.loss, where, "loss");
  expect_near(found.gradient, right.gradient, where, "gradient");
  if (!asked.options.labelled) {
    expect_near(found.of_target, right.of_target, where, "gradient of the target");
  }
}

}  // namespace sanitized
