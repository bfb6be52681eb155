// Outputs of a convolution, and its kernel as they are computed from it.

#pragma once

#include <vector>

#include "band.h"

namespace kdjax {

// Where an output's values are in the band, and where it goes to.
struct Place {
  int64_t source, out;
};

// The values of an output: `rows` rows of `length` numbers, and what multiplies them.
struct Reading {
  const float* band;
  int64_t row_step, rows, length;
  const float* weights;  // `[rows, length, 8 V]`
};

// Outputs have `channels` of the `8 V` channels; `add`: to what is there.
struct Writing {
  float* out;
  int64_t channels;
  bool add;
};

// Memory that is needed soon, `floats` for every output: fetched while the units compute.
struct Ahead {
  const float* values = nullptr;
  int64_t floats = 0;
  bool written = false;

  void Fetch(int64_t done, int64_t outputs) const {
    const float *next = values + done * floats, *end = next + outputs * floats;
    for (; next < end; next += 16) {
      if (written) {
        __builtin_prefetch(next, 1, 3);
      } else {
        __builtin_prefetch(next, 0, 2);
      }
    }
  }
};

// Outputs, and the memory that is needed soon: `ahead` goes by while they are computed.
struct Places {
  const Place* places;
  int64_t count;
  Ahead ahead[3];

  Places(const Place* places, int64_t count) : places(places), count(count) {}
  Places(const std::vector<Place>& all) : Places(all.data(), all.size()) {}
};

// The outputs at all `places`.
void AllOutputs(const Reading& from, const Writing& to, const Places& places);

// A kernel `[kh, kw, I, O]` by blocks of filters, of 16 or 8 where no more are left.
std::vector<float> Packed(const float* kernel, int64_t taps, int64_t outs);

}  // namespace kdjax
