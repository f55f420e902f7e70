#include "kernels/amx/tile_state.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

namespace sprun::kernels::amx {
namespace {

TileFault check_config(const TileConfig& c) {
  if (c.palette != 1) return TileFault::kBadPalette;
  if (c.start_row != 0) return TileFault::kReservedNotZero;
  for (const uint8_t byte : c.reserved) {
    if (byte != 0) return TileFault::kReservedNotZero;
  }
  for (int t = 0; t < kTiles; ++t) {
    if (c.row_bytes[kTiles + t] != 0 || c.rows[kTiles + t] != 0) return TileFault::kReservedNotZero;
    if (c.rows[t] > kMaxTileRows) return TileFault::kTooManyRows;
    if (c.row_bytes[t] > kMaxTileBytes) return TileFault::kRowTooLong;
    if ((c.rows[t] == 0) != (c.row_bytes[t] == 0)) return TileFault::kHalfEmpty;
  }
  return TileFault::kNone;
}

TileFault check_tile(const TileState& state, int tile) {
  if (!state.configured()) return TileFault::kNotConfigured;
  if (tile < 0 || tile >= kTiles || state.config.rows[tile] == 0) return TileFault::kTileAbsent;
  if (state.config.row_bytes[tile] % 4 != 0) return TileFault::kNotDwords;
  return TileFault::kNone;
}

TileFault check_dot(const TileState& state, int c, int a, int b) {
  if (c == a || c == b || a == b) return TileFault::kSameTile;
  for (const int tile : {c, a, b}) {
    const TileFault fault = check_tile(state, tile);
    if (fault != TileFault::kNone) return fault;
  }
  const TileConfig& config = state.config;
  const bool agree = config.rows[c] == config.rows[a] &&
                     config.row_bytes[c] == config.row_bytes[b] &&
                     config.row_bytes[a] / 4 == config.rows[b];
  return agree ? TileFault::kNone : TileFault::kShapesDisagree;
}

template <class T>
T element(const uint8_t* row, int index) {
  T value;
  std::memcpy(&value, row + index * static_cast<int>(sizeof(T)), sizeof(T));
  return value;
}

template <class T>
void set_element(uint8_t* row, int index, T value) {
  std::memcpy(row + index * static_cast<int>(sizeof(T)), &value, sizeof(T));
}

template <class A, class B>
void dot_bytes(TileState& state, int c, int a, int b) {
  const int columns = state.config.row_bytes[c] / 4;
  const int quads = state.config.row_bytes[a] / 4;
  for (int m = 0; m < state.config.rows[c]; ++m) {
    for (int n = 0; n < columns; ++n) {
      uint32_t sum = element<uint32_t>(state.data[c][m], n);
      for (int k = 0; k < 4 * quads; ++k) {
        const int x = element<A>(state.data[a][m], k);
        const int y = element<B>(state.data[b][k / 4], 4 * n + k % 4);
        sum += static_cast<uint32_t>(x * y);
      }
      set_element(state.data[c][m], n, sum);
    }
  }
}

constexpr double kMinNormal = static_cast<double>(std::numeric_limits<float>::min());

// A float from memory; a denormal counts as 0.
float flushed(float x) { return std::fabs(static_cast<double>(x)) < kMinNormal ? x * 0.0F : x; }

float bf16_element(const uint8_t* row, int index) {
  const uint32_t bits = static_cast<uint32_t>(element<uint16_t>(row, index)) << 16;
  return flushed(__builtin_bit_cast(float, bits));
}

// The exact value x to float, one rounding, then 0 instead of a denormal. x is a sum of two numbers
// of at most 24 bits: rounding it to 53 bits first changes nothing (53 >= 2 * 24 + 2).
float rounded(double x) {
  // Half a step below the smallest normal number still rounds up to it.
  constexpr double kHalfStep = kMinNormal / (1 << 25);
  if (std::fabs(x) < kMinNormal - kHalfStep) return std::copysign(0.0F, static_cast<float>(x));
  return static_cast<float>(x);
}

float fma_flushed(float x, float y, float z) {
  return rounded(static_cast<double>(x) * static_cast<double>(y) + static_cast<double>(z));
}

float add_flushed(float x, float y) {
  return rounded(static_cast<double>(x) + static_cast<double>(y));
}

void dot_bf16(TileState& state, int c, int a, int b) {
  const int columns = state.config.row_bytes[c] / 4;
  const int pairs = state.config.row_bytes[a] / 4;
  for (int m = 0; m < state.config.rows[c]; ++m) {
    for (int n = 0; n < columns; ++n) {
      float even = 0.0F;
      float odd = 0.0F;
      for (int k = 0; k < pairs; ++k) {
        const uint8_t* x = state.data[a][m];
        const uint8_t* y = state.data[b][k];
        even = fma_flushed(bf16_element(x, 2 * k), bf16_element(y, 2 * n), even);
        odd = fma_flushed(bf16_element(x, 2 * k + 1), bf16_element(y, 2 * n + 1), odd);
      }
      const float old = flushed(element<float>(state.data[c][m], n));
      set_element(state.data[c][m], n, add_flushed(old, add_flushed(even, odd)));
    }
  }
}

}  // namespace

const char* tile_fault_text(TileFault fault) {
  switch (fault) {
    case TileFault::kNone:
      return "no fault";
    case TileFault::kBadPalette:
      return "unknown palette";
    case TileFault::kReservedNotZero:
      return "reserved bytes of the configuration are not 0";
    case TileFault::kTooManyRows:
      return "more than 16 rows";
    case TileFault::kRowTooLong:
      return "rows of more than 64 bytes";
    case TileFault::kHalfEmpty:
      return "rows without bytes, or bytes without rows";
    case TileFault::kNotConfigured:
      return "tiles are not configured";
    case TileFault::kTileAbsent:
      return "the configuration does not have this tile";
    case TileFault::kNotDwords:
      return "row bytes are no multiple of 4";
    case TileFault::kSameTile:
      return "operands are not three different tiles";
    case TileFault::kShapesDisagree:
      return "shapes disagree";
  }
  return "unknown fault";
}

TileFault tile_load_config(TileState& state, const void* from) {
  TileConfig config;
  std::memcpy(&config, from, sizeof(config));
  if (config.palette == 0) {
    tile_release(state);
    return TileFault::kNone;
  }
  const TileFault fault = check_config(config);
  if (fault != TileFault::kNone) return fault;
  state.config = config;
  std::memset(state.data, 0, sizeof(state.data));
  return TileFault::kNone;
}

void tile_store_config(const TileState& state, void* to) {
  if (state.configured()) {
    std::memcpy(to, &state.config, sizeof(state.config));
  } else {
    std::memset(to, 0, sizeof(state.config));
  }
}

void tile_release(TileState& state) {
  state.config = TileConfig{};
  state.config.palette = 0;
  std::memset(state.data, 0, sizeof(state.data));
}

TileFault tile_zero(TileState& state, int tile) {
  const TileFault fault = check_tile(state, tile);
  if (fault == TileFault::kNone) std::memset(state.data[tile], 0, sizeof(state.data[tile]));
  return fault;
}

TileFault tile_load(TileState& state, int tile, const void* from, int64_t stride) {
  const TileFault fault = check_tile(state, tile);
  if (fault != TileFault::kNone) return fault;
  std::memset(state.data[tile], 0, sizeof(state.data[tile]));
  const char* row = static_cast<const char*>(from);
  for (int r = 0; r < state.config.rows[tile]; ++r) {
    std::memcpy(state.data[tile][r], row + r * stride, state.config.row_bytes[tile]);
  }
  return TileFault::kNone;
}

TileFault tile_store(const TileState& state, int tile, void* to, int64_t stride) {
  const TileFault fault = check_tile(state, tile);
  if (fault != TileFault::kNone) return fault;
  char* row = static_cast<char*>(to);
  for (int r = 0; r < state.config.rows[tile]; ++r) {
    std::memcpy(row + r * stride, state.data[tile][r], state.config.row_bytes[tile]);
  }
  return TileFault::kNone;
}

TileFault tile_dot(TileState& state, TileDot dot, int c, int a, int b) {
  const TileFault fault = check_dot(state, c, a, b);
  if (fault != TileFault::kNone) return fault;
  switch (dot) {
    case TileDot::kS8S8:
      dot_bytes<int8_t, int8_t>(state, c, a, b);
      break;
    case TileDot::kS8U8:
      dot_bytes<int8_t, uint8_t>(state, c, a, b);
      break;
    case TileDot::kU8S8:
      dot_bytes<uint8_t, int8_t>(state, c, a, b);
      break;
    case TileDot::kU8U8:
      dot_bytes<uint8_t, uint8_t>(state, c, a, b);
      break;
    case TileDot::kBf16:
      dot_bf16(state, c, a, b);
      break;
  }
  return TileFault::kNone;
}

}  // namespace sprun::kernels::amx
