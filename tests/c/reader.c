/* Owns the law that the reader in adamw.h's comment is all that a program needs to read 8-bit state: what it makes of
 * every code is what adamw_dequantize() makes of it, bit for bit. The text is compiled here, and it is the header's. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <adamw.h>

/* Defines what it is given, and the same as a text. */
#define READER(...) __VA_ARGS__ static const char reader_text[] = #__VA_ARGS__;

READER(
    static float power(float t, int s) {
      uint32_t bits, zero = 0x3F800000u - (0x3F800000u >> s);
      memcpy(&bits, &t, 4);
      bits = bits > zero ? (bits - zero) << s : 0;
      memcpy(&t, &bits, 4);
      return t;
    } static float exp_avg(uint8_t code, float absmax) {
      float t = ((float)code - 128.0f) * (1.0f / 127.0f);
      return (t < 0.0f ? -power(-t, 2) : power(t, 2)) * absmax;
    } static float exp_avg_sq(uint8_t code, float absmax, float floor) {
      return power(fmaf((float)code, (1.0f - floor) * (1.0f / 255.0f), floor), 3) * absmax;
    })

static int failed;

/* What matters of a text: neither white space, nor the stars before a comment's lines, nor `static`. */
static size_t plain(const char *text, size_t length, char *out) {
  size_t i, n = 0;
  for (i = 0; i < length; ++i) {
    if (i + 6 < length && memcmp(text + i, "static", 6) == 0) i += 6;
    if (text[i] == '\n')
      while (i + 1 < length && (text[i + 1] == ' ' || text[i + 1] == '*')) ++i;
    if (text[i] != ' ' && text[i] != '\n') out[n++] = text[i];
  }
  out[n] = 0;
  return n;
}

static void check_text(void) {
  static char header[1 << 18], here[sizeof header];
  FILE *file = fopen("include/adamw.h", "r"); /* tests run in the root of the repository */
  const size_t length = file == NULL ? 0 : fread(header, 1, sizeof header, file);
  static char all[sizeof header];
  if (file != NULL) fclose(file);
  plain(header, length, all);
  plain(reader_text, strlen(reader_text), here);
  if (length == sizeof header || strstr(all, here) == NULL) {
    printf("include/adamw.h does not have this text:\n%s\n", here);
    failed = 1;
  }
}

static void compare(const char *what, int code, float absmax, float floor, float is, float must) {
  if (memcmp(&is, &must, sizeof is) == 0 || failed++ > 20) return;
  printf("%s: code %d, absmax %a, floor %a: the reader says %a, the library %a\n", what, code, (double)absmax,
         (double)floor, (double)is, (double)must);
}

int main(void) {
  static const float scales[] = {0.0f, 1.0f, 0.37f, 1.17549435e-38f, 2.5e-30f, 1e10f, 3.40282347e38f};
  uint8_t codes[256];
  float target[256];
  unsigned k;
  int i, round;
  adamw_quantize_options options = ADAMW_QUANTIZE_OPTIONS_INIT;
  check_text();
  options.numel = options.row_length = 256;
  for (i = 0; i < 256; ++i) codes[i] = (uint8_t)i;
  for (k = 0; k < sizeof scales / sizeof *scales; ++k) {
    options.moment = ADAMW_MOMENT_EXP_AVG;
    if (adamw_dequantize(&options, codes, scales + k, NULL, target) != ADAMW_OK) return 2;
    for (i = 0; i < 256; ++i) compare("exp_avg", i, scales[k], 0.0f, exp_avg(codes[i], scales[k]), target[i]);
    options.moment = ADAMW_MOMENT_EXP_AVG_SQ;
    for (round = 0; round <= 4000; ++round) { /* 0, both ends of the range, and floors between */
      const float floor = round == 0 ? 0.0f : 1.0f - (float)(round - 1) / 3999.0f * (1.0f - 0x1.2p-16f);
      if (adamw_dequantize(&options, codes, scales + k, &floor, target) != ADAMW_OK) return 2;
      for (i = 0; i < 256; ++i)
        compare("exp_avg_sq", i, scales[k], floor, exp_avg_sq(codes[i], scales[k], floor), target[i]);
    }
  }
  return failed != 0;
}
