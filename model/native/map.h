// Feature maps and the memory that they live in.
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

constexpr int CHANNELS = 64, GROUPS = 8, HIDDEN = 32;  // of every map, of every norm, of a gate's inner maps
constexpr int PARTS = CHANNELS / LANES;  // vectors of a pixel

// Aligned memory that only grows; new memory is zeroed.  Large blocks ask for huge pages, without which page faults and TLB
// misses show; so do those of a thread's scratch memory, whose 36 matrices lie far apart.
template <class T> class Buffer {
  public:
    void reserve(size_t count) {
        if (count <= count_) return;
        constexpr size_t huge = 2u << 20, large = huge / 8;
        size_t bytes = count * sizeof(T), step = bytes >= large ? huge : 64;
        bytes = (bytes + step - 1) / step * step;
        memory_.reset();  // before the next: both at once may be too much
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

// The side of a pooled map: of an odd one, what remains at the end counts too.
constexpr int halved(int side) { return (side + 1) / 2; }

// A convolution's output, height x width x 64, as how much it differs from what is expected of a channel, and the norm that
// whoever reads it applies: leaky(value * scale + shift), a channel each.  A normalised map is never written.
//
// Of what differs, since bfloat16 has eight bits: in a picture of little contrast, the bright sky or a night, they would all
// be taken by what is the same everywhere.
//
// A row has one pixel more than the width: rows of a power of two in bytes would fall into the same sets of the caches.
template <class Storage> struct FeatureMap {
    int height = 0, width = 0;
    Buffer<Storage> memory;
    alignas(64) float scale[CHANNELS] = {}, shift[CHANNELS] = {};

    // The composed upsampling always reads 4x4 pixels: on smaller maps past the edge, with weight 0, where there may be
    // anything but infinities.
    void resize(int h, int w) {
        height = h;
        width = w;
        memory.reserve((size_t)CHANNELS * ((h < 4 ? 4 : h) * (size_t)(w + 1) + 4));
    }

    size_t stride() const { return (size_t)(width + 1) * CHANNELS; }
    bool outgrows_caches() const { return (size_t)height * width >= 1u << 16; }
    Storage *at(int y, int x) const { return memory.data() + y * stride() + (size_t)x * CHANNELS; }
};

// A map's norm, kept in the registers for pixel after pixel.
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

// Asks for a pixel before it is needed; any address will do.
template <class Storage> inline void prefetch(const Storage *pixel) {
    for (int at = 0; at < CHANNELS; at += 64 / sizeof(Storage)) __builtin_prefetch(pixel + at, 0, 2);
}

}  // namespace dasnet
