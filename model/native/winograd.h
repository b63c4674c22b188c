// A 3x3 convolution as 36 matrix products: Winograd's F(4x4, 3x3), a quarter of the direct form's multiplications.
//
// Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: y = A^T [(G g G^T) . (B^T d B)] A with
// a 6x6 input tile d, a 3x3 filter g and a 4x4 output tile y.  The matrices follow from six interpolation points
// (Toom-Cook): here 0, +-P, +-Q and infinity with P = 5/8, Q = 3/2 instead of the usual 1 and 2, whose larger powers lose
// more digits: 1.2% instead of 2.5% of relative error in bfloat16 products, and half the error in float32.
#pragma once

#include "vector.h"

namespace dasnet::winograd {

constexpr float P = 0.625f, Q = 1.5f;
constexpr float P2 = P * P, Q2 = Q * Q, P3 = P2 * P, Q3 = Q2 * Q;
constexpr int TILE = 4, PATCH = 6, POINTS = PATCH * PATCH;

// One row of B^T d.  The rows are the polynomials prod (x - point) over all finite points but one.
template <class Numbers> INLINE void input(const Numbers d[PATCH], Numbers out[PATCH]) {
    Numbers even_q = d[4] - d[2] * Q2, odd_q = d[3] - d[1] * Q2;
    Numbers even_p = d[4] - d[2] * P2, odd_p = d[3] - d[1] * P2;
    out[0] = d[0] * (P2 * Q2) + (d[4] - d[2] * (P2 + Q2));
    out[1] = even_q + odd_q * P;
    out[2] = even_q - odd_q * P;
    out[3] = even_p + odd_p * Q;
    out[4] = even_p - odd_p * Q;
    out[5] = d[1] * (P2 * Q2) + (d[5] - d[3] * (P2 + Q2));
}

// B^T itself, for the upsampling that is composed with it.
constexpr double INPUT[PATCH][PATCH] = {
    {P2 * Q2, 0, -(P2 + Q2), 0, 1, 0}, {0, -P * Q2, -Q2, P, 1, 0}, {0, P * Q2, -Q2, -P, 1, 0},
    {0, -Q * P2, -P2, Q, 1, 0},        {0, Q * P2, -P2, -Q, 1, 0}, {0, P2 * Q2, 0, -(P2 + Q2), 0, 1},
};

// One row of G g.
INLINE void filter(Vec g0, Vec g1, Vec g2, Vec out[PATCH]) {
    constexpr float at_p = 1 / (2 * P2 * (P2 - Q2)), at_q = 1 / (2 * Q2 * (Q2 - P2));
    Vec even_p = g0 + g2 * P2, even_q = g0 + g2 * Q2;
    out[0] = g0 * (1 / (P2 * Q2));
    out[1] = (even_p + g1 * P) * at_p;
    out[2] = (even_p - g1 * P) * at_p;
    out[3] = (even_q + g1 * Q) * at_q;
    out[4] = (even_q - g1 * Q) * at_q;
    out[5] = g2;
}

// One row of A^T m.
template <class Numbers> INLINE void output(const Numbers m[PATCH], Numbers out[TILE]) {
    Numbers sum_p = m[1] + m[2], difference_p = m[1] - m[2];
    Numbers sum_q = m[3] + m[4], difference_q = m[3] - m[4];
    out[0] = m[0] + sum_p + sum_q;
    out[1] = difference_p * P + difference_q * Q;
    out[2] = sum_p * P2 + sum_q * Q2;
    out[3] = difference_p * P3 + difference_q * Q3 + m[5];
}

}  // namespace dasnet::winograd
