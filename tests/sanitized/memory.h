// Where the driver's tensors lie: as they may lie with a caller, and so that nothing beyond them can be touched unseen.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <unistd.h>

#include <limits>

namespace sanitized {

using at::Tensor;

// Memory for tensors, malloc's with AddressSanitizer's red zones on both sides; or, while it is `guarded`, memory that
// ends, to the byte, where a page begins that nobody may touch. AddressSanitizer looks neither at masked loads and stores
// of AVX-512 nor at streaming stores: only the page sees those.
class Memory final : public c10::Allocator {
 public:
  bool guarded = false;

  c10::DataPtr allocate(size_t bytes) override {
    if (!guarded || bytes == 0) {
      return c10::GetDefaultCPUAllocator()->allocate(bytes);
    }
    const size_t page = getpagesize(), whole = (bytes + page - 1) / page * page + page;
    void* begin = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(begin != MAP_FAILED, "no memory for ", whole, " bytes");
    char* end = static_cast<char*>(begin) + whole - page;
    TORCH_CHECK(mprotect(end, page, PROT_NONE) == 0, "a page could not be protected");
    return {end - bytes, new Mapping{begin, whole}, &release, c10::Device(c10::kCPU)};
  }

  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  struct Mapping {
    void* begin;
    size_t bytes;
  };

  static void release(void* context) {
    auto* mapping = static_cast<Mapping*>(context);
    munmap(mapping->begin, mapping->bytes);
    delete mapping;
  }
};

enum class Layout { dense, shifted, apart, alternating, transposed, expanded };
constexpr Layout LAYOUTS[] = {Layout::dense,       Layout::shifted,    Layout::apart,
                              Layout::alternating, Layout::transposed, Layout::expanded};
constexpr const char* NAMES[] = {"dense", "shifted", "apart", "alternating", "transposed", "expanded"};

// Numbers between the rows of `apart`, at least, and their bytes' unit: AddressSanitizer poisons from any byte to such a one.
constexpr int64_t GAP = 19, GRANULE = 8;

// Returns a tensor of these values, and maybe others, that ends with its storage and lies as told:
//
// `shifted` begins one element into its storage, `apart` has room between rows, `alternating` takes every second element,
// `transposed` has its last dimension first in memory, `expanded` is its first row over and over. What cannot is dense.
inline Tensor laid(const Tensor& values, Layout layout) {
  const auto shape = values.sizes();
  const int64_t count = values.numel(), last = shape.empty() ? 0 : shape.back();
  const auto nothing = at::Scalar(std::numeric_limits<double>::quiet_NaN());
  const auto room = [&](at::IntArrayRef sizes) {
    return at::isFloatingType(values.scalar_type()) ? at::full(sizes, nothing, values.options())
                                                    : at::full(sizes, std::numeric_limits<int64_t>::max() / 3, values.options());
  };
  if (layout == Layout::shifted) {
    return room({count + 1}).narrow(0, 1, count).view(shape).copy_(values);
  }
  if (layout == Layout::apart && values.dim() == 2 && shape[0] > 1) {
    const int64_t unit = std::max<int64_t>(1, GRANULE / values.element_size());
    const int64_t step = (last + GAP + unit - 1) / unit * unit;
    return room({(shape[0] - 1) * step + last}).as_strided(shape, {step, 1}).copy_(values);
  }
  if (layout == Layout::alternating && values.dim() > 0) {
    auto sizes = shape.vec();
    sizes.back() *= 2;
    return room(sizes).slice(-1, 1, std::nullopt, 2).copy_(values);
  }
  if (layout == Layout::transposed && values.dim() > 1) {
    return values.transpose(0, -1).clone(at::MemoryFormat::Contiguous).transpose(0, -1);
  }
  if (layout == Layout::expanded && values.dim() > 1 && shape[0] > 0) {
    return values.narrow(0, 0, 1).clone(at::MemoryFormat::Contiguous).expand(shape);
  }
  return values.clone(at::MemoryFormat::Contiguous);
}

// What lies between rows, not to be read while this lives.
class Gaps {
 public:
  explicit Gaps(const Tensor& x) : x_(x) {
    mark(__asan_poison_memory_region);
  }
  ~Gaps() {
    mark(__asan_unpoison_memory_region);
  }
  Gaps(const Gaps&) = delete;
  Gaps& operator=(const Gaps&) = delete;

 private:
  void mark(void (*as)(const volatile void*, size_t)) const {
    if (x_.dim() != 2 || x_.stride(1) != 1 || x_.stride(0) < x_.size(1) + GAP) {
      return;
    }
    const auto* begin = static_cast<const char*>(x_.const_data_ptr());
    const int64_t row = x_.size(1) * x_.element_size(), step = x_.stride(0) * x_.element_size();
    for (int64_t i = 0; i + 1 < x_.size(0); ++i) {
      as(begin + i * step + row, step - row);
    }
  }

  Tensor x_;
};

}  // namespace sanitized
