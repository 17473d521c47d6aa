/* The first process of the emulated machine (see ci/avx512): runs /program for each kernel, reports the exit status, and
 * switches the machine off. */
#include <stdio.h>
#include <sys/io.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void run(const char *kernel, const char *cases) {
  /* Lazy binding saves registers with XSAVEC, whose size Bochs 2.7 gets wrong: bind everything at the start. */
  char *const environment[] = {"LD_BIND_NOW=1", NULL};
  int status = -1;
  pid_t child;
  printf("BEGIN %s\n", kernel);
  fflush(stdout);
  child = fork();
  if (child == 0) {
    execle("/program", "/program", kernel, cases, (char *)NULL, environment);
    _exit(127);
  }
  waitpid(child, &status, 0);
  printf("END %s %d\n", kernel, status);
  fflush(stdout);
  tcdrain(STDOUT_FILENO); /* the serial line is slower than the switch */
}

int main(void) {
  const char *c;
  run("avx2", "param_float16"); /* what ci/avx512 needs it for */
  run("avx512", "");
  ioperm(0x8900, 1, 1); /* Bochs ends when this word arrives at this port */
  for (c = "Shutdown"; *c != '\0'; ++c) outb((unsigned char)*c, 0x8900);
  for (;;) pause();
}
