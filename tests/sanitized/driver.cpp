// Calls the native kernel as callers may, and holds what it answers against torch's own loss in double.
//
// Built with sanitizers, which abort at the first access or operation that is not allowed; a wrong answer is told, and
// makes the exit status 1. It includes the sources, lest the compiler of the library has a say in what is looked at.
#include "cross_entropy.cpp"

#include <cstdio>
#include <sstream>
#include <thread>
#include <vector>

#include "memory.h"

namespace sanitized {

using c10::IntArrayRef;
using std::optional;
using Shape = std::vector<int64_t>;

constexpr at::ScalarType DTYPES[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};
constexpr int64_t ROWS[] = {0, 1, 2, 3, 15, 16, 17, 33};
constexpr int64_t CLASSES[] = {1, 2, 3, 7, 10, 15, 16, 17, 63, 64, 65, 127, 1000, 2049, 4097, 5000};
// One row, (N, C, d) and more: few classes, many, and more than are read apart; nothing at all; more than one task of a thread.
const Shape SHAPES[] = {{1},       {10},        {64},         {5000},    {2, 3, 5}, {2, 10, 17}, {1, 64, 16},   {3, 65, 7},
                        {2, 1, 9}, {2, 5, 3, 4}, {2, 1000, 3}, {2, 127, 1}, {0, 5, 3}, {2, 5, 0},   {2, 4097, 3},  {3, 5000, 1},
                        {2, 4097, 0}, {1, 4097, 2, 2}, {4000, 10}, {700, 63}, {130, 1000}, {5, 40, 400}};
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
      its.upstream, its.input, its.target, its.weight, stats, options.ignored, options.reduction, options.smoothing, !options.labelled);
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

// Every shape with all options; layouts, memory and threads in turn, each of them with each of the options.
void compare_shapes(const std::vector<Shape>& shapes) {
  int64_t turn = 0;
  for (const auto& shape : shapes) {
    for (const auto dtype : DTYPES) {
      for (int64_t option = 0; option < OPTIONS; ++option, ++turn) {
        compare({shape, dtype, Options(option), LAYOUTS[(turn / OPTIONS + option) % std::size(LAYOUTS)], turn / 5 % 2 == 1, 1 + int(turn / 7 % 2)});
      }
    }
  }
}

void compare_sizes() {
  std::vector<Shape> shapes;
  for (const auto rows : ROWS) {
    for (const auto classes : CLASSES) {
      shapes.push_back({rows, classes});
    }
  }
  compare_shapes(shapes);
}

// From 16 MiB on a gradient is streamed where its rows are aligned: by malloc they all are, none, or every second one;
// before a guard only the last one may be.
void compare_streamed() {
  for (const auto dtype : DTYPES) {
    for (const int64_t classes : {8192, 8191, 8200}) {
      const int64_t rows = xentbench::STREAMED_BYTES / (8191 * static_cast<int64_t>(c10::elementSize(dtype))) + 1;
      compare({{rows, classes}, dtype, Options(8), Layout::dense, false, 1});
      compare({{rows, classes}, dtype, Options(18), Layout::shifted, true, 2});
    }
  }
}

// Rows as trained models and broken ones have them.
Tensor special(int64_t classes, at::ScalarType dtype) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  Tensor rows = at::randn({8, classes}, at::kDouble);
  rows[0].fill_(-infinity);
  rows[1][classes - 1] = infinity;
  rows[2][classes - 1] = std::numeric_limits<double>::quiet_NaN();
  rows[3][0] = std::numeric_limits<double>::quiet_NaN();
  rows[4].fill_(-1e38)[classes - 1] = 1e38;
  rows[5].fill_(1e38);
  rows[6].slice(0, 1).fill_(-infinity);
  rows[7][0] = -infinity;
  return rows.to(dtype);
}

void compare_special() {
  for (const auto dtype : DTYPES) {
    for (const int64_t classes : {1, 2, 17, 64, 300, 5001}) {
      for (const int64_t option : {0, 4, 8, 16}) {
        const Case asked{{8, classes}, dtype, Options(option), Layout::dense, false, 1};
        const Tensor x = special(classes, dtype), target = at::zeros({8}, at::kLong);
        const Tensor upstream = at::ones(asked.options.reduction == xentbench::NONE ? Shape{8} : Shape{}, dtype);
        const Given its{x, target, upstream, std::nullopt};
        const auto found = answered(its, asked), right = torchs(its, asked);
        expect_near(found.loss, right.loss, "special " + asked.told(), "loss");
        expect_near(found.gradient, right.gradient, "special " + asked.told(), "gradient");
      }
    }
  }
}

// A call is refused with this error, and no other.
template <typename Error, typename Call>
void expect_refused(Call call, const char* what) {
  ++calls;
  std::string instead = "is not refused";
  try {
    call();
  } catch (const Error&) {
    return;
  } catch (const std::exception& error) {
    instead = error.what();
  }
  expect(false, what, instead);
}

