// Calls the native kernel as callers may, and holds what it answers against torch's own loss in double.
//
// Built with sanitizers, which abort at the first access or operation that is not allowed; a wrong answer is told, and
// makes the exit status 1.
#include "comparing.h"

#include <thread>

namespace sanitized {

constexpr at::ScalarType DTYPES[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf};
constexpr int64_t ROWS[] = {0, 1, 2, 3, 15, 16, 17, 33};
constexpr int64_t CLASSES[] = {1, 2, 3, 7, 10, 15, 16, 17, 63, 64, 65, 127, 1000, 2049, 4097, 5000};
// One row, (N, C, d) and more: few classes, many, more than are read apart; nothing at all; and tasks for several threads.
const std::vector<Shape> SHAPES = {
    {1},          {10},         {64},         {5000},       {2, 3, 5},    {2, 10, 17},  {1, 64, 16},     {3, 65, 7},
    {2, 1, 9},    {2, 5, 3, 4}, {2, 1000, 3}, {2, 127, 1},  {2, 4097, 3}, {3, 5000, 1}, {1, 4097, 2, 2}, {0, 5, 3},
    {2, 5, 0},    {2, 4097, 0}, {4000, 10},   {700, 63},    {130, 1000},  {5, 40, 400}};

// Every shape in every dtype with all options; layouts, memory and threads in turn, so that each meets each of the options.
void compare_shapes(const std::vector<Shape>& shapes) {
  int64_t turn = 0, shift = 0;
  for (const auto& shape : shapes) {
    ++shift;
    for (const auto dtype : DTYPES) {
      for (int64_t option = 0; option < OPTIONS; ++option, ++turn) {
        const auto layout = LAYOUTS[(shift + option) % std::size(LAYOUTS)];
        compare({shape, dtype, Options(option), layout, turn / 5 % 2 == 1, 1 + int(turn / 7 % 2)});
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
  using Limits = std::numeric_limits<int64_t>;
  const auto none = optional<Tensor>();
  for (const auto dtype : DTYPES) {
    for (const int64_t classes : {1, 10, 64, 5000}) {
      const Tensor x = laid(at::randn({17, classes}).to(dtype), Layout::shifted);
      for (const int64_t label : {classes, int64_t(-1), Limits::max(), Limits::min()}) {
        const Tensor target = at::zeros({17}, at::kLong).index_put_({at::tensor({16})}, at::tensor({label}));
        const auto weight = optional<Tensor>(at::ones({classes}));
        const char* what = "a label out of range";
        expect_refused<c10::IndexError>([&] { xentbench::forward(x, target, none, -100, 1, 0); }, what);
        expect_refused<c10::IndexError>([&] { xentbench::value(x, target, none, -100, 0, 0.1); }, what);
        expect_refused<c10::IndexError>([&] { xentbench::forward(x, target, weight, -100, 1, 0); }, what);
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
    {"shapes", [] { compare_shapes(SHAPES); }},
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
