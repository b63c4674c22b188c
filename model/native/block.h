// A dynamic convolution block: parameters, kernel attention for one image, transformed filters and GroupNorm.
//
// Chen et al., "Dynamic Convolution: Attention over Convolution Kernels", CVPR 2020; two kernels, temperature 30.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "gemm.h"
#include "map.h"
#include "winograd.h"

namespace dasnet {

constexpr int KERNELS = 2, TAPS = 9;
constexpr float TEMPERATURE = 30, EPSILON = 1e-5f;

struct Block {
    int inputs = 0, hidden = 0;
    std::vector<float> reduce, expand, bias;  // (hidden, inputs), (KERNELS, hidden), (KERNELS)
    const float *kernels = nullptr;           // (KERNELS, inputs, TAPS, CHANNELS): output channels side by side
    std::vector<float> gamma, beta;           // GroupNorm affine parameters, (CHANNELS)
};

// Compute the attention weight of each kernel from the spatial averages of the block's input (softmax).
inline void kernel_attention(const Block &block, const double *averages, float attention[KERNELS]) {
    std::vector<float> hidden(block.hidden);
    for (int j = 0; j < block.hidden; j++) {
        double sum = 0;
        for (int i = 0; i < block.inputs; i++) sum += block.reduce[(size_t)j * block.inputs + i] * averages[i];
        hidden[j] = (float)std::max(sum, 0.0);
    }
    float scores[KERNELS];
    for (int k = 0; k < KERNELS; k++) {
        float sum = block.bias[k];
        for (int j = 0; j < block.hidden; j++) sum += block.expand[(size_t)k * block.hidden + j] * hidden[j];
        scores[k] = sum / TEMPERATURE;
    }
    const float max_score = std::max(scores[0], scores[1]);
    const float first = std::exp(scores[0] - max_score), second = std::exp(scores[1] - max_score);
    attention[0] = first / (first + second);
    attention[1] = second / (first + second);
}

// Aggregate one tap of input channel i over the kernels, for LANES output channels from `column`.
INLINE Vec mixed_tap(const Block &block, const float attention[KERNELS], int i, int tap, int column) {
    const size_t at = ((size_t)i * TAPS + tap) * CHANNELS + column;
    return load(block.kernels + at) * attention[0] +
           load(block.kernels + at + (size_t)block.inputs * TAPS * CHANNELS) * attention[1];
}

// Predict the mean of each output channel: the kernel's sum times the input's mean, exact except at the borders.  Feature
// maps store differences from it and statistics are computed on those differences; otherwise the variance of a nearly
// uniform map would be a small difference of large numbers (catastrophic cancellation).
inline void predict_means(const Block &block, const float attention[KERNELS], const double *averages, float means[CHANNELS]) {
    for (int column = 0; column < CHANNELS; column += LANES) {
        Vec mean{};
        for (int i = 0; i < block.inputs; i++) {
            Vec sum{};
            for (int tap = 0; tap < TAPS; tap++) sum += mixed_tap(block, attention, i, tap, column);
            mean += sum * (float)averages[i];
        }
        store(means + column, mean);
    }
}

// Pack LANES output channels from `column`, at one Winograd point, for input channels i and i + 1.
INLINE void pack(float *of_point, int i, int depth, int column, Vec first, Vec second) {
    store(of_point + packed_index(i, column, depth, CHANNELS), first);
    store(of_point + packed_index(i + 1, column, depth, CHANNELS), second);
}

INLINE void pack(bfloat16 *of_point, int i, int depth, int column, Vec first, Vec second) {
    const WordVec pairs = words(rounded(first)) | words(rounded(second)) << 16;
    std::memcpy(of_point + packed_pair_index(i, column, depth, CHANNELS), &pairs, sizeof(pairs));
}

// Winograd filter transform G g G^T of input channel i.
INLINE void transform_filter(const Block &block, const float attention[KERNELS], int i, int column,
                             Vec out[winograd::PATCH][winograd::PATCH]) {
    using namespace winograd;
    Vec taps[TAPS], rows[3][PATCH];
    for (int tap = 0; tap < TAPS; tap++) taps[tap] = mixed_tap(block, attention, i, tap, column);
    for (int x = 0; x < 3; x++) filter(taps[x], taps[3 + x], taps[6 + x], rows[x]);
    for (int y = 0; y < PATCH; y++) filter(rows[0][y], rows[1][y], rows[2][y], out[y]);
}

// Stride between the filters of consecutive points: padded by one cache line, so that the points of a channel do not
// alias to the same cache sets.
template <class Element> constexpr size_t filters_size(int depth) { return (size_t)depth * CHANNELS + 64 / sizeof(Element); }

// Transform the filters of input channels i and i + 1 (i even); each point's filters form a packed (inputs x CHANNELS) matrix.
template <class Element>
inline void transform_filters(const Block &block, const float attention[KERNELS], int i, Element *filters) {
    using namespace winograd;
    for (int column = 0; column < CHANNELS; column += LANES) {
        Vec first[PATCH][PATCH], second[PATCH][PATCH];
        transform_filter(block, attention, i, column, first);
        transform_filter(block, attention, i + 1, column, second);
        for (int point = 0; point < POINTS; point++)
            pack(filters + point * filters_size<Element>(block.inputs), i, block.inputs, column,
                 first[point / PATCH][point % PATCH], second[point / PATCH][point % PATCH]);
    }
}

// Per-channel sums, one row per parallel-loop index, reduced in index order: results do not depend on the thread count.
class Sums {
  public:
    explicit Sums(int indices, int width = 2 * CHANNELS) : width_(width), parts_((size_t)indices * width, 0.0) {}

    double *of(int index) { return &parts_[(size_t)index * width_]; }

    std::vector<double> total() const {
        std::vector<double> sums(width_, 0.0);
        for (size_t at = 0; at < parts_.size(); at++) sums[at % width_] += parts_[at];
        return sums;
    }

  private:
    int width_;
    std::vector<double> parts_;
};

INLINE void add_lanes(double *to, Vec value, double factor = 1) {
    float lanes[LANES];
    store(lanes, value);
    for (int lane = 0; lane < LANES; lane++) to[lane] += lanes[lane] * factor;
}

// Reduce GroupNorm to one scale and shift per channel (Wu and He, "Group Normalization", ECCV 2018), from the sums of
// differences from `predicted_mean` and of their squares over so many pixels.
template <class Storage> void set_norm(const Block &block, const float *predicted_mean, const std::vector<double> &sums,
                                       double pixels, FeatureMap<Storage> &map) {
    constexpr int size = CHANNELS / GROUPS;
    for (int first = 0; first < CHANNELS; first += size) {
        double mean = 0, variance = 0;
        for (int c = first; c < first + size; c++) mean += (predicted_mean[c] + sums[c] / pixels) / size;
        for (int c = first; c < first + size; c++) {
            const double off = predicted_mean[c] - mean;  // mean of (x - mean)^2 from mean of (x - predicted)^2
            variance += (sums[CHANNELS + c] / pixels + 2 * off * sums[c] / pixels + off * off) / size;
        }
        const double inverse = 1 / std::sqrt(std::max(variance, 0.0) + EPSILON);
        for (int c = first; c < first + size; c++) {
            map.scale[c] = (float)(inverse * block.gamma[c]);
            map.shift[c] = (float)(block.beta[c] + (predicted_mean[c] - mean) * inverse * block.gamma[c]);
        }
    }
}

}  // namespace dasnet
