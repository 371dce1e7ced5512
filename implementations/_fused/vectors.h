// Vectors of logits in the type that is computed in, and the exponential of logits less about their maximum.
#pragma once

#include <ATen/OpMathType.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <array>
#include <cmath>
#include <limits>

namespace xentbench {

template <typename acc_t>
using Vec = at::vec::Vectorized<acc_t>;

// What is read or written at once: one vector of float or double, two of float for the half types.
template <typename scalar_t>
struct Lanes {
  using acc_t = at::opmath_type<scalar_t>;
  static constexpr bool is_half = !std::is_same_v<scalar_t, acc_t>;
  static constexpr int vectors = is_half ? 2 : 1;
  static constexpr int64_t width = at::vec::Vectorized<scalar_t>::size();
  using Values = std::array<Vec<acc_t>, vectors>;

  // Reads `count` numbers; what is beyond them is `rest`.
  static Values load(const scalar_t* from, int64_t count, acc_t rest) {
    auto read = at::vec::Vectorized<scalar_t>::loadu(from, count);
    if (count < width) {
      read = at::vec::Vectorized<scalar_t>::set(at::vec::Vectorized<scalar_t>(static_cast<scalar_t>(rest)), read, count);
    }
    return widened(read);
  }

  static Values load(const scalar_t* from) {
    return widened(at::vec::Vectorized<scalar_t>::loadu(from));
  }

  static bool is_aligned(const scalar_t* to) {
    return reinterpret_cast<uintptr_t>(to) % (width * sizeof(scalar_t)) == 0;
  }

  // Writes past the caches, which then need not read what is overwritten; `to` is aligned, and a fence has to follow.
  static void stream(scalar_t* to, const Values& values) {
#if defined(CPU_CAPABILITY_AVX512)
    if constexpr (std::is_same_v<scalar_t, float>) {
      _mm512_stream_ps(to, values[0]);
    } else if constexpr (std::is_same_v<scalar_t, double>) {
      _mm512_stream_pd(to, values[0]);
    } else {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(to), at::vec::convert_from_float<scalar_t>(values[0], values[1]));
    }
#elif defined(CPU_CAPABILITY_AVX2)
    if constexpr (std::is_same_v<scalar_t, float>) {
      _mm256_stream_ps(to, values[0]);
    } else if constexpr (std::is_same_v<scalar_t, double>) {
      _mm256_stream_pd(to, values[0]);
    } else {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(to), at::vec::convert_from_float<scalar_t>(values[0], values[1]));
    }
#else
    store(to, values);
#endif
  }

  static void fence() {
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
    _mm_sfence();
#endif
  }

  static void store(scalar_t* to, const Values& values, int64_t count = width) {
    if constexpr (is_half) {
      at::vec::convert_from_float<scalar_t>(values[0], values[1]).store(to, static_cast<int>(count));
    } else {
      values[0].store(to, static_cast<int>(count));
    }
  }

 private:
  static Values widened(const at::vec::Vectorized<scalar_t>& read) {
    if constexpr (is_half) {
      auto [low, high] = at::vec::convert_to_float<scalar_t>(read);
      return {low, high};
    } else {
      return {read};
    }
  }
};

// n as integers; -150 for NaN and 128 for what is larger, which C++ leaves undefined and AVX2 does not.
inline Vec<int32_t> whole_of(const Vec<float>& n) {
#if defined(CPU_CAPABILITY_AVX2)
  return at::vec::convert_to_int_of_same_size(n);
#else
  const auto known = at::vec::clamp_min(Vec<float>(-150.0f), n);  // the first of the two where the other is NaN
  return at::vec::convert_to_int_of_same_size(at::vec::clamp_max(known, Vec<float>(128.0f)));
#endif
}

// exp(x) for x <= 64, subnormal numbers included; NaN for NaN, anything beyond.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts (Cody and Waite 1980); exp(r) = 1 + r + r^2 q(r), q of degree 4,
// its coefficients minimax over the relative error, which is 0.05 unit roundoffs before rounding.
inline Vec<float> exp_shifted(const Vec<float>& logit) {
  const Vec<float> x = at::vec::clamp_min(logit, Vec<float>(-104.0f));  // there it is 0
  const Vec<float> n = (x * Vec<float>(1.44269504088896341f)).round();
  Vec<float> r = at::vec::fnmadd(n, Vec<float>(0.693145751953125f), x);
  r = at::vec::fnmadd(n, Vec<float>(1.428606765330187e-06f), r);
  Vec<float> q(0x1.6a241ap-10f);
  q = at::vec::fmadd(q, r, Vec<float>(0x1.1239f2p-7f));
  q = at::vec::fmadd(q, r, Vec<float>(0x1.5558f2p-5f));
  q = at::vec::fmadd(q, r, Vec<float>(0x1.555492p-3f));
  q = at::vec::fmadd(q, r, Vec<float>(0x1.fffffcp-2f));
  q = at::vec::fmadd(q, r, Vec<float>(1.0f));
  q = at::vec::fmadd(q, r, Vec<float>(1.0f));
#if defined(CPU_CAPABILITY_AVX512)
  return _mm512_scalef_ps(q, n);
#else
  // In two steps: 2^n alone may be no normal number where the product is one.
  const auto whole = whole_of(n), half = whole >> Vec<int32_t>(1);
  const auto power = [](const Vec<int32_t>& e) { return at::vec::cast<float, int32_t>((e + Vec<int32_t>(127)) << Vec<int32_t>(23)); };
  return q * power(half) * power(whole - half);
#endif
}

inline Vec<double> exp_shifted(const Vec<double>& x) {
  return x.exp();
}

template <typename acc_t>
acc_t sum_of(const Vec<acc_t>& values) {
  return at::vec::vec_reduce_all<acc_t>([](const Vec<acc_t>& a, const Vec<acc_t>& b) { return a + b; }, values);
}

template <typename acc_t>
acc_t largest_of(const Vec<acc_t>& values) {
  return at::vec::vec_reduce_all<acc_t>([](const Vec<acc_t>& a, const Vec<acc_t>& b) { return at::vec::maximum(a, b); }, values);
}

}  // namespace xentbench
