// Feature maps and their memory.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "vector.h"

namespace dasnet {

#if !defined(DASNET_CHANNELS)
#define DASNET_CHANNELS 64
#endif
constexpr int CHANNELS = DASNET_CHANNELS, GROUPS = 8;      // per feature map, per GroupNorm
constexpr int HIDDEN = CHANNELS < 32 ? 16 : CHANNELS / 2;  // in an attention gate; of 16 channels, 8 are padding
constexpr int PARTS = CHANNELS / LANES;                    // vectors per pixel

// Aligned, zero-initialised memory that only grows.  Large blocks request huge pages to reduce page faults and TLB misses,
// thread scratch included: its 36 matrices lie far apart.
template <class T> class Buffer {
  public:
    void reserve(size_t count) {
        if (count <= count_) return;
        constexpr size_t huge = 2u << 20, large = huge / 8;
        size_t bytes = count * sizeof(T), step = bytes >= large ? huge : 64;
        bytes = (bytes + step - 1) / step * step;
        memory_.reset();  // free first: both at once may not fit
        count_ = 0;
        void *memory = std::aligned_alloc(step, bytes);
        if (!memory) throw std::bad_alloc();
#if defined(__linux__)
        if (step == huge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
        std::memset(memory, 0, bytes);
        memory_.reset(static_cast<T *>(memory));
        count_ = count;
    }
    T *data() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(T *memory) const { std::free(memory); }
    };
    std::unique_ptr<T, Free> memory_;
    size_t count_ = 0;
};

// Side of a pooled map, rounded up.
constexpr int halved(int side) { return (side + 1) / 2; }

// A convolution's output, height x width x CHANNELS, stored as the difference from each channel's predicted mean, together with
// the normalisation that the reader applies: leaky(value * scale + shift) per channel.  Normalised maps are never written.
//
// Differences rather than values, because bfloat16 has eight bits of precision: in low-contrast images (bright sky, night)
// the constant part would use them up.
//
// Rows are padded by one pixel: row strides that are powers of two would alias to the same cache sets.
template <class Storage> struct FeatureMap {
    int height = 0, width = 0;
    Buffer<Storage> memory;
    alignas(64) float scale[CHANNELS] = {}, shift[CHANNELS] = {};

    // The composed upsampling always reads 4x4 pixels: on smaller maps it reads past the edge with weight 0, so that
    // memory must hold finite values.
    void resize(int h, int w) {
        height = h;
        width = w;
        memory.reserve((size_t)CHANNELS * ((h < 4 ? 4 : h) * (size_t)(w + 1) + 4));
    }

    size_t stride() const { return (size_t)(width + 1) * CHANNELS; }
    bool outgrows_caches() const { return (size_t)height * width >= 1u << 16; }
    Storage *at(int y, int x) const { return memory.data() + y * stride() + (size_t)x * CHANNELS; }
};

// A map's normalisation, held in registers across pixels.
struct Norm {
    Vec scale[PARTS], shift[PARTS];

    template <class Storage> INLINE explicit Norm(const FeatureMap<Storage> &map) {
        UNROLL(8)
        for (int part = 0; part < PARTS; part++) {
            scale[part] = load(map.scale + part * LANES);
            shift[part] = load(map.shift + part * LANES);
        }
    }

    template <class Storage> INLINE Vec of(const Storage *pixel, int part) const {
        return leaky(load(pixel + part * LANES) * scale[part] + shift[part]);
    }
};

// Prefetch a pixel into cache; the address need not be valid.
template <class Storage> inline void prefetch(const Storage *pixel) {
    for (int at = 0; at < CHANNELS; at += 64 / sizeof(Storage)) __builtin_prefetch(pixel + at, 0, 2);
}

}  // namespace dasnet
