// An image blurred by a separable kernel of five values, in steps of 1/256 grey level.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "chips.h"
#include "motion.h"

namespace dasnet::motion {

// kernel: its middle value, and those beside it.  The image is reflected at its edges without repeating them.
inline void blur(const chips::Image &image, const float kernel[3], uint16_t *out) {
    const int width = image.width;
    std::vector<float> sums(width + 4);
    float *sum = sums.data() + 2;
    const float middle = kernel[0], near = kernel[1], far = kernel[2];
    for (int y = 0; y < image.height; y++, out += width) {
        const uint8_t *rows[5];
        for (int i = 0; i < 5; i++) rows[i] = image.pixels + (size_t)chips::reflected(y + i - 2, image.height) * width;
        const uint8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3], *e = rows[4];
        for (int x = 0; x < width; x++) sum[x] = (c[x] * middle + (float)(b[x] + d[x]) * near) + (float)(a[x] + e[x]) * far;
        for (int x : {-2, -1, width, width + 1}) sum[x] = sum[chips::reflected(x, width)];
        for (int x = 0; x < width; x++) {
            const float value = (sum[x] * middle + (sum[x - 1] + sum[x + 1]) * near) + (sum[x - 2] + sum[x + 2]) * far;
            out[x] = (uint16_t)(int)(value * (1 / LEVEL) + 0.5f);
        }
    }
}

}  // namespace dasnet::motion
