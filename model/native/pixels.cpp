// The C ABI of work on images beside the networks, called through ctypes by model/native/pixels.py.
#include <new>

#include "blur.h"
#include "chips.h"
#include "motion.h"
#include "peaks.h"
#include "registration.h"

using namespace dasnet::motion;
namespace chips = dasnet::chips;
namespace registration = dasnet::registration;

extern "C" {

// See `differences`; returns 0 on success.
int dasnet_motion_differences(const uint16_t *newest, const Past *past, const Pixels *overlay, int sampled_px,
                              const Level *whole, const Level *reduced) {
    try {
        differences(newest, past, *overlay, sampled_px, *whole, *reduced);
        return 0;
    } catch (const std::bad_alloc &) {
        return 1;
    }
}

// See `blur`; returns 0 on success.
int dasnet_blur(const chips::Image *image, const float *kernel, uint16_t *out) {
    try {
        blur(*image, kernel, out);
        return 0;
    } catch (const std::bad_alloc &) {
        return 1;
    }
}

// Turn the level's image into scores, given its cells' noise, and write the best peaks; returns how many, -1 on failure.
int dasnet_motion_peaks(const Level *level, float min_score, int reach, int most, Peak *peaks) {
    try {
        return Peaks(*level, min_score).best(reach, most, peaks);
    } catch (const std::bad_alloc &) {
        return -1;
    }
}

// Write the crops (places, images, side, side) of all images at each place: `origins` (places, images, 2), x and y of the
// first pixel.  Returns 0 on success.
int dasnet_cut(const chips::Image *images, int count, const double *origins, int places, int side, uint8_t *out) {
    try {
        for (int i = 0; i < places * count; i++)
            chips::cut(images[i % count], origins[2 * i], origins[2 * i + 1], side, out + (size_t)i * side * side);
        return 0;
    } catch (const std::bad_alloc &) {
        return 1;
    }
}

// Write the median difference where two images overlap; returns 0 on success.
int dasnet_residual(const float *reference, const float *image, int height, int width, int x, int y, double *residual) {
    try {
        *residual = registration::residual({reference, height, width}, {image, height, width}, x, y);
        return 0;
    } catch (const std::bad_alloc &) {
        return 1;
    }
}

// See `refine`; position: x and y, which it changes.  Returns 0 on success.
int dasnet_refine(const float *reference, const float *image, int height, int width, const registration::Fit *fit,
                  double *position) {
    try {
        registration::refine({reference, height, width}, {image, height, width}, *fit, position[0], position[1]);
        return 0;
    } catch (const std::bad_alloc &) {
        return 1;
    }
}
}
