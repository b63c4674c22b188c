// Matrix products in the processor's tile registers (Intel AMX): 16 rows of 32 bfloat16 times 32 x 16, summed in float32.
//
// Intel, "Architecture Instruction Set Extensions Programming Reference", chapter 3.  B is packed as for the dot product of
// pairs (`packed_pair_index`), the layout that tile instructions expect.
#pragma once

#if defined(__AMX_BF16__) && !defined(DASNET_LANES) && DASNET_CHANNELS != 16  // half of a tile's depth
#define DASNET_AMX

#include <sys/syscall.h>
#include <unistd.h>

#include "vector.h"

namespace dasnet {

constexpr int TILE_ROWS = 16, TILE_DEPTH = 32;

// Request permission to use the tile data registers (8 KB); Linux denies them until a process asks.
inline bool may_use_tiles() {
    constexpr int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

// Configuration of all eight tile registers at full size.
struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
// Static rather than local: GCC 12 assumes that ldtilecfg reads only 8 bytes and drops the other stores.
static const TileShapes TILE_SHAPES;

// Scope guard: tile registers are configured while an object exists.
class TileRegisters {
  public:
    TileRegisters() { _tile_loadconfig(&TILE_SHAPES); }
    ~TileRegisters() { _tile_release(); }
    TileRegisters(const TileRegisters &) = delete;
};

// Multiply 16 or 32 rows (TALL) by 16 or 32 columns (WIDE) of C; with both, each loaded tile is used twice.
template <bool TALL, bool WIDE>
INLINE void multiply_tiles(const bfloat16 *a, int stride, const bfloat16 *b, int depth, float *c, int columns) {
    _tile_zero(0);
    if (WIDE) _tile_zero(1);
    if (TALL) _tile_zero(2);
    if (TALL && WIDE) _tile_zero(3);
    for (int k = 0; k < depth; k += TILE_DEPTH, b += (size_t)TILE_DEPTH * columns) {
        _tile_loadd(6, b, columns * 4);
        _tile_loadd(4, a + k, stride * 2);
        _tile_dpbf16ps(0, 4, 6);
        if (WIDE) {
            _tile_loadd(7, b + 32, columns * 4);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (TALL) {
            _tile_loadd(5, a + (size_t)TILE_ROWS * stride + k, stride * 2);
            _tile_dpbf16ps(2, 5, 6);
            if (WIDE) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, columns * 4);
    if (WIDE) _tile_stored(1, c + 16, columns * 4);
    if (TALL) _tile_stored(2, c + (size_t)TILE_ROWS * columns, columns * 4);
    if (TALL && WIDE) _tile_stored(3, c + (size_t)TILE_ROWS * columns + 16, columns * 4);
}

}  // namespace dasnet

#else

namespace dasnet {

class TileRegisters {};

}  // namespace dasnet

#endif