void expect_refusals() {
  const auto none = optional<Tensor>();
  for (const auto dtype : DTYPES) {
    for (const int64_t classes : {1, 10, 64, 5000}) {
      const Tensor x = laid(at::randn({17, classes}).to(dtype), Layout::shifted);
      for (const int64_t label : {classes, int64_t(-1), std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
        const Tensor target = at::zeros({17}, at::kLong).index_put_({at::tensor({16})}, at::tensor({label}));
        expect_refused<c10::IndexError>([&] { xentbench::forward(x, target, none, -100, 1, 0); }, "a label out of range");
        expect_refused<c10::IndexError>([&] { xentbench::value(x, target, none, -100, 0, 0.1); }, "a label out of range");
        expect_refused<c10::IndexError>([&] { xentbench::forward(x, target, at::ones({classes}), -100, 1, 0); }, "a label out of range");
        const Tensor stats = std::get<1>(xentbench::forward(x, at::zeros({17}, at::kLong), none, -100, 1, 0));
        // The forward has refused these: what is wanted of a backward is that it reads and writes nothing else.
        xentbench::backward(at::ones({}, dtype), x, target, at::ones({classes}, dtype), stats, -100, 1, 0.1, false);
      }
    }
  }
  const Tensor x = at::randn({17, 10}), target = at::zeros({17}, at::kLong);
  const Tensor stats = std::get<1>(xentbench::forward(x, target, none, -100, 0, 0));
  expect_refused<c10::ValueError>([&] { xentbench::forward(x, target.narrow(0, 0, 16), none, -100, 1, 0); }, "too few labels");
  expect_refused<c10::ValueError>([&] { xentbench::forward(x, target, at::ones({9}), -100, 1, 0); }, "too few weights");
  expect_refused<c10::ValueError>([&] { xentbench::forward(at::empty({17, 0}), target, none, -100, 1, 0); }, "no classes");
  expect_refused<c10::TypeError>([&] { xentbench::forward(x, target.to(at::kInt), none, -100, 1, 0); }, "labels of int32");
  const auto backward = [&](int64_t rows, int64_t kept, int64_t reduction) {
    xentbench::backward(at::ones({rows}), x, target, none, stats.narrow(0, 0, kept), -100, reduction, 0, false);
  };
  expect_refused<c10::ValueError>([&] { backward(17, 34, xentbench::NONE); }, "too few statistics");
  expect_refused<c10::ValueError>([&] { backward(16, 35, xentbench::NONE); }, "too few gradients of the loss");
  expect_refused<c10::ValueError>([&] { backward(0, 35, xentbench::MEAN); }, "no gradient of the loss");
}

// As a training loop calls it: through torch's dispatcher, autograd and autocast, and a second derivative.
void compare_differentiated() {
  for (const auto dtype : DTYPES) {
    for (int64_t option = 0; option < OPTIONS; ++option) {
      const Case asked{{5, 70}, dtype, Options(option), Layout::alternating, false, 2};
      const auto& options = asked.options;
      const Given its = given(asked);
      const Tensor x = its.input.detach().requires_grad_();
      static const auto op = xentbench::operator_of<decltype(xentbench::cross_entropy)>("xentbench::cross_entropy");
      const Tensor loss = op.call(x, its.target, its.weight, options.ignored, options.reduction, options.smoothing);
      const Tensor gradient = torch::autograd::grad({loss}, {x}, {its.upstream}, true, true)[0];
      calls += 2;
      const Answer right = torchs(its, asked);
      expect_near(loss.detach(), right.loss, "differentiated " + asked.told(), "loss");
      const Tensor once = torch::autograd::grad({loss}, {x}, {its.upstream}, true)[0];
      expect_near(once, right.gradient, "differentiated " + asked.told(), "gradient");
      torch::autograd::grad({gradient.sum()}, {x});
    }
  }
}

// Returns how many threads share two tasks: a kernel that was told to use two and got one is looked at half.
int threads_used() {
  at::set_num_threads(2);
  std::array<std::thread::id, 2> seen;
  at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
    std::fill(seen.begin() + begin, seen.begin() + end, std::this_thread::get_id());
  });
  return seen[0] == seen[1] ? 1 : 2;
}

struct Step {
  const char* name;
  void (*run)();
};

const Step STEPS[] = {
    {"sizes", compare_sizes},
    {"shapes", [] { compare_shapes({std::begin(SHAPES), std::end(SHAPES)}); }},
    {"streamed", compare_streamed},
    {"special", compare_special},
    {"refused", expect_refusals},
    {"differentiated", compare_differentiated},
};

void run(const Step& step) {
  const auto before = calls;
  step.run();
  std::printf("%s: %lld calls\n", step.name, static_cast<long long>(calls - before));
}

}  // namespace sanitized

// Takes the name of the only step to go, or none for all of them.
int main(int count, char** arguments) {
  using namespace sanitized;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // whatever was wrong is told, also where a sanitizer aborts later
  c10::SetCPUAllocator(&memory, 1);
  at::manual_seed(7);
  expect(threads_used() == 2, "threads", "two were asked for");
  for (const auto& step : STEPS) {
    if (count < 2 || std::string(arguments[1]) == step.name) {
      run(step);
    }
  }
  std::printf("%lld calls, %lld wrong\n", static_cast<long long>(calls), static_cast<long long>(wrong));
  return calls > 0 && wrong == 0 ? 0 : 1;
}
