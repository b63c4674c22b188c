// GEMM micro-kernels: C = A * B on small blocks that stay in cache.  All matrix products go through here.
//
// A: `rows` x K, row by row.  B: K x columns, packed in blocks of NV vectors so that the innermost loop reads it in order.
// C: rows x columns of floats.  Rows are computed ROWS at a time: A and C must be padded accordingly.
#pragma once

#include <vector>

#include "amx.h"
#include "vector.h"

namespace dasnet {

// Rows per register block: accumulators, one row of B and one broadcast value must fit the register file.
constexpr int REGISTERS = LANES == 16 ? 32 : 16;
constexpr int MAX_NV = LANES == 16 ? 4 : 2;
constexpr int rows_per_block(int nv) {
    int rows = (REGISTERS - 2 - nv) / nv;
    return rows > 12 ? 12 : rows;
}

constexpr int vectors_per_block(int columns) {  // columns: a multiple of 16
    int vectors = columns / LANES;
    for (int nv = MAX_NV; nv > 1; nv--)
        if (vectors % nv == 0) return nv;
    return 1;
}

#if defined(DASNET_AMX)
constexpr int ROW_PADDING = TILE_ROWS;  // rows of padding that A and C need
#else
constexpr int ROW_PADDING = 12;
#endif

constexpr int STRIP = 72;  // pixels of a row per product; a multiple of most kernels' row counts

// Index of B's element (k, column) in packed form.
INLINE size_t packed_index(int k, int column, int depth, int columns) {
    int width = vectors_per_block(columns) * LANES;
    return ((size_t)(column / width) * depth + k) * width + column % width;
}

// The same for bfloat16: pairs of consecutive k are adjacent, as the dot-product instruction expects.
INLINE size_t packed_pair_index(int k, int column, int depth, int columns) {
    int width = vectors_per_block(columns) * LANES;
    return ((size_t)(column / width) * (depth / 2) + k / 2) * width * 2 + column % width * 2 + k % 2;
}

template <int ROWS, int NV>
INLINE void multiply_block(const float *a, int stride, const float *b, int depth, float *c, int columns) {
    Vec sum[ROWS][NV];
    UNROLL(16)
    for (int i = 0; i < ROWS; i++) UNROLL(8)
    for (int j = 0; j < NV; j++) sum[i][j] = Vec{};
    for (int k = 0; k < depth; k++, b += NV * LANES) {
        Vec row[NV];
        UNROLL(8)
        for (int j = 0; j < NV; j++) row[j] = load(b + j * LANES);
        UNROLL(16)
        for (int i = 0; i < ROWS; i++) {
            Vec factor = splat(a[(size_t)i * stride + k]);
            UNROLL(8)
            for (int j = 0; j < NV; j++) sum[i][j] += factor * row[j];
        }
    }
    UNROLL(16)
    for (int i = 0; i < ROWS; i++) UNROLL(8)
    for (int j = 0; j < NV; j++) store(c + (size_t)i * columns + j * LANES, sum[i][j]);
}

// sum + a.first * b.first + a.second * b.second in each lane, in float32.
INLINE Vec dot_pairs(Vec sum, uint32_t a, WordVec b) {
#if defined(__AVX512BF16__) && !defined(DASNET_LANES)
    return bits_of<Vec>(
        _mm512_dpbf16_ps(bits_of<__m512>(sum), bits_of<__m512bh>(_mm512_set1_epi32((int)a)), bits_of<__m512bh>(b)));
#else  // emulation of the instruction, for tests on processors without it
    const uint32_t low = a << 16, high = a & 0xffff0000u;
    sum += splat(bits_of<float>(high)) * bits_of<Vec>(b & 0xffff0000u);
    return sum + splat(bits_of<float>(low)) * bits_of<Vec>(b << 16);
#endif
}

template <int ROWS, int NV>
INLINE void multiply_block(const bfloat16 *a, int stride, const bfloat16 *b, int depth, float *c, int columns) {
    Vec sum[ROWS][NV];
    UNROLL(16)
    for (int i = 0; i < ROWS; i++) UNROLL(8)
    for (int j = 0; j < NV; j++) sum[i][j] = Vec{};
    for (int k = 0; k < depth; k += 2, b += NV * LANES * 2) {
        WordVec row[NV];
        UNROLL(8)
        for (int j = 0; j < NV; j++) std::memcpy(&row[j], b + j * LANES * 2, sizeof(WordVec));
        UNROLL(16)
        for (int i = 0; i < ROWS; i++) {
            uint32_t pair;
            std::memcpy(&pair, a + (size_t)i * stride + k, sizeof(pair));
            UNROLL(8)
            for (int j = 0; j < NV; j++) sum[i][j] = dot_pairs(sum[i][j], pair, row[j]);
        }
    }
    UNROLL(16)
    for (int i = 0; i < ROWS; i++) UNROLL(8)
    for (int j = 0; j < NV; j++) store(c + (size_t)i * columns + j * LANES, sum[i][j]);
}

template <int COLUMNS, class Element>
INLINE void multiply(const Element *a, int stride, const Element *b, int depth, float *c, int rows) {
    constexpr int NV = vectors_per_block(COLUMNS), WIDTH = NV * LANES, ROWS = rows_per_block(NV);
    for (int row = 0; row < rows; row += ROWS)
        for (int column = 0; column < COLUMNS; column += WIDTH)
            multiply_block<ROWS, NV>(a + (size_t)row * stride, stride, b + (size_t)column * depth, depth,
                                     c + (size_t)row * COLUMNS + column, COLUMNS);
}

#if defined(DASNET_AMX)
template <int COLUMNS, bool TALL>
INLINE void multiply_strip(const bfloat16 *a, int stride, const bfloat16 *b, int depth, float *c) {
    int column = 0;
    for (; column + 32 <= COLUMNS; column += 32)
        multiply_tiles<TALL, true>(a, stride, b + column * 2, depth, c + column, COLUMNS);
    if (column < COLUMNS) multiply_tiles<TALL, false>(a, stride, b + column * 2, depth, c + column, COLUMNS);
}

// Requires TileRegisters in scope.
template <int COLUMNS> INLINE void multiply(const bfloat16 *a, int stride, const bfloat16 *b, int depth, float *c, int rows) {
    static_assert(vectors_per_block(COLUMNS) * LANES == COLUMNS, "B is one block");
    for (int row = 0; row < rows; row += 2 * TILE_ROWS, a += (size_t)2 * TILE_ROWS * stride, c += 2 * TILE_ROWS * COLUMNS)
        if (rows - row > TILE_ROWS)
            multiply_strip<COLUMNS, true>(a, stride, b, depth, c);
        else
            multiply_strip<COLUMNS, false>(a, stride, b, depth, c);
}
#endif

// A packed matrix B, in float32 and in bfloat16.
struct Matrix {
    std::vector<float> whole;
    std::vector<bfloat16> halves;

    // rows: (outputs, depth); columns beyond `outputs` are 0.
    Matrix() = default;
    Matrix(const std::vector<float> &rows, int outputs, int depth, int columns)
        : whole((size_t)depth * columns, 0.0f), halves((size_t)depth * columns, bfloat16{0}) {
        for (int out = 0; out < outputs; out++)
            for (int k = 0; k < depth; k++) {
                const float value = rows[(size_t)out * depth + k];
                whole[packed_index(k, out, depth, columns)] = value;
                halves[packed_pair_index(k, out, depth, columns)] = rounded(value);
            }
    }

    const float *as(float) const { return whole.data(); }
    const bfloat16 *as(bfloat16) const { return halves.data(); }
};

}  // namespace dasnet
