// The C ABI of the judge's body, called through ctypes by model/native/judge.py.
#include "judge.h"

using dasnet::judge::Network;

extern "C" {

// Returns null where these are not the weights of such a judge, or without memory.
void *dasnet_judge_create(const float *weights, size_t count, int frames) {
    try {
        return frames > 0 && count == Network::weights(frames) ? new Network(weights, frames) : nullptr;
    } catch (const std::bad_alloc &) {
        return nullptr;
    }
}

// chips (count, frames, 48, 48) -> features (count, 256); returns 0 on success.
int dasnet_judge_run(void *judge, const uint8_t *chips, int count, float *features) {
    try {
        static_cast<Network *>(judge)->run(chips, count, features);
        return 0;
    } catch (const std::bad_alloc &) {
        return 1;
    }
}

void dasnet_judge_destroy(void *judge) { delete static_cast<Network *>(judge); }
}
