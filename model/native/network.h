// The DAS-Net forward pass: the order of stages and the memory between them, for one image size at a time.
#pragma once

#include <functional>
#include <memory>

#include "gate.h"
#include "sparse.h"

namespace dasnet {

struct Weights {
    Buffer<float> kernels;                // of all blocks, in huge pages: with small pages a frame took up to 15% longer
    std::vector<Block> encoder, decoder;  // levels + 1, levels
    std::vector<AttentionGate> gates;     // levels
    Output output;
    Head head;  // after the last decoder stage but one
    int levels() const { return (int)decoder.size(); }
};

constexpr float EVERYWHERE = -INFINITY;
constexpr int MAX_MULTIPLE = 32;  // sides are multiples of 2^levels, or of this if it is less

// The end of a stage, for the per-stage benchmark: its index in the order in which run() executes them.
using StageEnd = std::function<void(int)>;

class Network {
  public:
    virtual ~Network() = default;
    virtual void resize(int height, int width) = 0;  // memory is kept when shrinking: cameras of different sizes alternate
    // `limit`: where no logit of the head exceeds it, its logits are the output (see sparse.h).
    virtual void run(const float *image, float *logits, float limit = EVERYWHERE, const StageEnd &stage_end = {}) = 0;
};

// Storage is the type of stored feature maps and, with bfloat16, of matrix products on large maps.  Small maps are always
// multiplied in float32: they are cheap, and the masks of small targets depend on them.
template <class Storage> class StoredNetwork : public Network {
  public:
    StoredNetwork(const Weights &weights, ThreadPool &pool)
        : weights_(weights), pool_(pool), encoded_(weights.levels() + 1), pooled_(weights.levels() + 1),
          decoded_(weights.levels()), rows_(weights.levels()), columns_(weights.levels()), scratch_(pool.size()) {
        filters_.reserve(winograd::POINTS * filters_size<float>(2 * CHANNELS));
        for (Scratch &scratch : scratch_) {
            scratch.tiles.reserve(TILES_SIZE);
            scratch.products.reserve(std::max(PRODUCTS_SIZE, OUTPUT_PRODUCTS_SIZE));
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
        gating_signal_.reserve((((size_t)(height / 2) + 1) * (width / 2) + 1) * HIDDEN);
        gate_map_.reserve((size_t)height * width);
        for (Scratch &scratch : scratch_) scratch.line.reserve((size_t)HIDDEN * (width / 2 + 1));
    }

    // Stages: encoder 0 to levels, then the attention gate and the convolution of each decoder stage, then the output.
    void run(const float *image, float *logits, float limit, const StageEnd &stage_end) override {
        const int levels = weights_.levels();
        int stage_index = 0;
        auto end_stage = [&] {
            if (stage_end) stage_end(stage_index++);
        };
        convolve_image(pool_, weights_.encoder[0], image, filters_.data(), to_encode(0));
        end_stage();
        for (int level = 1; level <= levels; level++) {
            const auto averages = normalise_half(pool_, encoded_[level - 1], pooled_[level]);
            dynamic(weights_.encoder[level], averages.data(), PlainInput<Storage>{pooled_[level]}, to_encode(level));
            end_stage();
        }
        for (int stage = 0; stage < levels; stage++) {
            const bool is_sparse = stage == levels - 1 && limit > EVERYWHERE;
            if (is_sparse) find_active(limit);
            if (!is_sparse || active_.any()) {
                const auto averages = compute_gate(stage);
                end_stage();
                decode(stage, averages.data(), is_sparse && active_.pays());
                end_stage();
            }
        }
        output(logits, limit > EVERYWHERE);
        end_stage();
    }

  private:
    static constexpr int LEAST_HEIGHT_IN_BF16 = 128;

    const FeatureMap<Storage> &low_of(int stage) const { return stage ? decoded_[stage - 1] : encoded_[weights_.levels()]; }
    const FeatureMap<Storage> &skip_of(int stage) const { return encoded_[weights_.levels() - 1 - stage]; }

    // Compute the gating signal and the gate map of a decoder stage; return the averages of its convolution's input.
    std::vector<double> compute_gate(int stage) {
        const FeatureMap<Storage> &low = low_of(stage), &skip = skip_of(stage);
        const UpsampleAxis &rows = rows_[stage], &columns = columns_[stage];
        const AttentionGate &gate = weights_.gates[stage];
        auto averages = in_products_for(low, [&](auto element) {
            return compute_gating_signal<decltype(element)>(pool_, scratch_, gate, low, rows, columns, gating_signal_.data());
        });
        const auto gated = in_products_for(skip, [&](auto element) {
            return compute_gate_map<decltype(element)>(pool_, scratch_, gate, skip, gating_signal_.data(), rows, columns,
                                                       gate_map_.data());
        });
        averages.insert(averages.end(), gated.begin(), gated.end());
        return averages;
    }

    void find_active(float limit) {
        const FeatureMap<Storage> &low = low_of(weights_.levels() - 1), &map = decoded_.back();
        in_products_for(low,
                        [&](auto element) { head_logits<decltype(element)>(pool_, scratch_, weights_.head, low, coarse_); });
        active_ = ActiveCells(coarse_, map.height, map.width, limit);
    }

    void decode(int stage, const double *averages, bool is_sparse) {
        const DecoderInput<Storage> input{low_of(stage), skip_of(stage), gate_map_.data(), rows_[stage], columns_[stage]};
        dynamic(weights_.decoder[stage], averages, input, Target<Storage>{decoded_[stage]}, is_sparse);
    }

    Target<Storage> to_encode(int level) {
        return {encoded_[level], level < weights_.levels() ? &pooled_[level + 1] : nullptr};
    }

    template <class Input>
    void dynamic(const Block &block, const double *averages, const Input &input, const Target<Storage> &target,
                 bool is_sparse = false) {
        float attention[KERNELS], predicted_mean[CHANNELS];
        kernel_attention(block, averages, attention);
        predict_means(block, attention, averages, predicted_mean);
        in_products_for(target.map, [&](auto element) {
            dynamic_in<decltype(element)>(block, attention, predicted_mean, input, target, is_sparse);
        });
    }

    // Call `work` with a value of the element type for the products of a map.
    template <class Work> auto in_products_for(const FeatureMap<Storage> &map, Work work) {
        return map.height >= LEAST_HEIGHT_IN_BF16 ? work(Storage{}) : work(float{});
    }

    template <class Element, class Input> void dynamic_in(const Block &block, const float *attention,
                                                          const float *predicted_mean, const Input &input,
                                                          const Target<Storage> &target, bool is_sparse) {
        Element *filters = reinterpret_cast<Element *>(filters_.data());
        pool_.run(block.inputs / 2, [&](int pair, int) { transform_filters(block, attention, 2 * pair, filters); });
        if (is_sparse)
            convolve_some<Element>(pool_, scratch_, block, filters, predicted_mean, input, target, active_.tiles(),
                                   active_.sample());
        else
            convolve<Element>(pool_, scratch_, block, filters, predicted_mean, input, target);
    }

    void output(float *logits, bool is_sparse) {
        const FeatureMap<Storage> &map = decoded_.back();
        if (is_sparse) fill_output(pool_, coarse_, map.width, logits);
        const bool is_narrow = weights_.output.columns() == 16;
        auto whole = [&](int, auto work) { work(0, map.width); };
        auto active = [&](int y, auto work) { active_.runs(y, work); };
        if (is_sparse)
            is_narrow ? output_in<16>(logits, active) : output_in<32>(logits, active);
        else
            is_narrow ? output_in<16>(logits, whole) : output_in<32>(logits, whole);
    }

    template <int COLUMNS, class Runs> void output_in(float *logits, Runs runs) {
        const FeatureMap<Storage> &map = decoded_.back();
        in_products_for(map, [&](auto element) {
            output_convolution<COLUMNS, decltype(element)>(pool_, scratch_, weights_.output, map, logits, runs);
        });
    }

    const Weights &weights_;
    ThreadPool &pool_;
    std::vector<FeatureMap<Storage>> encoded_, pooled_, decoded_;
    std::vector<UpsampleAxis> rows_, columns_;  // upsampling weights per decoder stage
    Buffer<float> gating_signal_, gate_map_, filters_;
    std::vector<Scratch> scratch_;
    Coarse coarse_;
    ActiveCells active_;
};

}  // namespace dasnet
