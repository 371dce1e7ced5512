// Cross-entropy of logits for CPU: one read of them forward, one read and one write of their size backward.
//
// With m = max x and s = sum exp(x - m) of a row, kept apart, l_j = log s - (x_j - m) is the loss of class j, and
//
//   loss = (1 - e) w_t l_t + e / C sum_j w_j l_j          for a class index t
//   loss = sum_j w_j ((1 - e) y_j + e / C) l_j            for probabilities y
//   gradient = (Q p_j - q_j) upstream, p_j = exp(x_j - m) / s, q_j the factor of l_j above and Q their sum
//
// e is the label smoothing, w the class weights. The half types are computed in float. Sums over rows are in double and
// in one order: the same arguments give the same bits, whatever the number of threads.
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>
#include <torch/types.h>

#include "backward.h"

// The name of the operators in torch, given by whoever builds: several builds may be loaded by one process.
#ifndef XENTBENCH_NAMESPACE
#define XENTBENCH_NAMESPACE xentbench
#endif
#define XENTBENCH_TEXT(name) #name
#define XENTBENCH_TEXT_OF(name) XENTBENCH_TEXT(name)
#define XENTBENCH_OPERATOR(name) XENTBENCH_TEXT_OF(XENTBENCH_NAMESPACE) "::" name
// torch's own macros would take the name of a macro for the name: theirs are called with its value.
#define XENTBENCH_LIBRARY(name, library) TORCH_LIBRARY(name, library)
#define XENTBENCH_LIBRARY_IMPL(name, key, library) TORCH_LIBRARY_IMPL(name, key, library)

namespace xentbench {

// The loss, and (2 rows + 1) numbers for the backward.
std::tuple<Tensor, Tensor> forward(
    const Tensor& input, const Tensor& target, const optional<Tensor>& weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing) {
  const auto given = arguments(input, target, weight, {ignore_index, reduction, label_smoothing});
  Tensor stats = at::empty({2 * given.grid.rows + 1}, input.options().dtype(at::toOpMathType(input.scalar_type())));
  Tensor loss;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, input.scalar_type(), "xentbench_forward", [&] {
    loss = loss_of<scalar_t>(input, target, given, stats.mutable_data_ptr<at::opmath_type<scalar_t>>());
  });
  return {loss, stats};
}

// The loss alone, where nobody will ask for a gradient.
Tensor value(
    const Tensor& input, const Tensor& target, const optional<Tensor>& weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing) {
  const auto given = arguments(input, target, weight, {ignore_index, reduction, label_smoothing});
  Tensor loss;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, input.scalar_type(), "xentbench_value", [&] {
    c10::SmallVector<at::opmath_type<scalar_t>, 128> stats(2 * given.grid.rows + 1);
    loss = loss_of<scalar_t>(input, target, given, stats.data());
  });
  return loss;
}

std::tuple<Tensor, Tensor> backward(
    const Tensor& upstream, const Tensor& input, const Tensor& target, const optional<Tensor>& weight, const Tensor& stats,
    int64_t ignore_index, int64_t reduction, double label_smoothing, bool target_grad) {
  const auto given = arguments(input, target, weight, {ignore_index, reduction, label_smoothing});
  // Whoever calls the operator by its name may bring anything, and no more than there is may be read.
  TORCH_CHECK_VALUE(
      stats.numel() == 2 * given.grid.rows + 1 && stats.is_contiguous(), "stats must be the forward's, (", 2 * given.grid.rows + 1,
      ") contiguous, got ", stats.sizes());
  TORCH_CHECK_VALUE(
      upstream.numel() == (reduction == NONE ? given.grid.rows : 1), "upstream must have the shape of the loss, got ", upstream.sizes());
  const Tensor by_row = upstream.to(stats.scalar_type()).contiguous();
  Tensor gradient = at::empty(given.logits.sizes(), given.logits.options());
  Tensor of_target = target_grad ? at::empty(given.logits.sizes(), given.logits.options()) : Tensor();
  ask_for_large_pages(gradient);
  Labels labels(given);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, input.scalar_type(), "xentbench_backward", [&] {
    using acc_t = at::opmath_type<scalar_t>;
    // The statistics are read only: one constructor serves both ways.
    const Kept<acc_t> kept(const_cast<acc_t*>(stats.const_data_ptr<acc_t>()), given.grid.rows);
    auto* to = gradient.mutable_data_ptr<scalar_t>();
    if (across_rows(given.grid)) {
      backward_tiles<scalar_t>(given, labels, kept, by_row, to);
    } else {
      backward_rows<scalar_t>(given, labels, kept, by_row, to);
    }
    if (target_grad) {
      backward_target<scalar_t>(given, kept, by_row, of_target.mutable_data_ptr<scalar_t>());
    }
  });
  auto as_given = [&](const Tensor& x) { return given.permuted ? x.movedim(-1, 1) : x.view(input.sizes()); };
  return {as_given(gradient), target_grad ? as_given(of_target).to(target.scalar_type()) : at::empty({0}, input.options())};
}

