/* Owns the machine's ceiling: reads and writes the same bytes as a step, through the same streams, and does no more. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BLOCK 256 /* elements; a stream has `width` bytes for each of them, or for each block of them */

typedef struct stream {
  unsigned char *data;
  int64_t width;     /* bytes of an element, or of a block if per_block */
  int32_t per_block; /* one scale a block */
  int32_t written;   /* read and written back, or only read */
} stream;

/* The key is 0 at run time, which the compiler does not know: every byte is written, and keeps its value. */
static uint64_t touch(const stream *s, int64_t first, int64_t elements, uint64_t key) {
  unsigned char *data = s->data + (s->per_block ? first / BLOCK * s->width : first * s->width);
  size_t bytes = (size_t)(s->per_block ? s->width : elements * s->width), words = bytes / 8, i;
  uint64_t sum = 0, word;
  if (s->written) {
    for (i = 0; i < words; ++i) {
      memcpy(&word, data + 8 * i, 8);
      word ^= key;
      memcpy(data + 8 * i, &word, 8);
    }
    for (i = 8 * words; i < bytes; ++i) data[i] ^= (unsigned char)key;
  } else {
    for (i = 0; i < words; ++i) {
      memcpy(&word, data + 8 * i, 8);
      sum ^= word;
    }
    for (i = 8 * words; i < bytes; ++i) sum ^= data[i];
  }
  return sum;
}

/* streams: streams_per_row of each row. first_block[row]: the blocks of the rows before it; first_block[rows]: of all.
 * Blocks are split evenly over the threads, as adamw_step() does. Returns a sum, so that nothing is optimized away. */
uint64_t ceiling_run(const stream *streams, const int64_t *elements, const int64_t *first_block, int64_t rows,
                     int64_t streams_per_row, int32_t threads, uint64_t key) {
  uint64_t total = 0;
  int32_t thread;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(^ : total)
  for (thread = 0; thread < threads; ++thread) {
    int64_t block = first_block[rows] * thread / threads, end = first_block[rows] * (thread + 1) / threads;
    int64_t low = 0, high = rows, row, k;
    while (high - low > 1) { /* the row that has this block: rows without blocks are passed over */
      int64_t middle = (low + high) / 2;
      if (first_block[middle] <= block) {
        low = middle;
      } else {
        high = middle;
      }
    }
    for (row = low; block < end; ++row) {
      for (; block < end && block < first_block[row + 1]; ++block) {
        int64_t first = (block - first_block[row]) * BLOCK, count = elements[row] - first;
        for (k = 0; k < streams_per_row; ++k) {
          total ^= touch(&streams[row * streams_per_row + k], first, count < BLOCK ? count : BLOCK, key);
        }
      }
    }
  }
  return total;
}
