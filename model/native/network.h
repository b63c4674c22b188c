// DAS-Net: which stage follows which, and the memory between them, for one size of picture at a time.
#pragma once

#include <memory>

#include "gate.h"
#include "output.h"

namespace dasnet {

struct Weights {
    Buffer<float> kernels;  // of all blocks, in huge pages: with small ones a frame took 15% longer in some processes
    std::vector<Block> encoder, decoder;  // levels + 1, levels
    std::vector<AttentionGate> gates;              // levels
    Output output;
    int levels() const { return (int)decoder.size(); }
};

constexpr int MAX_MULTIPLE = 32;  // sides are multiples of 2^levels, or of this if it is less

class Network {
  public:
    virtual ~Network() = default;
    virtual void resize(int height, int width) = 0;  // memory is kept for smaller pictures: cameras differ, and take turns
    virtual void run(const float *image, float *logits) = 0;
};

// Storage is what maps are kept in.  With bfloat16 the products are too, but not on smaller maps: they cost little, and the
// masks of small targets depend on them.
template <class Storage> class StoredNetwork : public Network {
  public:
    StoredNetwork(const Weights &weights, ThreadPool &pool)
        : weights_(weights), pool_(pool), encoded_(weights.levels() + 1), pooled_(weights.levels() + 1),
          decoded_(weights.levels()), rows_(weights.levels()), columns_(weights.levels()), scratch_(pool.size()) {
        filters_.reserve(winograd::POINTS * filters_size<float>(2 * CHANNELS));
        for (Scratch &scratch : scratch_) {
            scratch.tiles.reserve(TILES_SIZE);
            scratch.products.reserve(PRODUCTS_SIZE);
        }
    }

    void resize(int height, int width) override {
        const int levels = weights_.levels();
        for (int level = 0, h = height, w = width; level <= levels; level++, h = halved(h), w = halved(w)) {
            encoded_[level].resize(h, w);
            if (level) pooled_[level].resize(h, w);
        }
        for (int stage = 0; stage < levels; stage++) {
            const FeatureMap<Storage> &low = encoded_[levels - stage], &skip = encoded_[levels - stage - 1];
            decoded_[stage].resize(skip.height, skip.width);
            rows_[stage] = UpsampleAxis(low.height, skip.height);
            columns_[stage] = UpsampleAxis(low.width, skip.width);
        }
        gating_signal_.reserve(((size_t)(height / 2) + 1) * (width / 2) * HIDDEN + HIDDEN);
        gate_map_.reserve((size_t)height * width);
        for (Scratch &scratch : scratch_) scratch.line.reserve((size_t)HIDDEN * (width / 2 + 1));
    }

    void run(const float *image, float *logits) override {
        const int levels = weights_.levels();
        convolve_image(pool_, weights_.encoder[0], image, filters_.data(), to_encode(0));
        for (int level = 1; level <= levels; level++) {
            const auto averages = normalise_half(pool_, encoded_[level - 1], pooled_[level]);
            dynamic(weights_.encoder[level], averages.data(), PlainInput<Storage>{pooled_[level]}, to_encode(level));
        }
        for (int stage = 0; stage < levels; stage++) decode(stage);
        output(logits);
    }

  private:
    static constexpr int LEAST_HEIGHT_IN_BF16 = 128;

    void decode(int stage) {
        const int levels = weights_.levels();
        const FeatureMap<Storage> &low = stage ? decoded_[stage - 1] : encoded_[levels], &skip = encoded_[levels - 1 - stage];
        const UpsampleAxis &rows = rows_[stage], &columns = columns_[stage];
        const AttentionGate &gate = weights_.gates[stage];
        auto averages = in_products_for(low, [&](auto element) {
            return compute_gating_signal<decltype(element)>(pool_, scratch_, gate, low, rows, columns, gating_signal_.data());
        });
        const auto gated = in_products_for(skip, [&](auto element) {
            return compute_gate_map<decltype(element)>(pool_, scratch_, gate, skip, gating_signal_.data(), rows, columns, gate_map_.data());
        });
        averages.insert(averages.end(), gated.begin(), gated.end());
        dynamic(weights_.decoder[stage], averages.data(),
                DecoderInput<Storage>{low, skip, gate_map_.data(), rows, columns}, Target<Storage>{decoded_[stage]});
    }

    Target<Storage> to_encode(int level) {
        return {encoded_[level], level < weights_.levels() ? &pooled_[level + 1] : nullptr};
    }

    template <class Input>
    void dynamic(const Block &block, const double *averages, const Input &input, const Target<Storage> &target) {
        float attention[KERNELS], predicted_mean[CHANNELS];
        kernel_attention(block, averages, attention);
        predict_means(block, attention, averages, predicted_mean);
        in_products_for(target.map, [&](auto element) { dynamic_in<decltype(element)>(block, attention, predicted_mean, input, target); });
    }

    // work with an Element, to be taken for the products of a map.
    template <class Work> auto in_products_for(const FeatureMap<Storage> &map, Work work) {
        return map.height >= LEAST_HEIGHT_IN_BF16 ? work(Storage{}) : work(float{});
    }

    template <class Element, class Input>
    void dynamic_in(const Block &block, const float *attention, const float *predicted_mean, const Input &input,
                    const Target<Storage> &target) {
        Element *filters = reinterpret_cast<Element *>(filters_.data());
        pool_.run(block.inputs / 2, [&](int pair, int) { transform_filters(block, attention, 2 * pair, filters); });
        convolve<Element>(pool_, scratch_, block, filters, predicted_mean, input, target);
    }

    void output(float *logits) {
        weights_.output.columns() == 16 ? output_in<16>(logits) : output_in<32>(logits);
    }

    template <int COLUMNS> void output_in(float *logits) {
        const FeatureMap<Storage> &map = decoded_.back();
        in_products_for(map, [&](auto element) {
            output_convolution<COLUMNS, decltype(element)>(pool_, scratch_, weights_.output, map, logits);
        });
    }

    const Weights &weights_;
    ThreadPool &pool_;
    std::vector<FeatureMap<Storage>> encoded_, pooled_, decoded_;
    std::vector<UpsampleAxis> rows_, columns_;  // of each decoder stage's upsampling
    Buffer<float> gating_signal_, gate_map_, filters_;
    std::vector<Scratch> scratch_;
};

}  // namespace dasnet
