// A SIMD vector of floats, as wide as the processor's registers; all other code is written in terms of it.
//
// GCC's vector extensions give the arithmetic (a * b + c becomes a fused multiply-add), so that one source serves
// AVX-512 (16 lanes) and AVX2 (8).  DASNET_LANES overrides the width, so that tests run the 16-lane form without AVX-512.
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

namespace dasnet {

#if defined(DASNET_LANES)
constexpr int LANES = DASNET_LANES;
#elif defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
#error "AVX2 or AVX-512 is needed"
#endif

#define INLINE inline __attribute__((always_inline))
#define DASNET_PRAGMA(text) _Pragma(#text)
#define UNROLL(count) DASNET_PRAGMA(GCC unroll count)  // the loop that follows

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * LANES)));
typedef uint32_t WordVec __attribute__((vector_size(4 * LANES)));
typedef uint16_t HalfVec __attribute__((vector_size(2 * LANES)));

struct bfloat16 {
    uint16_t bits;
};

template <class To, class From> INLINE To bits_of(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

INLINE Vec splat(float value) { return value - Vec{}; }  // a broadcast; `Vec{} + value` would turn -0 into 0

INLINE Vec load(const float *from) {
    Vec value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

INLINE void store(float *to, Vec value) { std::memcpy(to, &value, sizeof(value)); }

INLINE WordVec words(HalfVec halves) {
#if defined(__AVX512F__) && !defined(DASNET_LANES)
    return bits_of<WordVec>(
        _mm512_cvtepu16_epi32(bits_of<__m256i>(halves)));  // one instruction; GCC 12 emits four for the convertvector
#else
    return __builtin_convertvector(halves, WordVec);
#endif
}

INLINE Vec widen(WordVec low_halves) { return bits_of<Vec>(low_halves << 16); }

INLINE Vec load(const bfloat16 *from) {
    HalfVec halves;
    std::memcpy(&halves, from, sizeof(halves));
    return widen(words(halves));
}

INLINE HalfVec rounded(Vec value) {  // round to nearest even; NaN is not preserved and does not occur
#if defined(__AVX512BF16__) && !defined(DASNET_LANES)
    return bits_of<HalfVec>(_mm512_cvtneps_pbh(bits_of<__m512>(value)));
#else
    WordVec word = bits_of<WordVec>(value);
    word += 0x7fff + ((word >> 16) & 1);
    return __builtin_convertvector(word >> 16, HalfVec);
#endif
}

INLINE bfloat16 rounded(float value) {
    const uint32_t word = bits_of<uint32_t>(value);
    return {(uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16)};
}

INLINE void store(bfloat16 *to, Vec value) {
    HalfVec halves = rounded(value);
    std::memcpy(to, &halves, sizeof(halves));
}

// Store 2 * LANES adjacent values; non-temporally if `streams`, for maps larger than the caches: no line is fetched just to be
// overwritten.  `to` is 64-byte aligned.  Call fence() before another thread reads.
INLINE void store_line(bfloat16 *to, Vec low, Vec high, [[maybe_unused]] bool streams) {
#if defined(__AVX512BF16__) && !defined(DASNET_LANES)
    if (streams) {
        const __m512bh both = _mm512_cvtne2ps_pbh(bits_of<__m512>(high), bits_of<__m512>(low));
        return _mm512_stream_si512(reinterpret_cast<__m512i *>(to), bits_of<__m512i>(both));
    }
#endif
    store(to, low);
    store(to + LANES, high);
}

INLINE void store_line(float *to, Vec low, Vec high, [[maybe_unused]] bool streams) {
#if defined(__AVX512F__) && !defined(DASNET_LANES)
    if (streams) {
        _mm512_stream_ps(to, bits_of<__m512>(low));
        return _mm512_stream_ps(to + LANES, bits_of<__m512>(high));
    }
#endif
    store(to, low);
    store(to + LANES, high);
}

INLINE void fence() { _mm_sfence(); }

INLINE Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__) && !defined(DASNET_LANES)
    return bits_of<Vec>(_mm512_max_ps(bits_of<__m512>(a), bits_of<__m512>(b)));
#elif !defined(DASNET_LANES)
    return bits_of<Vec>(_mm256_max_ps(bits_of<__m256>(a), bits_of<__m256>(b)));
#else
    return a > b ? a : b;
#endif
}

INLINE float sum_of(Vec value) {
#if defined(__AVX512F__) && !defined(DASNET_LANES)
    return _mm512_reduce_add_ps(bits_of<__m512>(value));
#endif
    float lanes[LANES], sum = 0;
    store(lanes, value);
    for (int lane = 0; lane < LANES; lane++) sum += lanes[lane];
    return sum;
}

INLINE Vec leaky(Vec x) { return larger(x, x * 0.01f); }  // LeakyReLU with the network's slope

// exp(x) within 2 units in the last place: x = n ln 2 + r, a polynomial for exp(r) (Cephes, expf.c), 2^n by its bits.
INLINE Vec exponential(Vec x) {
    x = larger(x, splat(-87.0f));
    x = -larger(-x, splat(-88.0f));
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    Vec n = (x * 1.44269504f + magic) - magic;
    Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vec p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    IntVec exponent = __builtin_convertvector(n, IntVec);
    return p * bits_of<Vec>((exponent + 127) << 23);
}

INLINE Vec sigmoid(Vec x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace dasnet