template <typename Signature>
c10::TypedOperatorHandle<Signature> operator_of(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// Through the dispatcher, so that tracing, fake tensors and whatever else is between sees them.
template <typename... Given>
auto call_forward(const Given&... given) {
  static const auto op = operator_of<decltype(forward)>(XENTBENCH_OPERATOR("cross_entropy_forward"));
  return op.call(given...);
}

template <typename... Given>
auto call_value(const Given&... given) {
  static const auto op = operator_of<decltype(value)>(XENTBENCH_OPERATOR("cross_entropy_value"));
  return op.call(given...);
}

template <typename... Given>
auto call_backward(const Given&... given) {
  static const auto op = operator_of<decltype(backward)>(XENTBENCH_OPERATOR("cross_entropy_backward"));
  return op.call(given...);
}

class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
 public:
  static Tensor forward(
      torch::autograd::AutogradContext* context, const Tensor& input, const Tensor& target, const optional<Tensor>& weight,
      int64_t ignore_index, int64_t reduction, double label_smoothing) {
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, stats] = call_forward(input, target, weight, ignore_index, reduction, label_smoothing);
    context->save_for_backward({input, target, weight.value_or(Tensor()), stats});
    context->saved_data["options"] = std::make_tuple(ignore_index, reduction, label_smoothing);
    return loss;
  }

  static torch::autograd::variable_list backward(
      torch::autograd::AutogradContext* context, torch::autograd::variable_list upstream) {
    const auto saved = context->get_saved_variables();
    const auto &input = saved[0], &target = saved[1];
    const auto weight = saved[2].defined() ? optional<Tensor>(saved[2]) : std::nullopt;
    const auto [ignore_index, reduction, label_smoothing] =
        context->saved_data["options"].to<std::tuple<int64_t, int64_t, double>>();
    const bool target_grad = context->needs_input_grad(1);
    Tensor gradient, of_target;
    if (at::GradMode::is_enabled() && (upstream[0].requires_grad() || input.requires_grad() || target.requires_grad())) {
      const Tensor loss = at::cross_entropy_loss(input, target, weight, reduction, ignore_index, label_smoothing);
      std::tie(gradient, of_target) = differentiable(loss, upstream[0], input, target);
    } else {
      std::tie(gradient, of_target) =
          call_backward(upstream[0], input, target, weight, saved[3], ignore_index, reduction, label_smoothing, target_grad);
    }
    return {gradient, target_grad ? of_target : Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }

 private:
  // The same gradient by torch's own loss, whose derivative torch knows: for those who ask for second derivatives.
  static std::tuple<Tensor, Tensor> differentiable(
      const Tensor& loss, const Tensor& upstream, const Tensor& input, const Tensor& target) {
    const auto of = [&](const Tensor& leaf) {
      return leaf.requires_grad() ? torch::autograd::grad({loss}, {leaf}, {upstream}, std::nullopt, /*create_graph=*/true)[0] : Tensor();
    };
    return {of(input), of(target)};
  }
};

Tensor cross_entropy(
    const Tensor& input, const Tensor& target, const optional<Tensor>& weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing) {
  TORCH_CHECK(
      !at::GradMode::is_enabled() || !weight.has_value() || !weight->requires_grad(),
      "weight must not require a gradient, which this loss does not have, as torch's own does not: detach it");
  if (!at::GradMode::is_enabled() || !(input.requires_grad() || target.requires_grad())) {
    return call_value(input, target, weight, ignore_index, reduction, label_smoothing);
  }
  return CrossEntropy::apply(input, target, weight, ignore_index, reduction, label_smoothing);
}

// As torch has it for its own loss: float32 under autocast.
Tensor autocast(
    const Tensor& input, const Tensor& target, const optional<Tensor>& weight, int64_t ignore_index, int64_t reduction,
    double label_smoothing) {
  const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::AutocastCPU);
  const auto cast = [](const Tensor& x) { return at::autocast::cached_cast(at::kFloat, x, c10::DeviceType::CPU); };
  const auto weights = weight.has_value() && weight->defined() ? optional<Tensor>(cast(*weight)) : std::nullopt;
  return cross_entropy(cast(input), cast(target), weights, ignore_index, reduction, label_smoothing);
}

}  // namespace xentbench

XENTBENCH_LIBRARY(XENTBENCH_NAMESPACE, library) {
  library.def(
      "cross_entropy(Tensor input, Tensor target, Tensor? weight, int ignore_index, int reduction, float label_smoothing) "
      "-> Tensor");
  library.def(
      "cross_entropy_value(Tensor input, Tensor target, Tensor? weight, int ignore_index, int reduction, "
      "float label_smoothing) -> Tensor");
  library.def(
      "cross_entropy_forward(Tensor input, Tensor target, Tensor? weight, int ignore_index, int reduction, "
      "float label_smoothing) -> (Tensor, Tensor)");
  library.def(
      "cross_entropy_backward(Tensor upstream, Tensor input, Tensor target, Tensor? weight, Tensor stats, "
      "int ignore_index, int reduction, float label_smoothing, bool target_grad) -> (Tensor, Tensor)");
}

XENTBENCH_LIBRARY_IMPL(XENTBENCH_NAMESPACE, CompositeImplicitAutograd, library) {
  library.impl("cross_entropy", xentbench::cross_entropy);
}

XENTBENCH_LIBRARY_IMPL(XENTBENCH_NAMESPACE, AutocastCPU, library) {
  library.impl("cross_entropy", xentbench::autocast);
}

XENTBENCH_LIBRARY_IMPL(XENTBENCH_NAMESPACE, CPU, library) {
  library.impl("cross_entropy_value", xentbench::value);
  library.impl("cross_entropy_forward", xentbench::forward);
  library.impl("cross_entropy_backward", xentbench::backward);
}
