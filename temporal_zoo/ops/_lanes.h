// Vectors of neighbouring channels, and functions of them that the CPU backends share.
// With GCC's vector types (Clang has them too) the same source compiles to AVX-512, AVX2, NEON or scalar code.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#if defined(__AVX512F__) && defined(__AVX512DQ__)
#include <immintrin.h>
#define ZOO_AVX512 1
#endif

namespace zoo {

#ifdef ZOO_AVX512
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Words __attribute__((vector_size(kLanes * sizeof(float))));
typedef float Quad __attribute__((vector_size(4 * sizeof(float))));

constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLn2 = 0.693147180559945309f;

inline Lanes splat(float x) { return x - Lanes{}; }

template <class Vector = Lanes>
inline Vector load(const float* from) {
    Vector v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class Vector>
inline void store(float* to, Vector v) {
    std::memcpy(to, &v, sizeof v);
}

// The first `count` lanes only, for a number of channels that is no multiple of the lanes.  Other lanes read as zero.
inline Lanes load(const float* from, int count) {
    if (count == kLanes) return load(from);
#ifdef ZOO_AVX512
    return (Lanes)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    Lanes v{};
    for (int i = 0; i < count; i++) v[i] = from[i];
    return v;
#endif
}

inline void store(float* to, Lanes v, int count) {
    if (count == kLanes) return store(to, v);
#ifdef ZOO_AVX512
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
#else
    for (int i = 0; i < count; i++) to[i] = v[i];
#endif
}

// Prefetches memory `ahead` floats after `from`, for reading or writing.  Rows of a few frames are too short for the
// processor to predict the start of the next one.  Addresses beyond the end are harmless.  Always inlined, because GCC
// may remove calls of a function that only prefetches.
enum Use { kRead, kWrite };

template <Use USE>
[[gnu::always_inline]] inline void fetch(const float* from, int64_t ahead) {
    __builtin_prefetch((const void*)((uintptr_t)from + (uintptr_t)ahead * sizeof(float)), USE);
}

inline Lanes choose(Words mask, Lanes yes, Lanes no) { return (Lanes)(((Words)yes & mask) | ((Words)no & ~mask)); }

// 2 ** x with a relative error of one rounding; 0 far below zero.
#ifdef ZOO_AVX512
inline Lanes exp2(Lanes x) {
    // x = n + r with n a multiple of 1/16: 2 ** r by a cubic, the sixteenths of n by a table in one register, its whole
    // part by scalef.  Adding `round` leaves n in the low bits of the sum.  Slow decays have n = 0, where the table is
    // exact.
    const __m512 table = _mm512_setr_ps(1.0f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
        1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f, 1.68179283f, 1.75625216f,
        1.83400809f, 1.91520656f);
    const Lanes round = splat(786432.0f);
    Lanes shifted = x + round;
    Lanes n = shifted - round;
    Lanes r = x - n;
    Lanes power = (Lanes)_mm512_permutexvar_ps(_mm512_castps_si512((__m512)shifted), table);
    Lanes rest = ((0.0555021365f * r + 0.240234288f) * r + kLn2) * r;
    return (Lanes)_mm512_scalef_ps((__m512)(power * rest + power), (__m512)n);
}
#else
inline Lanes exp2(Lanes x) {
    x = choose(x < splat(-126.0f), splat(-126.0f), x);
    const Lanes round = splat(12582912.0f);
    Lanes shifted = x + round;
    Lanes r = x - (shifted - round);
    Lanes p = 0.000153533617f * r + 0.00133988749f;
    p = p * r + 0.00961843736f;
    p = p * r + 0.0555033247f;
    p = p * r + 0.240226479f;
    p = p * r + kLn2;
    p = p * r + 1.0f;
    return (Lanes)((Words)p + ((Words)shifted << 23));
}
#endif

inline Lanes magnitude(Lanes x) { return (Lanes)((Words)x & 0x7fffffff); }

// log(1 + e ** x), with the same relative accuracy for small and large results: log1p(e) = 2 atanh(e / (2 + e)).
inline Lanes softplus(Lanes x) {
    Lanes e = exp2(magnitude(x) * -kLog2E);
    Lanes s = e / (2.0f + e);
    Lanes q = s * s;
    Lanes p = (1.0f / 13) * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    p = p * q + 1.0f;
    return choose(x > Lanes{}, x, Lanes{}) + 2.0f * s * p;
}

inline Lanes sigmoid(Lanes x) {
    Lanes e = exp2(magnitude(x) * -kLog2E);
    Lanes r = 1.0f / (1.0f + e);
    return choose(x > Lanes{}, r, e * r);
}

inline float total(Lanes v) {
    float sum = 0;
    for (int i = 0; i < kLanes; i++) sum += v[i];
    return sum;
}

// sums[i] = the sum of the lanes of v[i], for 16 vectors: as many shuffles as one transpose.
inline void totals(const Lanes v[16], float sums[16]) {
#ifdef ZOO_AVX512
    __m512 eight[8], four[4], two[2];
    for (int i = 0; i < 8; i++) {
        __m512 x = (__m512)v[i], y = (__m512)v[i + 8];
        eight[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee));
    }
    for (int i = 0; i < 4; i++) {
        __m512 x = eight[i], y = eight[i + 4];
        four[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
    }
    for (int i = 0; i < 2; i++) {
        __m512 x = four[i], y = four[i + 2];
        two[i] = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
    }
    __m512d x = (__m512d)two[0], y = (__m512d)two[1];
    __m512 one = _mm512_add_ps((__m512)_mm512_unpacklo_pd(x, y), (__m512)_mm512_unpackhi_pd(x, y));
    const __m512i order = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
    _mm512_storeu_ps(sums, _mm512_permutexvar_ps(order, one));
#else
    for (int i = 0; i < 16; i++) sums[i] = total(v[i]);
#endif
}

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Scratch memory, aligned to a cache line and released with the variable; its contents are undefined.
struct Release {
    void operator()(float* memory) const { std::free(memory); }
};
using Scratch = std::unique_ptr<float[], Release>;

inline Scratch scratch(int64_t floats) {
    size_t bytes = (size_t)divide_up(floats * (int64_t)sizeof(float) + 1, 64) * 64;
    return Scratch(static_cast<float*>(std::aligned_alloc(64, bytes)));
}

}  // namespace zoo
